package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/cluster/lease"
	"github.com/skein-mqtt/skein/cluster/link"
	"github.com/skein-mqtt/skein/cluster/membership"
	"github.com/skein-mqtt/skein/cluster/peer"
	"github.com/skein-mqtt/skein/cluster/replica"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// Cluster is this node's part in the cluster.
type Cluster struct {
	cfg     Config
	id      string // server id
	address string // of the peer port, as the others use it
	folder  *folder
	fsm     *fsm.FSM
	handler Handler

	log       replicatedLog
	dial      dialer
	port      *peer.Port
	transport *replica.Transport
	early     early
	holder    *lease.Holder
	leader    *lease.Leader
	links     *link.Links
	gossip    atomic.Pointer[membership.Membership] // nil: none
	identity  *identity

	self       atomic.Pointer[fsm.NodeRef]
	life       life
	checks     checks
	generation uint64 // of what may be awaited when the last entry was applied; the applying goroutine's own
	closers    []func() error

	ctx    context.Context
	stop   context.CancelFunc
	group  sync.WaitGroup
	failed chan error    // holds the first fatal error
	ledBy  chan struct{} // holds a token: another node leads
	once   sync.Once
	closed error

	configuring sync.Mutex // one change of the members at a time, at the leader
	founding    founding   // only of the goroutine that forms the cluster, once that runs

	mu      sync.Mutex
	waiting string // why this node is not in service
	leaving bool   // it does not come back: a drain
	served  bool   // some incarnation has served
	removed bool   // the leader said that it is no member any more
	// removing are the nodes that an operator is just removing, at the leader.
	removing map[string]bool
}

// Open starts the node's part in the cluster and returns before it serves: Handler.Serving tells when.
// machine must be empty and belongs to the cluster, which applies the log to it; reads are free.
func Open(ctx context.Context, cfg Config, machine *fsm.FSM, handler Handler) (_ *Cluster, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	c := &Cluster{cfg: cfg, fsm: machine, handler: handler, failed: make(chan error, 1), ledBy: make(chan struct{}, 1)}
	c.ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.self.Store(&fsm.NodeRef{Node: cfg.NodeID})
	c.waiting = "starting"
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.folder, err = openFolder(cfg.DataDir); err != nil {
		return nil, err
	}
	c.closers = append(c.closers, c.folder.close)
	if err := c.folder.admitted(); err != nil {
		return nil, err
	}
	sweepRestores(cfg.DataDir)
	c.id = serverID(cfg.NodeID, c.folder.store)
	leases := lease.Config{Duration: cfg.Lease, Drift: cfg.Drift, Logger: cfg.Logger}
	c.holder = lease.NewHolder(leases, cfg.NodeID)
	c.leader = lease.NewLeader(leases, cfg.NodeID, machine, leaderLog{c}, c.holder.Now)
	c.links = link.New(link.Config{
		MaxUnacked: cfg.MaxUnacked, StallAfter: 2 * cfg.Lease, Logger: cfg.Logger,
		OnRelief: cfg.Relieved, Dropped: cfg.Dropped, Repick: cfg.Repick,
	}, machine, linkHost{c})
	c.closers = append(c.closers, func() error { c.links.Close(); return nil })
	if err := c.assemble(); err != nil {
		return nil, err
	}
	if err := c.openGossip(); err != nil {
		return nil, err
	}
	c.start()
	return c, nil
}

func (c *Cluster) openGossip() error {
	if c.cfg.GossipBind == "" {
		return nil
	}
	exists, err := c.exists()
	if err != nil {
		return err
	}
	gossip, err := membership.Open(membership.Config{
		Bind: c.cfg.GossipBind, Advertise: c.cfg.GossipAdvertise, Join: c.cfg.Join, Cluster: c.cfg.ClusterName,
		Keys: c.cfg.GossipKeys, Logger: c.cfg.Logger, Self: c.notes(exists),
	})
	if err == nil {
		c.gossip.Store(gossip) // raft looks for moved nodes there already
	}
	return err
}

