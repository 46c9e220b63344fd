package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

const (
	// lookAgain is how often this node looks whether it may go on.
	lookAgain = 10 * time.Millisecond
	// askPatience bounds one question to another node.
	askPatience = 2 * time.Second
)

// life is this node's incarnation, as the applying goroutine sees it come and go.
type life struct {
	mu    sync.Mutex
	nonce uint64 // of the NodeUp that is awaited
	ref   fsm.NodeRef
	began chan struct{} // closed when ref is set
	ended chan struct{} // closed when ref has ended
}

// begin waits for a new incarnation.
func (l *life) begin() (nonce uint64, began, ended <-chan struct{}) {
	var b [8]byte
	rand.Read(b[:])
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nonce = binary.NativeEndian.Uint64(b[:]) | 1
	l.ref = fsm.NodeRef{}
	l.began, l.ended = make(chan struct{}), make(chan struct{})
	return l.nonce, l.began, l.ended
}

// up hears of a NodeUp of this node: perhaps an old one, when the log is replayed.
func (l *life) up(c *Cluster, ref fsm.NodeRef) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nonce == 0 || l.ref.Incarnation != 0 {
		return
	}
	if inc, ok := c.fsm.Incarnation(ref.Node, l.nonce); ok && inc == ref.Incarnation {
		l.ref = ref
		close(l.began)
	}
}

// over hears that an incarnation has ended.
func (l *life) over(c *Cluster, ref fsm.NodeRef) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ref.Incarnation != 0 && l.ref == ref {
		l.end(c)
	}
}

func (l *life) restored(c *Cluster) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ref.Incarnation != 0 {
		l.end(c)
		return
	}
	if l.nonce == 0 {
		return
	}
	// Nothing of this incarnation can have been skipped: it has not begun to speak.
	if inc, ok := c.fsm.Incarnation(c.cfg.NodeID, l.nonce); ok {
		l.ref = fsm.NodeRef{Node: c.cfg.NodeID, Incarnation: inc}
		close(l.began)
	}
}

// end is called with mu held.
func (l *life) end(c *Cluster) {
	c.self.Store(&fsm.NodeRef{Node: c.cfg.NodeID})
	c.holder.End()
	l.nonce, l.ref = 0, fsm.NodeRef{}
	close(l.ended)
}

// serve makes ref the node's own, unless it has ended meanwhile.
func (l *life) serve(c *Cluster, ref fsm.NodeRef) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ref != ref {
		return false
	}
	c.self.Store(&ref)
	return true
}

// current is the incarnation that began.
func (l *life) current() fsm.NodeRef {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ref
}

// live leads one incarnation after the other, until ctx ends or the node leaves.
func (c *Cluster) live(ctx context.Context) {
	for ctx.Err() == nil && !c.isLeaving() && c.Quarantined() == "" {
		nonce, began, ended := c.life.begin()
		if !c.announce(ctx, nonce, began) {
			continue
		}
		ref := c.life.current()
		if ref.Incarnation != 0 {
			c.incarnate(ctx, ref, ended)
		}
	}
}

// announce asks the leader for an incarnation and waits until this node has applied it.
func (c *Cluster) announce(ctx context.Context, nonce uint64, began <-chan struct{}) bool {
	for {
		if !c.caughtUp(ctx) {
			return false
		}
		c.setWaiting("its announcement is on the way to the leader")
		err := c.ask(ctx, func(ctx context.Context, leader authority) (string, bool, error) {
			r, err := leader.Announce(ctx, &clusterpb.AnnounceRequest{
				Node: c.cfg.NodeID, Nonce: nonce, StoreId: c.folder.store, PeerAddr: c.address,
				MqttAddr: c.cfg.MQTTAdvertise, AdminAddr: c.cfg.AdminAdvertise, HttpAddr: c.cfg.HTTPAdvertise,
				Version: c.cfg.Version, Features: c.cfg.Features,
			})
			return r.GetLeaderAddr(), r.GetIncarnation() != 0, err
		})
		patience := askPatience
		if err != nil {
			c.setWaiting("it could not announce itself to the leader: " + err.Error())
			patience = 10 * lookAgain
		}
		select {
		case <-began:
			return true
		case <-ctx.Done():
			return false
		case <-time.After(patience):
		}
	}
}

// caughtUp waits until this node has applied what a leader said was committed. Announced earlier, it
// would hold up everybody who waits for all nodes.
func (c *Cluster) caughtUp(ctx context.Context) bool {
	for {
		commit := c.holder.Commit()
		if _, address := c.log.Leader(); address != "" && commit > 0 {
			if c.fsm.Applied() >= commit {
				return !c.isLeaving()
			}
			c.setWaiting("it is catching up with the log")
		} else if c.isMember() {
			c.setWaiting("no leader is known: a majority of the voters must run")
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(lookAgain):
		}
		if c.isLeaving() {
			return false
		}
	}
}

