package broker

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/node/session"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// phase is where a connection stands.
type phase uint8

const (
	phaseFresh    phase = iota // CONNECT is due
	phaseExchange              // AUTH is due
	phaseProposed              // CONNECT is in the log, or waits for the node to be in service
	phaseGated                 // CONNECT is applied, but there is no lease: CONNACK is due
	phaseOnline
	phaseOver // nothing is said to the client any more, nothing of it is taken
)

// block is a reason for which a client's PUBLISHes are not taken for now. Acknowledgements and
// PINGREQ still are: what a publish waits for may wait for them.
type block uint16

const (
	blockLease   block = 1 << iota // a message at QoS 1 or 2, and no lease
	blockOrder                     // a publish must not overtake one on the other road
	blockLink                      // a link is congested
	blockLog                       // too much waits for the log
	blockBusy                      // a 3.x client has as much under way as Receive Maximum allows others
	blockSubs                      // too many SUBSCRIBEs wait
	blockRouting                   // a PUBLISH is being routed by another goroutine
	blockDrain                     // the node is being drained
	blockMemory                    // the node's memory is tight
)

// client is one connection and what it is the connection of. Its Conn's mutex guards everything
// that is not atomic or said to be fixed.
type client struct {
	b        *Broker
	conn     *conn.Conn
	listener string   // fixed
	identity Identity // fixed
	mount    string   // fixed: stands before its topics
	rights   Rights   // fixed once its CONNECT is proposed; nil: everything
	opened   time.Time
	at       int // in Broker.conns, whose mutex guards it

	phase    phase
	version  mqtt.Version // 0 before CONNECT
	connect  *mqtt.Connect
	enhanced *enhanced // nil: CONNECT asked for no enhanced authentication
	info     info      // fixed once online
	epoch    fsm.Epoch
	sess     *session.Session
	clean    bool   // DISCONNECT came: the will is dropped
	why      string // the connection ends, for people; empty: it broke
	expiry   *uint32
	ended    bool // its Disconnect is in the log, or need not be
	intake   intake
	choked   bool         // nothing is read until what it has caused is written
	pace     *pace        // nil: it may be as fast as it likes
	stash    []completion // for want of a lease
	zero     zeroQueue
	subs     map[subKey]*sub
	ops      operations
	last     [3]uint64     // by QoS: the sequence of its last publish on the log road
	linked   [3]int        // by QoS: publishes on links, and fences, that are not acknowledged
	loose    []fsm.NodeRef // whom it has sent QoS 0 on links since the last fence
	pending  int           // bytes of publishes that are under way
	ahead    int           // bytes on the link road that wait, everywhere, for this client's last on the log road
	queued   bool          // in the list of sessions whose cursor is to be committed
	starved  bool          // messages were queued for want of a lease
	current  publish       // the PUBLISH that is being taken
	drops    atomic.Pointer[drops]

	deadline atomic.Int64 // tick until which the next packet must come; 0: none
	patience atomic.Int64 // ticks, of the keepalive; 0: none
	until    atomic.Int64 // tick at which the connection must end; 0: none
	slowed   atomic.Bool  // it publishes too fast: the reader sleeps until it may go on
	held     atomic.Bool  // the intake is full: the reader sleeps through the keepalive
	seen     struct{ bytesIn, messagesIn, messagesOut uint64 }
}

// info is what is known of a client since its CONNECT.
type info struct {
	id        string
	username  string // until its CONNECT is judged: as it says
	keepalive uint16
	window    int
}

// completion is an acknowledgement whose cause is settled.
type completion struct {
	kind  session.AckKind
	slot  uint64
	code  mqtt.ReasonCode
	codes []byte
	// leased: this node had a lease after it had read what it is about. It is not true of one that
	// waits.
	leased bool
}

// ErrFull: the node, or the client's address, has as many connections as it may.
var ErrFull = errors.New("broker: mqtt.max_connections or mqtt.max_connections_per_address is reached")

