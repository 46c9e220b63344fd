package broker

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/node/event"
)

// Broker is the broker of one node. Attach joins it with the cluster, Run keeps its clocks; its
// methods may be called from any goroutine unless they say otherwise.
type Broker struct {
	cfg     Config
	state   State
	logger  *slog.Logger
	cluster Cluster
	joined  chan struct{} // closed by Attach
	started time.Time

	serving atomic.Bool // an incarnation is in service
	beyond  atomic.Bool // no lease for longer than the grace period
	tight   atomic.Bool // see Tight
	closing atomic.Bool // clients are taken no more
	cordon  atomic.Bool // new clients are asked to go elsewhere
	stalls  atomic.Bool // somebody found no lease, or no room: the sweep looks for who waits

	routes    routes
	local     local
	interests interests
	holds     holds
	flusher   flusher
	gate      gate
	stats     stats
	sys       sysTopics
	applying  *conn.Batch // of the goroutine that applies the log

	mu        sync.Mutex
	clients   map[string]*client // by client id: applied CONNECTs whose connection is here
	addresses addresses          // of the connections, where there is a limit for one
	conns     []*client          // in no order, but in the same one whenever the same has happened
	waiting   []*client          // CONNECTs that wait for the node to be in service

	lazy    lazy
	orphans orphans

	spawning sync.RWMutex
	closed   bool
	group    sync.WaitGroup // goroutines started by spawn
}

// New makes a broker that serves nobody yet.
func New(cfg Config, state State) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Choose == nil {
		cfg.Choose = rand.IntN
	}
	b := &Broker{
		cfg: cfg, state: state, logger: cfg.Logger, joined: make(chan struct{}), started: time.Now(),
		applying: conn.NewBatch(), clients: make(map[string]*client),
	}
	b.stats.events = cfg.Events
	if cfg.MaxPerAddress > 0 {
		b.addresses = make(addresses)
	}
	b.gate.bucket = full(cfg.MaxConnectRate)
	b.routes.init(b)
	b.local.init()
	b.interests.init(b)
	b.holds.init(b)
	b.flusher.init()
	b.lazy.init()
	b.orphans.init()
	return b, nil
}

// Attach gives the broker its cluster, once, after the cluster was opened with the broker as its
// handler.
func (b *Broker) Attach(c Cluster) {
	b.cluster = c
	close(b.joined)
}

// Run does what is done by the clock until ctx ends: keepalive, cursors, $SYS.
func (b *Broker) Run(ctx context.Context) error {
	select {
	case <-b.joined:
	case <-ctx.Done():
		return nil
	}
	var group sync.WaitGroup
	group.Go(func() { b.flusher.run(ctx) })
	group.Go(func() { b.sweep(ctx) })
	group.Go(func() { b.runLazy(ctx) })
	group.Go(func() { b.runOrphans(ctx) })
	if b.cfg.SysInterval > 0 {
		group.Go(func() { b.runSys(ctx) })
	}
	group.Wait()
	return nil
}

// Close ends every connection that is left and waits for what the broker started. The listeners
// must have been stopped before.
func (b *Broker) Close() {
	b.closing.Store(true)
	for _, c := range b.all() {
		c.conn.Abort()
	}
	b.spawning.Lock()
	b.closed = true
	b.spawning.Unlock()
	b.group.Wait()
}

// leased tells whether this node may promise anything now.
func (b *Broker) leased() bool {
	if b.serving.Load() && b.cluster.Leased() {
		return true
	}
	b.stalls.Store(true)
	return false
}

// spawn runs fn, which must end by itself soon, on a goroutine that Close waits for. After Close it
// does nothing.
func (b *Broker) spawn(fn func()) {
	b.spawning.RLock()
	defer b.spawning.RUnlock()
	if !b.closed {
		b.group.Go(fn)
	}
}

// all are the connections, in any order.
func (b *Broker) all() []*client { return b.append(nil) }

// append is all in memory that is there.
func (b *Broker) append(list []*client) []*client {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append(list, b.conns...)
}

// enter and remove keep the list of connections. Called with mu held.
func (b *Broker) enter(c *client) {
	c.at = len(b.conns)
	b.conns = append(b.conns, c)
	if b.addresses != nil {
		b.addresses.enter(networkOf(c.conn.RemoteAddr()))
	}
}

func (b *Broker) remove(c *client) {
	n := len(b.conns) - 1
	last := b.conns[n]
	b.conns[c.at], last.at = last, c.at
	b.conns[n], b.conns = nil, b.conns[:n]
	c.at = gone
	if b.addresses != nil {
		b.addresses.leave(networkOf(c.conn.RemoteAddr()))
	}
	if i := slices.Index(b.waiting, c); i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
	}
}

// gone is the place of a connection that is not in the list.
const gone = -1

// Serving begins an incarnation: clients may come. It is one of the cluster's handler calls.
func (b *Broker) Serving(fsm.NodeRef) {
	<-b.joined
	b.tell(event.Event{Message: "it is in service"})
	b.holds.begin()
	b.beyond.Store(false)
	b.serving.Store(true)
	b.orphans.signal()
	b.mu.Lock()
	waiting := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	for _, c := range waiting {
		c.authenticate()
	}
}

// Ended ends an incarnation. When it returns, no client of it is told anything any more.
func (b *Broker) Ended(fsm.NodeRef) {
	b.tell(event.Event{Warning: true, Message: "it is out of service: its incarnation has ended"})
	b.serving.Store(false)
	for _, c := range b.all() {
		c.sever()
	}
	b.interests.reset()
	b.holds.reset()
	b.lazy.reset()
	b.flusher.wakeUp()
}

// LeaseLost hears that nothing may be promised now; beyondGrace, that clients are better off
// elsewhere.
func (b *Broker) LeaseLost(beyondGrace bool) {
	if !beyondGrace {
		b.tell(event.Event{Warning: true, Message: "it has lost its lease: it acknowledges nothing"})
		return
	}
	b.tell(event.Event{Warning: true, Message: "it has had no lease for longer than the grace period: its clients are sent away"})
	b.beyond.Store(true)
	for _, c := range b.all() {
		c.sendAway()
	}
}

// LeaseBack lets out what was held back.
func (b *Broker) LeaseBack() {
	b.tell(event.Event{Message: "it has its lease back"})
	b.beyond.Store(false)
	for _, c := range b.all() {
		c.leaseBack()
	}
}

// Relieved hears that the link to a node takes frames again. It must not block: publishers go on
// from a goroutine of their own.
func (b *Broker) Relieved(string) {
	b.spawn(func() {
		for _, c := range b.all() {
			c.unblock(blockLink)
		}
	})
}
