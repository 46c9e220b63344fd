package broker

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// lone is one node with a log of its own: a real state machine, fed by one goroutine. Other nodes exist
// in the log alone.
type lone struct {
	*Broker
	t     *testing.T
	fsm   *fsm.FSM
	self  fsm.NodeRef
	group sync.WaitGroup

	leased atomic.Bool
	onSend atomic.Pointer[func(to fsm.NodeRef, f *clusterpb.Frame, done clusterpb.LinkDone) bool]

	mu      sync.Mutex
	wake    *sync.Cond
	stopped bool
	stuck   bool // nothing is applied
	index   uint64
	next    map[fsm.NodeRef]uint64 // the sequence of a node's next command
	queue   []proposal
	busy    bool
}

type proposal struct {
	from fsm.NodeRef
	cmd  []byte
	done func(fsm.Result, error)
}

// Propose implements Cluster.
func (l *lone) Propose(cmd *fsmpb.Command, done func(fsm.Result, error)) uint64 {
	return l.propose(l.self, cmd, done)
}

func (l *lone) propose(from fsm.NodeRef, cmd *fsmpb.Command, done func(fsm.Result, error)) uint64 {
	b, err := cmd.MarshalVT()
	if err != nil {
		panic(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next[from]++
	l.queue = append(l.queue, proposal{from, b, done})
	l.wake.Broadcast()
	return l.next[from]
}

// Backlog, Barrier, Leased, Now, Self, Send and LinkCongested implement Cluster.
func (l *lone) Backlog() (commands, bytes int) { return 0, 0 }
func (l *lone) Barrier(_ uint64, done func())  { done() }
func (l *lone) Leased() bool                   { return l.leased.Load() }
func (l *lone) Now() int64                     { return l.fsm.Now() }
func (l *lone) Self() fsm.NodeRef              { return l.self }
func (l *lone) LinkCongested(string) bool      { return false }

func (l *lone) Send(to fsm.NodeRef, f *clusterpb.Frame, done clusterpb.LinkDone) bool {
	if fn := l.onSend.Load(); fn != nil {
		return (*fn)(to, f, done)
	}
	if done != nil {
		done.LinkDone(to.Node, clusterpb.LinkTaken)
	}
	return true
}

func (l *lone) system(s *fsmpb.System) {
	l.index++
	if _, err := l.fsm.Apply(l.index, 1, fsm.EncodeSystem(nil, int64(l.index), s)); err != nil {
		l.t.Fatal(err)
	}
}

// up begins an incarnation of a node. Before the log runs.
func (l *lone) up(node string) fsm.NodeRef {
	l.system(&fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: node, Nonce: 1}}})
	return fsm.NodeRef{Node: node, Incarnation: l.index}
}

// run applies the log, one command an entry.
func (l *lone) run() {
	applied := make(map[fsm.NodeRef]uint64)
	for {
		l.mu.Lock()
		l.busy = false
		l.wake.Broadcast()
		for (len(l.queue) == 0 || l.stuck) && !l.stopped {
			l.wake.Wait()
		}
		if l.stopped {
			l.mu.Unlock()
			return
		}
		p := l.queue[0]
		l.queue, l.busy = l.queue[1:], true
		l.mu.Unlock()
		cmd := &fsmpb.Command{}
		if err := cmd.UnmarshalVT(p.cmd); err != nil {
			panic(err)
		}
		applied[p.from]++
		batch, err := (&fsmpb.Batch{
			Origin: p.from.Node, Incarnation: p.from.Incarnation, First: applied[p.from], Commands: []*fsmpb.Command{cmd},
		}).MarshalVT()
		if err != nil {
			panic(err)
		}
		l.index++
		effects, err := l.fsm.Apply(l.index, 1, fsm.EncodeBatch(nil, int64(l.index), batch))
		if err != nil {
			panic(err)
		}
		for i := range effects {
			if e := &effects[i]; e.Kind == fsm.EffectResult {
				p.done(*e.Result, nil)
			} else {
				l.Apply(effects[i : i+1])
			}
		}
	}
}

// settle waits until everything that was proposed is applied.
func (l *lone) settle() {
	l.t.Helper()
	l.eventually("the log is applied", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.queue) == 0 && !l.busy
	})
}