// Serve is ServeAs for a client that nothing is known of.
func (b *Broker) Serve(c *conn.Conn, listener string, done func()) error {
	return b.ServeAs(c, listener, Identity{}, done)
}

// ServeAs runs one connection, which it owns, and calls done when it has ended; like conn.Conn.Serve it
// may return before. listener is for people. After ErrFull the connection ends by itself.
func (b *Broker) ServeAs(c *conn.Conn, listener string, id Identity, done func()) error {
	cl := &client{b: b, conn: c, listener: listener, identity: id, opened: time.Now()}
	if id.Policy != nil {
		cl.mount = id.Policy.Mount
	}
	cl.deadline.Store(conn.Tick() + ticks(b.cfg.ConnectTimeout))
	b.mu.Lock()
	limit, full := b.crowded(c)
	if !full {
		b.enter(cl)
	}
	b.mu.Unlock()
	if full {
		b.stats.refused.Add(1)
		b.reached(limit)
		c.Abort()
		c.Serve(refused{}, done)
		return ErrFull
	}
	b.stats.opened.Add(1)
	c.Serve(cl, done)
	return nil
}

// crowded tells whether there is no room for a connection, and which limit says so. Caller holds b.mu.
func (b *Broker) crowded(c *conn.Conn) (Limit, bool) {
	if b.cfg.MaxConnections > 0 && len(b.conns) >= b.cfg.MaxConnections || b.closing.Load() {
		return LimitConnections, true
	}
	if b.addresses == nil {
		return 0, false
	}
	n := networkOf(c.RemoteAddr())
	return LimitPerAddress, n.IsValid() && b.addresses[n] >= b.cfg.MaxPerAddress
}

// refused handles a connection that there is no room for.
type refused struct{}

func (refused) Data([]byte, *conn.Batch) (int, error) { return 0, conn.ErrClosed }
func (refused) Drained(*conn.Batch)                   {}
func (refused) Closed(error)                          {}

// ticks is a duration in ticks, rounded up.
func ticks(d time.Duration) int64 { return int64((d + conn.TickLength - 1) / conn.TickLength) }

// with runs fn with the client's lock held and has what it said written by the flusher.
func (c *client) with(fn func(ba *conn.Batch)) {
	ba := getBatch()
	c.conn.Lock()
	fn(ba)
	c.conn.Unlock()
	c.b.flusher.take(ba)
	putBatch(ba)
}

// say appends to the outbox. Caller holds the lock.
func (c *client) say(ba *conn.Batch, fn func(dst []byte) []byte) {
	c.conn.SetOut(fn(c.conn.Out()), ba)
}

// complete settles an acknowledgement and sends what may leave now. Without a lease it is kept:
// another node may own the client by now. Caller holds the lock.
func (c *client) complete(ba *conn.Batch, d completion) {
	if c.phase == phaseOver || c.sess == nil {
		return
	}
	if c.phase != phaseOnline || !d.leased && !c.b.leased() {
		d.leased = false
		c.stash = append(c.stash, d)
		return
	}
	c.conn.SetOut(c.sess.Complete(d.kind, d.slot, d.code, d.codes, c.conn.Out()), ba)
}

// leaseBack lets out what waited for the lease.
func (c *client) leaseBack() {
	c.with(func(ba *conn.Batch) {
		if !c.b.leased() {
			return // it has gone again: what waits is looked at later
		}
		if c.phase == phaseGated {
			c.admit(ba)
		}
		if c.phase != phaseOnline {
			return
		}
		if r := c.intake.releases; len(r) > 0 {
			c.intake.releases = nil
			c.say(ba, func(dst []byte) []byte { return append(dst, r...) })
		}
		stash := c.stash
		c.stash = nil
		for _, d := range stash {
			c.complete(ba, d)
		}
		c.push(ba)
		c.allow(blockLease, ba)
		c.relent(ba)
	})
}

