package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skein-mqtt/skein/cluster/membership"
	"github.com/skein-mqtt/skein/cluster/replica"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

const (
	// formAgain is how often a node without a cluster looks for one, unless gossip wakes it.
	formAgain = 100 * time.Millisecond
	// orphanAfter is how long a node hears of no leader, or does not find itself among the members,
	// before it asks around whether it is one, and orphanAgain how often it asks.
	orphanAfter = time.Second
	orphanAgain = time.Second
)

// form makes this node a member of the log: it founds a cluster with others or joins one. Then it
// watches that it stays one.
func (c *Cluster) form(ctx context.Context) {
	if c.aloneVotes() {
		c.stand()
	}
	for {
		done, err := c.formed(ctx)
		switch {
		case done:
			c.keepNotes()
			c.stay(ctx)
			return
		case err != nil:
			c.fatal(err)
			return
		}
		if !c.lookAround(ctx, formAgain) {
			return
		}
	}
}

// lookAround waits until gossip has news, or for d. false: the end.
func (c *Cluster) lookAround(ctx context.Context, d time.Duration) bool {
	var changed <-chan struct{}
	if g := c.gossip.Load(); g != nil {
		changed = g.Changed()
	}
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-time.After(d):
	}
	return true
}

// formed takes one step. An error is the disk's.
func (c *Cluster) formed(ctx context.Context) (bool, error) {
	if servers, err := c.log.Servers(); err == nil && len(servers) > 0 {
		return true, nil
	}
	exists, err := c.exists()
	if err != nil {
		return false, err
	}
	self, others := c.notes(exists), c.others()
	alone := self.Expect == 1 && len(c.cfg.Join) == 0
	switch {
	case exists || anyExists(others):
		c.keepNotes()
		c.join(ctx)
		return false, nil
	case alone:
		return false, c.found(ctx, []membership.Node{self})
	case self.Expect <= 1:
		c.hint("it looks for a node of the cluster that it is to join")
		return false, nil
	}
	name, founders := c.founding.choose(self, others)
	if name != c.founding.named {
		if err := c.folder.write(founderFile, name); err != nil {
			return false, err
		}
		c.founding.named = name
		c.cfg.Logger.Info("the cluster is to be founded", "founder", name)
	}
	c.keepNotes()
	if founders != nil {
		return false, c.found(ctx, founders)
	}
	c.hint(c.foundingHint(others))
	return false, nil
}

func anyExists(nodes []membership.Node) bool {
	for _, n := range nodes {
		if n.Exists {
			return true
		}
	}
	return false
}

func (c *Cluster) foundingHint(others []membership.Node) string {
	blank := 1
	for _, n := range others {
		if n.Expect == c.cfg.BootstrapExpect {
			blank++
		}
	}
	hint := fmt.Sprintf("it waits for %d nodes with an empty data folder to found a cluster; %d have met", c.cfg.BootstrapExpect, blank)
	if named := c.founding.named; named != "" && named != c.cfg.NodeID {
		hint += fmt.Sprintf("; %s founds it (if that node is gone for good, clear this node's data folder and start it again)", named)
	}
	return hint
}

// found begins the log with these nodes for voters. Only the founder does so: the others are sent it
// by raft, and cannot be sent another.
func (c *Cluster) found(ctx context.Context, founders []membership.Node) error {
	var servers []replica.Server
	var names []string
	for _, n := range founders {
		servers = append(servers, replica.Server{ID: serverID(n.ID, n.Store), Address: n.Peer, Voter: true})
		names = append(names, n.ID)
	}
	// From now on no other cluster's log is taken. If one came first, it is that one's node.
	if err := c.identity.Adopt(c.folder.store); err != nil {
		return err
	}
	if c.identity.Get() != c.folder.store {
		return nil
	}
	c.cfg.Logger.Info("this node founds the cluster", "nodes", names)
	err := c.log.Bootstrap(servers)
	if err != nil && !errors.Is(err, replica.ErrHasState) && ctx.Err() == nil {
		return fmt.Errorf("founding the cluster: %w", err)
	}
	c.stand()
	return nil
}