func (l *lone) eventually(what string, ok func() bool) {
	l.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("did not come to pass: %s", what)
		}
	}
}

// hold stops the log, or lets it go on.
func (l *lone) hold(stuck bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stuck = stuck
	l.wake.Broadcast()
}

// newLone makes a node n1 that serves, beside others that live in the log alone.
func newLone(t *testing.T, change func(*Config), others ...string) (*lone, []fsm.NodeRef) {
	l := &lone{t: t, fsm: fsm.New("n1"), next: make(map[fsm.NodeRef]uint64)}
	l.wake = sync.NewCond(&l.mu)
	l.leased.Store(true)
	cfg := Config{
		Node: "n1", MaxPacketSize: 1 << 20, ReceiveMaximum: 100, MaxInflight: 100, ConnectTimeout: time.Minute,
		SessionExpiryMax: 3600, MaxQoS: 2, RetainAvailable: true, WildcardAvailable: true, SharedAvailable: true, MaxBufferedBytes: 1 << 20,
	}
	if change != nil {
		change(&cfg)
	}
	b, err := New(cfg, l.fsm)
	if err != nil {
		t.Fatal(err)
	}
	l.Broker = b
	l.self = l.up("n1")
	var refs []fsm.NodeRef
	for _, n := range others {
		refs = append(refs, l.up(n))
	}
	b.Attach(l)
	b.Serving(l.self)
	ctx := t.Context()
	l.group.Go(func() { _ = b.Run(ctx) })
	l.group.Go(l.run)
	t.Cleanup(func() {
		b.Close()
		l.mu.Lock()
		l.stopped = true
		l.wake.Broadcast()
		l.mu.Unlock()
		l.group.Wait()
	})
	return l, refs
}

// peer is an MQTT client.
type peer struct {
	net.Conn
	t       *testing.T
	version mqtt.Version
	rest    []byte
}

// dial connects a client and takes its CONNACK.
func (l *lone) dial(p *mqtt.Connect) *peer {
	l.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		l.t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		l.t.Fatal(err)
	}
	l.group.Add(1)
	_ = l.Serve(conn.New(near, "test"), "test", l.group.Done)
	c := &peer{Conn: far, t: l.t, version: p.Version}
	l.t.Cleanup(func() { _ = far.Close() })
	c.send(p.Append(nil, p.Version))
	if first, body := c.next(); mqtt.TypeOf(first) != mqtt.CONNACK || body[1] != 0 {
		l.t.Fatalf("CONNECT was answered %x %x", first, body)
	}
	return c
}

func (c *peer) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *peer) publish(topic string, qos byte, id uint16) {
	c.t.Helper()
	c.send((&mqtt.Publish{QoS: qos, Topic: []byte(topic), PacketID: id, Payload: []byte("x")}).Append(nil, c.version))
}

// subscribe makes a subscription and takes its SUBACK.
func (c *peer) subscribe(filter string, qos byte) {
	c.t.Helper()
	c.send((&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: filter, QoS: qos}}}).Append(nil, c.version))
	c.expect(mqtt.SUBACK)
}

// next is the next packet.
func (c *peer) next() (first byte, body []byte) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		first, body, n, err := mqtt.Split(c.rest, 1<<20)
		if err != nil {
			c.t.Fatal(err)
		}
		if n > 0 {
			c.rest = c.rest[n:]
			return first, body
		}
		b := make([]byte, 4096)
		n, err = c.Read(b)
		if err != nil {
			c.t.Fatal(err)
		}
		c.rest = append(c.rest, b[:n]...)
	}
}

// expect takes a packet of a type.
func (c *peer) expect(want mqtt.Type) []byte {
	c.t.Helper()
	first, body := c.next()
	if mqtt.TypeOf(first) != want {
		c.t.Fatalf("got %s, want %s", mqtt.TypeOf(first), want)
	}
	return body
}

// on gives the client of an id here.
func (l *lone) on(id string) *client {
	l.t.Helper()
	c := l.connection(id, 0)
	if c == nil {
		l.t.Fatalf("%s is not connected", id)
	}
	return c
}

func interestOf(filter, group string, count uint32) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Interest{Interest: &fsmpb.Interest{Filter: filter, Group: group, Count: count}}}
}