// notes is what this node tells by gossip.
func (c *Cluster) notes(exists bool) membership.Node {
	return membership.Node{
		ID: c.cfg.NodeID, Store: c.folder.store, Peer: c.address, MQTT: c.cfg.MQTTAdvertise,
		Admin: c.cfg.AdminAdvertise, HTTP: c.cfg.HTTPAdvertise, Exists: exists, Expect: c.cfg.BootstrapExpect,
		Founder: c.founding.named,
	}
}

func (c *Cluster) start() {
	c.group.Go(func() { c.holder.Run(c.ctx, leaseWay{c}) })
	c.group.Go(func() { c.form(c.ctx) })
	c.group.Go(func() { c.live(c.ctx) })
	c.group.Go(func() { c.maintain(c.ctx) })
}

// Close ends everything, in whatever state it is, and returns when it is over. A node that served has
// Ended called. The others notice by the lease, unless Leave was called before.
func (c *Cluster) Close() error {
	c.once.Do(func() {
		c.stop()
		c.group.Wait()
		if g := c.gossip.Load(); g != nil {
			c.closed = g.Close()
		}
		if c.leader != nil {
			c.leader.Close()
		}
		for i := len(c.closers) - 1; i >= 0; i-- {
			c.closed = errors.Join(c.closed, c.closers[i]())
		}
	})
	return c.closed
}

// Failed brings the error after which this node must stop: its disk failed, or an entry of the log
// can't be read. At most one.
func (c *Cluster) Failed() <-chan error { return c.failed }

func (c *Cluster) fatal(err error) {
	select {
	case c.failed <- err:
	default:
	}
}

// Propose hands cmd to the log and returns at once, with the sequence that cmd has in this incarnation,
// or 0 when there is none. done runs exactly once: on the applying goroutine with what cmd did, in the
// order of the log, or with an error when the incarnation has ended. The log tries until then.
func (c *Cluster) Propose(cmd *fsmpb.Command, done func(fsm.Result, error)) uint64 {
	return c.log.Propose(cmd, done)
}

// Backlog is how much this node has proposed that is not applied yet.
func (c *Cluster) Backlog() (commands, bytes int) { return c.log.Backlog() }

// Barrier runs done when every incarnation that is live in the log has applied index, perhaps before
// it returns; never when this node's incarnation ends before.
func (c *Cluster) Barrier(index uint64, done func()) { c.holder.Barrier(index, done) }

// Watermark is what every live incarnation has applied, as far as this node knows.
func (c *Cluster) Watermark() uint64 { return c.holder.Watermark() }

// Leased tells whether this node holds a lease at this very instant.
func (c *Cluster) Leased() bool { return c.holder.Leased() }

// LeaseState is Leased and, if there is none, for how long.
func (c *Cluster) LeaseState() (leased bool, lost time.Duration) { return c.holder.State() }

// Now estimates the leader's clock, ms; never ahead of it while it leads, never going back.
func (c *Cluster) Now() int64 { return max(c.holder.Now(), c.fsm.Now()) }

// Self is this node's serving incarnation, 0 while it does not serve.
func (c *Cluster) Self() fsm.NodeRef { return *c.self.Load() }

// Send gives a frame to the link to an incarnation: see link.Links.Send.
func (c *Cluster) Send(to fsm.NodeRef, f *clusterpb.Frame, done clusterpb.LinkDone) bool {
	return c.links.Send(to, f, done)
}

// LinkCongested tells whether publishers to a node should pause, until Config.Relieved.
func (c *Cluster) LinkCongested(node string) bool { return c.links.Congested(node) }

// ServerID is this node's name in the log: its id and its data folder's.
func (c *Cluster) ServerID() string { return c.id }

// PeerAddress is where the other nodes reach this one.
func (c *Cluster) PeerAddress() string { return c.address }