// incarnate is one incarnation from its NodeUp to its end.
func (c *Cluster) incarnate(ctx context.Context, ref fsm.NodeRef, ended <-chan struct{}) {
	c.log.Begin(ref)
	c.holder.Begin(ref)
	c.setWaiting("it waits for its first lease")
	served := c.firstLease(ctx, ended) && c.life.serve(c, ref)
	if served {
		c.setServing()
		c.cfg.Logger.Info("node is in service", "node", ref.Node, "incarnation", ref.Incarnation)
		c.handler.Serving(ref)
		for _, m := range c.fsm.Members() {
			if m.Live && m.ID != ref.Node {
				c.links.PeerUp(fsm.NodeRef{Node: m.ID, Incarnation: m.Incarnation})
			}
		}
		c.guard(ctx, ended)
	}
	c.self.Store(&fsm.NodeRef{Node: c.cfg.NodeID})
	c.holder.End()
	c.setWaiting("its incarnation has ended; it comes back under another")
	reason := ErrEnded
	if ctx.Err() != nil {
		reason = ErrClosed
	}
	c.log.End(reason)
	if served {
		c.cfg.Logger.Warn("node is out of service", "node", ref.Node, "incarnation", ref.Incarnation)
		c.handler.Ended(ref)
	}
	c.links.Reset() // only now: it tells publishers that frames are done with
}

func (c *Cluster) firstLease(ctx context.Context, ended <-chan struct{}) bool {
	for !c.holder.Leased() {
		select {
		case <-ctx.Done():
			return false
		case <-ended:
			return false
		case <-c.holder.Changed():
		}
	}
	return true
}

// guard tells the handler how the lease stands until the incarnation ends.
func (c *Cluster) guard(ctx context.Context, ended <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	had, beyond := true, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			return
		case <-c.holder.Changed():
		case <-timer.C:
		}
		select { // both at once: the end says why there is no lease
		case <-ended:
			return
		default:
		}
		leased, lost := c.holder.State()
		next := c.holder.Left() + time.Millisecond
		switch {
		case leased && !had:
			c.cfg.Logger.Info("the lease is back")
			c.handler.LeaseBack()
			beyond = false
		case !leased && had:
			c.cfg.Logger.Warn("the lease ran out: nothing is acknowledged", "reason", c.holder.Reason())
			c.handler.LeaseLost(false)
		}
		if had = leased; !leased {
			if next = c.cfg.Grace - lost + time.Millisecond; lost > c.cfg.Grace {
				next = c.cfg.Grace
				if !beyond {
					beyond = true
					c.cfg.Logger.Error("no lease for longer than the grace period: clients are sent away")
					c.handler.LeaseLost(true)
				}
			}
		}
		timer.Reset(next)
	}
}

// setWaiting says why this node does not serve, from now on.
func (c *Cluster) setWaiting(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removed {
		why = ErrRemoved.Error()
	}
	if q := c.Quarantined(); q != "" {
		why = q
	}
	c.waiting = why
}

// hint is setWaiting for what does not end the service: it is nothing to a node that serves by then.
func (c *Cluster) hint(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting != "" && !c.removed {
		c.waiting = why
	}
}

func (c *Cluster) setRemoved(removed bool) {
	c.mu.Lock()
	changed := removed != c.removed
	c.removed = removed
	if removed && c.waiting != "" {
		c.waiting = ErrRemoved.Error()
	}
	c.mu.Unlock()
	if changed && removed {
		c.cfg.Logger.Error(ErrRemoved.Error())
	}
}

func (c *Cluster) setServing() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting, c.served = "", true
}

func (c *Cluster) isLeaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaving
}

// InService tells whether this node serves now, and if not, why.
func (c *Cluster) InService() (bool, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting == "", c.waiting
}

// Leave ends this node's incarnation for good, the end of a drain: its clients must be gone. It is
// still a member of the log. It returns when the handler has been told of the end.
func (c *Cluster) Leave(ctx context.Context) error {
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	c.life.mu.Lock()
	ref, ended := c.life.ref, c.life.ended
	c.life.mu.Unlock()
	if ref.Incarnation == 0 {
		return nil
	}
	for {
		err := c.ask(ctx, func(ctx context.Context, leader authority) (string, bool, error) {
			r, err := leader.Leave(ctx, &clusterpb.LeaveRequest{Node: ref.Node, Incarnation: ref.Incarnation})
			return r.GetLeaderAddr(), r.GetDone(), err
		})
		select {
		case <-ended:
			return nil
		case <-ctx.Done():
			if err != nil {
				return err
			}
			return ctx.Err()
		case <-time.After(10 * lookAgain):
		}
	}
}