// stalled tells whether something waits for the lease, or for a signal that has come already.
func (c *client) stalled() bool {
	c.conn.Lock()
	defer c.conn.Unlock()
	return len(c.stash) > 0 || len(c.intake.releases) > 0 || c.starved && c.phase == phaseOnline || c.phase == phaseGated || c.intake.blocks&blockLease != 0 ||
		c.intake.blocks&blockLog != 0 && c.pending <= maxPending/2
}

// Drained continues with what the socket had no room for.
func (c *client) Drained(ba *conn.Batch) {
	c.conn.Lock()
	defer c.conn.Unlock()
	c.push(ba)
	c.unchoke()
}

// push sends what waits for the client, as far as window, span, socket and lease allow. Caller holds
// the lock.
func (c *client) push(ba *conn.Batch) {
	if c.phase != phaseOnline {
		return
	}
	if c.intake.blocks&blockDrain != 0 { // nothing new, but what it acknowledges still counts
		c.settle(ba)
		return
	}
	c.pushZero(ba)
	c.starved = c.sess.Queued() > 0 && !c.b.leased()
	if c.sess.Queued() > 0 && !c.starved {
		c.conn.SetOut(c.sess.Pump(c.conn.Out(), c.b.cluster.Now(), outboxLimit), ba)
		for qos, n := range c.sess.TakeSent() {
			if n > 0 {
				c.seen.messagesOut += n
				c.b.stats.sent[qos].Add(n)
			}
		}
		c.resumeWhenDrained()
	}
	c.settle(ba)
}

// resumeWhenDrained makes sure that what waits because the outbox is full goes on when it is not: no
// acknowledgement may be due that would see to it. Caller holds the lock.
func (c *client) resumeWhenDrained() {
	if c.sess.Queued() > 0 && c.conn.OutLen() >= outboxLimit/2 { // the outbox begins with room for a header
		c.conn.NotifyDrained()
	}
}

// outboxLimit is how full an outbox is filled from queues: what waits in a queue costs nothing.
const outboxLimit = 128 << 10

// manyDrops are proposed at once: until then the log keeps the entries.
const manyDrops = 128

// settle hands on what the session has decided: drops, what must be committed, what may be. Caller
// holds the lock.
func (c *client) settle(ba *conn.Batch) {
	s := c.sess
	if n := s.TakeWaits(); n > 0 {
		c.b.stats.limits[LimitInflight].Add(n)
	}
	c.settleQueue()
	if s.Overflowed() && c.phase != phaseOver { // with mqtt.queue_policy: disconnect
		c.b.reached(LimitQueue)
		c.dismiss(mqtt.QuotaExceeded, ba)
	}
}

// settleQueue proposes what the session has to commit, or counts what a clean one has dropped. Caller
// holds the lock.
func (c *client) settleQueue() {
	s := c.sess
	if s.NeedsCommit() {
		c.proposeProgress()
	}
	if !s.Clean() {
		if dirty, urgent := s.Dirty(); urgent || s.Drops() >= manyDrops {
			c.proposeProgress()
		} else if (dirty || s.Drops() > 0) && !c.queued {
			c.queued = true
			c.b.lazy.cursor(c)
		}
		return
	}
	for _, d := range s.TakeDrops() {
		c.drop(d.Reason, 1)
	}
	if picks := s.TakeSettled(); len(picks) > 0 {
		c.b.lazy.confirm(picks)
	}
}

// drops are the messages that a client did not get, or could not publish.
type drops [fsm.ReasonCount]atomic.Uint64

// count adds to the client's drops, which most never have.
func (c *client) count(r fsm.Reason, n int) {
	d := c.drops.Load()
	if d == nil {
		c.drops.CompareAndSwap(nil, new(drops))
		d = c.drops.Load()
	}
	d[r].Add(uint64(n))
}

// drop counts messages that this client will not get, or could not publish.
func (c *client) drop(r fsm.Reason, n int) {
	c.count(r, n)
	c.b.stats.drop(c.info.id, r, n)
}
