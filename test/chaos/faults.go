package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/skein-mqtt/skein/proto/adminpb"
	"github.com/skein-mqtt/skein/test/chaos/disk"
)

// fault is something that is done to a whole cluster. do returns when it is over; what it left
// broken is healed afterwards. An error is a violation: a node that does not do what it was told.
type fault struct {
	name string
	do   func(ctx context.Context, c *cluster, rng *rand.Rand) error
}

// faults are all that can be done here.
var faults = func() []fault {
	list := onProcesses
	if relayed {
		list = slices.Concat(list, onNetwork)
	}
	if disk.Available() == nil {
		list = slices.Concat(list, onDisks)
	}
	return slices.Concat(list, onClocks)
}()

var onProcesses = []fault{
	{"kill-follower", killFollower},
	{"kill-leader", killLeader},
	{"kill-two", killTwo},
	{"power", power},
	{"pause-follower", pauseFollower},
	{"pause-leader", pauseLeader},
	{"hiccup", hiccup},
	{"term", term},
	{"roll", roll},
	{"wipe", wipe},
	{"grow", grow},
	{"transfer", transfer},
}

var onNetwork = []fault{
	{"cut-one", cutOne},
	{"cut-leader", cutLeader},
	{"cut-pair", cutPair},
	{"cut-in", cutIn},
	{"cut-out", cutOut},
	{"cut-clients", cutClients},
	{"delay", delay},
	{"lossy", lossy},
	{"flap", flap},
	{"reset", reset},
	{"cut-kill", cutKill},
}

// FaultNames are the names of all faults.
func FaultNames() (out []string) {
	for _, f := range faults {
		out = append(out, f.name)
	}
	return out
}

// between is a time from low to high seconds.
func between(rng *rand.Rand, low, high float64) time.Duration {
	return time.Duration((low + rng.Float64()*(high-low)) * float64(time.Second))
}

// follower is a node that does not lead.
func (c *cluster) follower(ctx context.Context, rng *rand.Rand) (*node, error) {
	leader, err := c.leader(ctx)
	if err != nil {
		return nil, err
	}
	list := slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n == leader })
	return list[rng.IntN(len(list))], nil
}

func (c *cluster) any(rng *rand.Rand) *node { return c.nodes[rng.IntN(len(c.nodes))] }

func killFollower(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n, err := c.follower(ctx, rng)
	if err != nil {
		return err
	}
	if err := c.kill(n); err != nil {
		return err
	}
	wait(ctx, between(rng, 0, 5))
	return nil
}

func killLeader(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n, err := c.leader(ctx)
	if err != nil {
		return err
	}
	if err := c.kill(n); err != nil {
		return err
	}
	wait(ctx, between(rng, 0, 5))
	return nil
}

// killTwo kills a second node while the first is away or just coming back.
func killTwo(ctx context.Context, c *cluster, rng *rand.Rand) error {
	first := c.any(rng)
	second := c.nodes[(slices.Index(c.nodes, first)+1+rng.IntN(len(c.nodes)-1))%len(c.nodes)]
	if err := c.kill(first); err != nil {
		return err
	}
	wait(ctx, between(rng, 0, 3))
	if rng.IntN(2) == 0 {
		if err := c.start(first); err != nil {
			return err
		}
		wait(ctx, between(rng, 0, 1.5))
	}
	if err := c.kill(second); err != nil {
		return err
	}
	wait(ctx, between(rng, 0, 4))
	return nil
}

func pauseFollower(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n, err := c.follower(ctx, rng)
	if err != nil {
		return err
	}
	c.pause(n)
	wait(ctx, between(rng, 3, 10))
	c.resume(n)
	wait(ctx, between(rng, 0, 2))
	return nil
}

func pauseLeader(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n, err := c.leader(ctx)
	if err != nil {
		return err
	}
	c.pause(n)
	wait(ctx, between(rng, 3, 10))
	c.resume(n)
	wait(ctx, between(rng, 0, 2))
	return nil
}

