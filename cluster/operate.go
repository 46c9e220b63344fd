package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skein-mqtt/skein/cluster/replica"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// transferPatience bounds an attempt to hand the leadership over.
const transferPatience = 3 * time.Second

// Remove takes a node out of the cluster for good, at the leader only (else ErrNotLeader). One in
// service is refused with ErrLive, unless force ends its service first; one whose vote is needed with
// ErrQuorum. It blocks until that is committed. The node's data folder must be cleared before it can
// join again.
func (c *Cluster) Remove(ctx context.Context, node string, force bool) error {
	servers, err := c.toRemove(node, force)
	if err != nil {
		return err
	}
	ref, live := c.fsm.Live(node)
	if node == c.cfg.NodeID {
		// Only another leader can see it through.
		if _, err := c.Transfer(ctx, ""); err != nil {
			return fmt.Errorf("%w: %s leads, and could not hand the leadership over: %w", ErrQuorum, node, err)
		}
		return ErrNotLeader
	}
	if err := c.setRemoving(node); err != nil {
		return err
	}
	defer c.unsetRemoving(node)
	if live {
		if err := c.mayRemove(servers); err != nil {
			return err
		}
		c.cfg.Logger.Warn("a node in service is being removed", "node", node, "incarnation", ref.Incarnation)
		if err := c.endService(ctx, ref); err != nil {
			return err
		}
	}
	c.configuring.Lock()
	defer c.configuring.Unlock()
	for _, s := range servers {
		if err := c.remove(ctx, s); err != nil {
			return ordered(err)
		}
	}
	return c.forget(ctx, node)
}

// toRemove finds a node's places in the log, and why it must not be removed.
func (c *Cluster) toRemove(node string, force bool) ([]replica.Server, error) {
	if !c.log.IsLeader() {
		return nil, ErrNotLeader
	}
	servers, err := c.serversOf(node)
	if err != nil {
		return nil, err
	}
	if _, known := c.member(node); len(servers) == 0 && !known {
		return nil, fmt.Errorf("%w: %s", ErrUnknownNode, node)
	}
	if _, live := c.fsm.Live(node); live && !force {
		return nil, fmt.Errorf("%w: %s: stop it first, or force it", ErrLive, node)
	}
	return servers, nil
}

// MayRemove tells why Remove would refuse, at the leader only (else ErrNotLeader). It changes nothing.
func (c *Cluster) MayRemove(node string, force bool) error {
	servers, err := c.toRemove(node, force)
	if err != nil {
		return err
	}
	if _, live := c.fsm.Live(node); live {
		return c.mayRemove(servers)
	}
	return nil
}

// endService has an incarnation refused its lease until the verdict on it is in the log. Another term, also
// of this node's, knows nothing of the refusal.
func (c *Cluster) endService(ctx context.Context, ref fsm.NodeRef) error {
	led := true
	err := c.until(ctx, func() bool {
		if now, ok := c.fsm.Live(ref.Node); !ok || now != ref {
			return true
		}
		led = c.log.IsLeader()
		c.leader.Refuse(ref)
		return !led
	})
	if err == nil && !led {
		return ErrNotLeader
	}
	return err
}

// forget takes a node that is no member any more out of the replicated state. Called at the leader, with
// configuring held.
func (c *Cluster) forget(ctx context.Context, node string) error {
	if m, ok := c.member(node); !ok || m.Live {
		return nil
	}
	_, err := c.log.AppendSystem(ctx, &fsmpb.System{Op: &fsmpb.System_NodeRemoved{NodeRemoved: &fsmpb.NodeRemoved{Node: node}}})
	return ordered(err)
}

func (c *Cluster) mayRemove(servers []replica.Server) error {
	all, err := c.log.Servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if n, alive := c.voters(all, s.ID); s.Voter && alive < n/2+1 {
			return fmt.Errorf("%w: without %s %d of %d voters are in service", ErrQuorum, s.ID, alive, n)
		}
	}
	return nil
}

// serversOf are a node's places in the log's configuration: one, as a rule.
func (c *Cluster) serversOf(node string) ([]replica.Server, error) {
	servers, err := c.log.Servers()
	if err != nil {
		return nil, err
	}
	var out []replica.Server
	for _, s := range servers {
		if nodeOf(s.ID) == node {
			out = append(out, s)
		}
	}
	return out, nil
}

// Transfer hands the leadership to a node, or to whoever is best when node is empty, at the leader only
// (else ErrNotLeader). It blocks until another one leads, and names it.
func (c *Cluster) Transfer(ctx context.Context, node string) (leader string, err error) {
	to, err := c.mayTransfer(node)
	if err != nil || node == c.cfg.NodeID {
		return node, err
	}
	ctx, cancel := context.WithTimeout(ctx, transferPatience)
	defer cancel()
	if err := c.log.Transfer(ctx, to.ID, to.Address); err != nil {
		return "", ordered(err)
	}
	err = c.until(ctx, func() bool {
		id, _ := c.log.Leader()
		leader = nodeOf(id)
		return leader != "" && leader != c.cfg.NodeID
	})
	return leader, err
}

// mayTransfer finds why a Transfer to a node would be refused, and its place in the log: none when node is
// empty or leads.
func (c *Cluster) mayTransfer(node string) (to replica.Server, err error) {
	if !c.log.IsLeader() {
		return to, ErrNotLeader
	}
	if node == "" || node == c.cfg.NodeID {
		return to, nil
	}
	servers, err := c.serversOf(node)
	if err != nil {
		return to, err
	}
	for _, s := range servers {
		if s.Voter {
			to = s
		}
	}
	switch {
	case len(servers) == 0:
		return to, fmt.Errorf("%w: %s", ErrUnknownNode, node)
	case to.ID == "":
		return to, fmt.Errorf("%s has no vote yet: it can't lead", node)
	case !c.alive(to.ID):
		return to, fmt.Errorf("%s is not in service: it can't lead", node)
	}
	return to, nil
}

// IsLeader tells whether this node leads the log now.
func (c *Cluster) IsLeader() bool { return c.log.IsLeader() }

// MayTransfer tells whether Transfer would try, and why not.
func (c *Cluster) MayTransfer(node string) error {
	_, err := c.mayTransfer(node)
	return err
}

// HandOver is what a node does with its leadership before it goes: it transfers it if it leads and
// another node in service has a vote, and else does nothing.
func (c *Cluster) HandOver(ctx context.Context) error {
	servers, err := c.log.Servers()
	if err != nil {
		return err
	}
	if _, alive := c.voters(servers, c.id); alive == 0 {
		return nil
	}
	if _, err := c.Transfer(ctx, ""); err != nil && !errors.Is(err, ErrNotLeader) {
		return err
	}
	return nil
}

// until waits for what is bound to come.
func (c *Cluster) until(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ctx.Done():
			return ErrClosed
		case <-time.After(lookAgain):
		}
	}
	return nil
}

// ordered turns the log's own refusal into the one that operators' callers know.
func ordered(err error) error {
	if errors.Is(err, replica.ErrNotLeader) {
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	return err
}

func (c *Cluster) setRemoving(node string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removing[node] {
		return fmt.Errorf("%s is being removed already", node)
	}
	if c.removing == nil {
		c.removing = make(map[string]bool)
	}
	c.removing[node] = true
	return nil
}

func (c *Cluster) unsetRemoving(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.removing, node)
}

func (c *Cluster) isRemoving(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.removing[node]
}
