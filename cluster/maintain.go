package cluster

import (
	"context"
	"time"

	"github.com/skein-mqtt/skein/fsm"
)

const (
	// maintainEvery is how often a node looks after the members, when it leads.
	maintainEvery = 250 * time.Millisecond
	// keepEvery is how often connections to nodes that are gone are closed.
	keepEvery = 5 * time.Second
	// caughtUpAgo is how far behind the log a node may be that is given a vote.
	caughtUpAgo = time.Second
)

// maintain looks after the connections and, while this node leads, after the members of the log. The
// verdicts, the clean-up behind them and the log's clock are the leases' (see package lease).
func (c *Cluster) maintain(ctx context.Context) {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	var kept, abdicated time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := time.Now(); now.Sub(kept) > keepEvery {
			kept = now
			c.dial.Keep(c.addresses())
		}
		if now := time.Now(); now.Sub(abdicated) > transferPatience {
			abdicated = now
			c.abdicate()
		}
		if c.log.IsLeader() && c.leader.Ready() {
			c.tend(ctx)
		}
	}
}

// addresses are where nodes are that this one may talk to.
func (c *Cluster) addresses() []string {
	out := c.places()
	for _, m := range c.fsm.Members() {
		out = append(out, m.PeerAddr)
	}
	for _, n := range c.others() {
		out = append(out, n.Peer)
	}
	return out
}

// tend takes one step towards the members that the log should have.
func (c *Cluster) tend(ctx context.Context) {
	c.configuring.Lock()
	defer c.configuring.Unlock()
	ctx, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	if err := c.promote(ctx); err != nil {
		c.cfg.Logger.Warn("a node could not be given its vote; it is tried again", "error", err)
	}
	if err := c.tidy(ctx); err != nil {
		c.cfg.Logger.Warn("a removed node could not be forgotten; it is tried again", "error", err)
	}
}

// promote gives a vote to a node that holds leases and is up to date, one at a time, if the larger
// majority is alive then.
func (c *Cluster) promote(ctx context.Context) error {
	servers, err := c.log.Servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if s.Voter || !c.alive(s.ID) || c.isRemoving(nodeOf(s.ID)) {
			continue
		}
		ref, ok := c.fsm.Live(nodeOf(s.ID))
		if !ok {
			continue
		}
		if _, current := c.leader.Applied(ref, caughtUpAgo); !current {
			continue
		}
		if all, alive := c.voters(servers, ""); alive+1 < (all+1)/2+1 {
			continue
		}
		if err := c.log.AddVoter(ctx, s.ID, s.Address); err != nil {
			return err
		}
		c.cfg.Logger.Info("a node has caught up and has a vote now", "server", s.ID)
		return nil
	}
	return nil
}

// tidy finishes removals that a leader did not live to finish: a node without a place in the
// configuration is not served, and forgotten once it is over.
func (c *Cluster) tidy(ctx context.Context) error {
	servers, err := c.log.Servers()
	if err != nil {
		return err
	}
	places := make(map[string]bool)
	for _, s := range servers {
		places[nodeOf(s.ID)] = true
	}
	for _, m := range c.fsm.Members() {
		switch {
		case places[m.ID] || c.isRemoving(m.ID):
		case m.Live:
			c.leader.Refuse(fsm.NodeRef{Node: m.ID, Incarnation: m.Incarnation})
		default:
			if err := c.forget(ctx, m.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