// hiccup stops nodes for about as long as leases and elections take.
func hiccup(ctx context.Context, c *cluster, rng *rand.Rand) error {
	for range 4 {
		n := c.any(rng)
		c.pause(n)
		wait(ctx, between(rng, 0.2, 1.5))
		c.resume(n)
		wait(ctx, between(rng, 0, 1))
	}
	return nil
}

func term(ctx context.Context, c *cluster, rng *rand.Rand) error {
	if err := c.stop(c.any(rng)); err != nil {
		return err
	}
	wait(ctx, between(rng, 0, 2))
	return nil
}

// roll restarts all nodes in turn, as an upgrade does.
func roll(ctx context.Context, c *cluster, _ *rand.Rand) error {
	for _, n := range slices.Clone(c.nodes) {
		if err := c.stop(n); err != nil {
			return err
		}
		if err := c.start(n); err != nil {
			return err
		}
		if err := c.whole(ctx, time.Minute); err != nil {
			return err
		}
	}
	return nil
}

func wipe(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n := c.any(rng)
	if err := c.kill(n); err != nil {
		return err
	}
	wait(ctx, between(rng, 0, 3))
	return c.wipe(n)
}

// grow lets one more node join, serve for a while, and leave for good.
func grow(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n, err := c.place()
	if err != nil {
		return err
	}
	if err := c.start(n); err != nil {
		return err
	}
	if err := c.whole(ctx, time.Minute); err != nil {
		return err
	}
	wait(ctx, between(rng, 1, 5))
	if rng.IntN(2) == 0 {
		err = c.stop(n)
	} else {
		err = c.kill(n)
	}
	if err != nil {
		return err
	}
	c.nodes = slices.DeleteFunc(c.nodes, func(o *node) bool { return o == n })
	if err := c.remove(ctx, n); err != nil {
		return err
	}
	return errors.Join(c.wipe(n), n.unmount())
}

// remove takes a node that has ended out of the cluster, once the others have noticed.
func (c *cluster) remove(ctx context.Context, n *node) error {
	var last error
	for deadline := time.Now().Add(30 * time.Second); ctx.Err() == nil; wait(ctx, 200*time.Millisecond) {
		last = c.nodes[0].ask(ctx, 10*time.Second, func(ctx context.Context, a adminpb.AdminClient) error {
			_, err := a.RemoveNode(ctx, &adminpb.RemoveNodeRequest{Node: n.id})
			return err
		})
		if last == nil {
			c.model.Node("%s removed", n.id)
			return nil
		}
		if list, err := c.nodes[0].members(ctx); err == nil && len(list) > 0 &&
			!slices.ContainsFunc(list, func(m *adminpb.Node) bool { return m.GetId() == n.id }) {
			return nil // an attempt whose answer was lost
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s can't be removed: %w", n.id, last)
		}
	}
	return ctx.Err()
}