// Orders brings the connections that other nodes make with DialOrders, over the peer port and under its protection.
// To be taken once.
func (c *Cluster) Orders() net.Listener { return c.port.Orders() }

// DialOrders leads to the Orders of the node at a peer address. It blocks until ctx ends at most.
func (c *Cluster) DialOrders(ctx context.Context, address string) (net.Conn, error) {
	return c.port.DialOrders(ctx, address)
}

// PeersRefused counts the connections to the peer port that were not let in.
func (c *Cluster) PeersRefused() uint64 { return c.port.Refused() }

// GossipKeys replaces the keys of gossip: the first encrypts, all decrypt. Gossip that began without keys stays plain
// until the node starts again: an error.
func (c *Cluster) GossipKeys(keys [][]byte) error {
	if g := c.gossip.Load(); g != nil {
		return g.Rekey(keys)
	}
	return nil
}

// GossipAddress is where gossip reaches this node; empty: there is none.
func (c *Cluster) GossipAddress() string {
	g := c.gossip.Load()
	if g == nil {
		return ""
	}
	return g.Address()
}

// linkHost is the node as the links see it.
type linkHost struct{ c *Cluster }

func (h linkHost) Self() fsm.NodeRef { return h.c.Self() }
func (h linkHost) Leased() bool      { return h.c.Leased() }

func (h linkHost) Deliver(from fsm.NodeRef, f *clusterpb.Frame) clusterpb.LinkCode {
	return h.c.handler.Deliver(from, f)
}

func (h linkHost) Dial(node string) (clusterpb.PeerClient, error) {
	for _, m := range h.c.fsm.Members() {
		if m.ID == node && m.PeerAddr != "" {
			return h.c.dial.Peer(m.PeerAddr)
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrUnknownNode, node)
}

func (h linkHost) Relay(cmd *fsmpb.Relay, done func(error)) {
	h.c.Propose(&fsmpb.Command{Op: &fsmpb.Command_Relay{Relay: cmd}}, func(_ fsm.Result, err error) { done(err) })
}

// leaderLog is the log as a leader's leases see it.
type leaderLog struct{ c *Cluster }

func (l leaderLog) VerifyLeader() error               { return l.c.log.VerifyLeader() }
func (l leaderLog) Barrier(ctx context.Context) error { return l.c.log.Barrier(ctx) }
func (l leaderLog) CommitIndex() uint64               { return l.c.log.CommitIndex() }

func (l leaderLog) Append(ctx context.Context, s *fsmpb.System) error {
	_, err := l.c.log.AppendSystem(ctx, s)
	return err
}

func (l leaderLog) SetClock(clock func() int64) {
	if clock == nil {
		clock = logTime{l.c.fsm, l.c.holder}.Now
	}
	l.c.log.SetClock(clock)
}

func (l leaderLog) Voters() []string {
	servers, err := l.c.log.Servers()
	if err != nil {
		return nil
	}
	var out []string
	for _, s := range servers {
		if s.Voter {
			out = append(out, nodeOf(s.ID))
		}
	}
	return out
}

func (l leaderLog) HandOver() {
	l.c.spawn(func() {
		ctx, cancel := context.WithTimeout(l.c.ctx, transferPatience)
		defer cancel()
		if err := l.c.log.Transfer(ctx, "", ""); err != nil {
			l.c.cfg.Logger.Warn("leadership was not handed over", "error", err)
		}
	})
}

// spawn runs fn on a goroutine that Close waits for, unless it has been called.
func (c *Cluster) spawn(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return
	}
	c.group.Go(fn)
}

// logTime is the state with the log's time as it goes on between entries: what a leader told last, by this
// node's monotonic clock. The state's own stands still where nothing is written.
type logTime struct {
	*fsm.FSM
	holder *lease.Holder
}

func (t logTime) Now() int64 { return max(t.FSM.Now(), t.holder.Now()) }