// stand makes this node stand for election at once, where it need not wait and see whether another leads:
// it has just founded the cluster, or it is the only one with a vote.
func (c *Cluster) stand() {
	id, address := raft.ServerID(c.id), raft.ServerAddress(c.address)
	req := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(address)}}
	if err := c.transport.TimeoutNow(id, address, &req, new(raft.TimeoutNowResponse)); err != nil {
		c.cfg.Logger.Debug("the election waits for raft's timeout", "error", err)
	}
}

// aloneVotes tells whether this node is the only one with a vote.
func (c *Cluster) aloneVotes() bool {
	servers, err := c.log.Servers()
	all, _ := c.voters(servers, c.id)
	return err == nil && all == 0 && c.isMember()
}

// join asks the leader to make this node a member, without a vote at first.
func (c *Cluster) join(ctx context.Context) {
	c.hint("it joins the cluster")
	err := c.ask(ctx, func(ctx context.Context, leader authority) (string, bool, error) {
		r, err := leader.Join(ctx, &clusterpb.JoinRequest{
			Node: c.cfg.NodeID, StoreId: c.folder.store, PeerAddr: c.address, Cluster: c.cfg.ClusterName,
		})
		if err == nil && !r.GetDone() && r.GetMessage() != "" {
			err = errors.New(r.GetMessage())
		}
		return r.GetLeaderAddr(), r.GetDone(), err
	})
	if err != nil && ctx.Err() == nil {
		c.hint("it could not join the cluster yet: " + err.Error())
	}
}

// keepNotes tells the others by gossip what has changed about this node.
func (c *Cluster) keepNotes() {
	g := c.gossip.Load()
	if g == nil {
		return
	}
	exists, err := c.exists()
	if err != nil {
		return // raft will say so
	}
	if err := g.Update(c.notes(exists)); err != nil {
		c.cfg.Logger.Error("this node's notes can't be told", "error", err)
	}
}

// stay watches whether this node is a member still. Its own log can't tell: one that was removed while it
// was away is sent nothing any more, and one that has just joined reads of the time before. So it asks.
func (c *Cluster) stay(ctx context.Context) {
	var lost, asked time.Time // since when something is odd, and when it asked last
	for c.lookAround(ctx, formAgain) {
		c.keepNotes()
		now := time.Now()
		_, leader := c.log.Leader()
		switch {
		case leader != "" && c.isMember():
			lost = time.Time{}
			c.setRemoved(false)
			continue
		case lost.IsZero():
			lost = now
		}
		if now.Sub(lost) < orphanAfter || now.Sub(asked) < orphanAgain {
			continue
		}
		asked = now
		if removed, known := c.isRemoved(ctx); known {
			c.setRemoved(removed)
		}
	}
}

// isRemoved asks the leader whether this node is a member, and tells it where it is.
func (c *Cluster) isRemoved(ctx context.Context) (removed, known bool) {
	err := c.ask(ctx, func(ctx context.Context, leader authority) (string, bool, error) {
		r, err := leader.Announce(ctx, &clusterpb.AnnounceRequest{ // without a nonce it asks for nothing else
			Node: c.cfg.NodeID, StoreId: c.folder.store, PeerAddr: c.address,
		})
		return r.GetLeaderAddr(), err == nil && r.GetLeaderAddr() == "", err
	})
	return errors.Is(err, ErrRemoved), err == nil || errors.Is(err, ErrRemoved)
}

// isMember tells whether the log's configuration, as this node knows it, has this node.
func (c *Cluster) isMember() bool {
	_, ok := c.server(c.id)
	return ok
}

// server finds a member of the log by its id.
func (c *Cluster) server(id string) (replica.Server, bool) {
	servers, err := c.log.Servers()
	if err != nil {
		return replica.Server{}, false
	}
	for _, s := range servers {
		if s.ID == id {
			return s, true
		}
	}
	return replica.Server{}, false
}