// transfer moves leadership about.
func transfer(ctx context.Context, c *cluster, rng *rand.Rand) error {
	for range 3 {
		err := c.any(rng).ask(ctx, 10*time.Second, func(ctx context.Context, a adminpb.AdminClient) error {
			answer, err := a.TransferLeader(ctx, &adminpb.TransferLeaderRequest{})
			if err == nil {
				c.model.Node("leadership goes to %s", answer.GetLeader())
			}
			return err
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			c.model.Node("leadership was not transferred: %v", err)
		}
		wait(ctx, between(rng, 0, 2))
	}
	return nil
}

// part cuts ways for a while.
func (c *cluster) part(ctx context.Context, what string, d time.Duration, ways []direction) error {
	c.model.Node("cut: %s", what)
	c.net.Set(rule{cut: true}, ways...)
	wait(ctx, d)
	c.net.Heal()
	c.model.Node("network healed")
	return nil
}

func cutOne(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n, err := c.follower(ctx, rng)
	if err != nil {
		return err
	}
	return c.part(ctx, n.id+" from all others", between(rng, 1, 12), both(n.id, c.others(n)...))
}

func cutLeader(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n, err := c.leader(ctx)
	if err != nil {
		return err
	}
	return c.part(ctx, n.id+", which leads, from all others", between(rng, 1, 12), both(n.id, c.others(n)...))
}

// cutPair cuts two nodes from each other; a third sees both.
func cutPair(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n := c.any(rng)
	others := c.others(n)
	o := others[rng.IntN(len(others))]
	return c.part(ctx, n.id+" and "+o+" from each other", between(rng, 1, 12), both(n.id, o))
}

// cutIn: a node hears nothing from the others, and they hear it.
func cutIn(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n := c.any(rng)
	var ways []direction
	for _, o := range c.others(n) {
		ways = append(ways, direction{o, n.id})
	}
	return c.part(ctx, "what the others send to "+n.id, between(rng, 1, 10), ways)
}

// cutOut is the other way round.
func cutOut(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n := c.any(rng)
	var ways []direction
	for _, o := range c.others(n) {
		ways = append(ways, direction{n.id, o})
	}
	return c.part(ctx, "what "+n.id+" sends to the others", between(rng, 1, 10), ways)
}

// cutClients cuts a node from its clients; the other nodes see it.
func cutClients(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n := c.any(rng)
	return c.part(ctx, n.id+" from all clients", between(rng, 1, 12), both(n.id, clients))
}

// lossy loses some of what a node and the others send each other.
func lossy(ctx context.Context, c *cluster, rng *rand.Rand) error {
	loss := 0.01 + rng.Float64()*0.1
	n := c.any(rng)
	c.model.Node("%.0f %% is lost between %s and the others", 100*loss, n.id)
	c.net.Set(rule{loss: loss}, both(n.id, c.others(n)...)...)
	wait(ctx, between(rng, 2, 8))
	c.net.Heal()
	c.model.Node("network healed")
	return nil
}

func delay(ctx context.Context, c *cluster, rng *rand.Rand) error {
	d := between(rng, 0.005, 0.15)
	n := c.any(rng)
	c.model.Node("%s between %s and the others", d, n.id)
	c.net.Set(rule{delay: d}, both(n.id, c.others(n)...)...)
	wait(ctx, between(rng, 2, 8))
	c.net.Heal()
	c.model.Node("network healed")
	return nil
}

func flap(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n := c.any(rng)
	ways := both(n.id, c.others(n)...)
	for range 6 {
		if err := c.part(ctx, n.id+" from all others", between(rng, 0.1, 1.2), ways); err != nil {
			return err
		}
		wait(ctx, between(rng, 0.1, 1))
	}
	return nil
}

// reset breaks the connections between nodes, which can be made again at once.
func reset(ctx context.Context, c *cluster, rng *rand.Rand) error {
	for range 4 {
		c.model.Node("all connections between nodes reset")
		c.net.Reset()
		wait(ctx, between(rng, 0.1, 1.5))
	}
	return nil
}

// cutKill cuts a node off and kills another one meanwhile; the first comes back to a cluster that
// needs it.
func cutKill(ctx context.Context, c *cluster, rng *rand.Rand) error {
	n := c.any(rng)
	others := slices.DeleteFunc(slices.Clone(c.nodes), func(o *node) bool { return o == n })
	victim := others[rng.IntN(len(others))]
	c.model.Node("cut: %s from all others", n.id)
	c.net.Set(rule{cut: true}, both(n.id, c.others(n)...)...)
	wait(ctx, between(rng, 0, 4))
	if err := c.kill(victim); err != nil {
		return err
	}
	wait(ctx, between(rng, 0, 2))
	c.net.Heal()
	c.model.Node("network healed")
	wait(ctx, between(rng, 0, 3))
	return nil
}
