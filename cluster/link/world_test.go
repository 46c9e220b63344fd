package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is what the nodes of a test agree on: a replicated state and a log that carries relays.
type world struct {
	t testing.TB

	mu      sync.Mutex
	live    map[string]fsm.NodeRef
	epochs  map[string]fsm.Epoch
	applied uint64
	looked  int // how often somebody asked for applied
	nodes   map[string]*node
	marks   map[[2]fsm.NodeRef]uint64
	relays  chan func()
	stuck   bool // the log has no quorum
	queued  []func()
}

// node is one node: links, a server behind a proxy, and what its clients got.
type node struct {
	*Links
	w      *world
	ref    fsm.NodeRef
	proxy  *proxy
	leased atomic.Bool

	mu       sync.Mutex
	got      []delivery
	noMember func(f *clusterpb.Frame) bool
	repicked []string
	conns    map[string]*grpc.ClientConn
	dropped  [fsm.ReasonCount]atomic.Int64
	relief   atomic.Int64
}

type delivery struct {
	from    fsm.NodeRef
	client  string
	topic   string
	payload string
	qos     byte
}

type server struct {
	clusterpb.UnimplementedPeerServer
	n *node
}

func (s server) Link(stream clusterpb.Peer_LinkServer) error { return s.n.HandleLink(stream) }

func newWorld(t testing.TB, cfg Config, names ...string) *world {
	w := &world{
		t: t, live: make(map[string]fsm.NodeRef), epochs: make(map[string]fsm.Epoch),
		nodes: make(map[string]*node), marks: make(map[[2]fsm.NodeRef]uint64), relays: make(chan func(), 1<<16),
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // the goroutine that applies the log
		for {
			select {
			case fn := <-w.relays:
				fn()
			case <-stop:
				return
			}
		}
	})
	for i, name := range names {
		w.start(name, uint64(i+1), cfg)
	}
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.close()
		}
		close(stop)
		wg.Wait()
	})
	return w
}

func (w *world) start(name string, incarnation uint64, cfg Config) *node {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{w: w, ref: fsm.NodeRef{Node: name, Incarnation: incarnation}, conns: make(map[string]*grpc.ClientConn)}
	n.proxy = newProxy(w.t, listener.Addr().String())
	n.leased.Store(true)
	cfg.OnRelief = func(string) { n.relief.Add(1) }
	cfg.Dropped = func(reason fsm.Reason, count int) { n.dropped[reason].Add(int64(count)) }
	cfg.Repick = func(f *clusterpb.Frame) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.repicked = append(n.repicked, string(f.Payload))
	}
	n.Links = New(cfg, w, n)
	s := grpc.NewServer()
	clusterpb.RegisterPeerServer(s, server{n: n})
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(listener) })
	w.mu.Lock()
	w.live[name] = n.ref
	w.nodes[name] = n
	w.mu.Unlock()
	w.t.Cleanup(func() {
		n.close()
		s.Stop()
		wg.Wait()
		n.proxy.close()
	})
	return n
}

func (n *node) close() {
	n.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
	clear(n.conns)
}

func (w *world) Live(name string) (fsm.NodeRef, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ref, ok := w.live[name]
	return ref, ok
}

func (w *world) ClientEpoch(id string) (fsm.Epoch, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e, ok := w.epochs[id]
	return e, ok
}

func (w *world) Applied() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked++
	return w.applied
}

// down is the verdict on a node, heard by the others.
func (w *world) down(ref fsm.NodeRef) {
	w.mu.Lock()
	delete(w.live, ref.Node)
	w.mu.Unlock()
	for _, n := range w.nodes {
		if n.ref != ref {
			n.PeerDown(ref)
		}
	}
}

// quorum stops or starts the log.
func (w *world) quorum(ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stuck = !ok
	if ok {
		for _, fn := range w.queued {
			w.relays <- fn
		}
		w.queued = nil
	}
}

func (n *node) Self() fsm.NodeRef {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.ref
}

func (n *node) become(incarnation uint64) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.ref.Incarnation = incarnation
	n.w.live[n.ref.Node] = n.ref
}

func (n *node) Leased() bool { return n.leased.Load() }

func (n *node) Dial(name string) (clusterpb.PeerClient, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.conns[name]
	if c == nil {
		quick := backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 100 * time.Millisecond}
		var err error
		c, err = grpc.NewClient("passthrough:///"+n.w.nodes[name].proxy.addr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: quick, MinConnectTimeout: time.Second}))
		if err != nil {
			return nil, err
		}
		n.conns[name] = c
	}
	return clusterpb.NewPeerClient(c), nil
}

func (n *node) Deliver(from fsm.NodeRef, f *clusterpb.Frame) clusterpb.LinkCode {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.noMember != nil && n.noMember(f) {
		return clusterpb.LinkNoMember
	}
	n.got = append(n.got, delivery{from, f.ClientID, strings.Clone(f.Topic), string(f.Payload), f.QoS})
	return clusterpb.LinkTaken
}

func (n *node) Relay(cmd *fsmpb.Relay, done func(error)) {
	self := n.Self()
	apply := func() {
		target := fsm.NodeRef{Node: cmd.Target, Incarnation: cmd.TargetIncarnation}
		key := [2]fsm.NodeRef{self, target}
		live, _ := n.w.Live(cmd.Target)
		if live == target && cmd.LinkSeq > n.w.marks[key] {
			n.w.marks[key] = cmd.LinkSeq
			n.w.nodes[cmd.Target].Relayed(self, cmd.LinkSeq, cmd.Frame)
		}
		done(nil)
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.w.stuck {
		n.w.queued = append(n.w.queued, apply)
		return
	}
	n.w.relays <- apply
}

// payloads are what the node got at a QoS, in order.
func (n *node) payloads(qos byte) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, d := range n.got {
		if d.qos == qos {
			out = append(out, d.payload)
		}
	}
	return out
}

// ledger notes what LinkDone says.
type ledger struct {
	mu    sync.Mutex
	codes map[int][]clusterpb.LinkCode
}

type entry struct {
	l *ledger
	i int
}

func (e entry) LinkDone(_ string, code clusterpb.LinkCode) {
	e.l.mu.Lock()
	defer e.l.mu.Unlock()
	e.l.codes[e.i] = append(e.l.codes[e.i], code)
}

func newLedger() *ledger { return &ledger{codes: make(map[int][]clusterpb.LinkCode)} }

func (l *ledger) count(code clusterpb.LinkCode) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, c := range l.codes {
		for _, x := range c {
			if x == code {
				n++
			}
		}
	}
	return n
}

// once fails the test when a frame was settled twice.
func (l *ledger) once(t testing.TB, total int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, c := range l.codes {
		if len(c) != 1 {
			t.Fatalf("frame %d was settled %v", i, c)
		}
	}
	if len(l.codes) != total {
		t.Fatalf("%d frames were settled, want %d", len(l.codes), total)
	}
}

func frame(i int, qos byte) *clusterpb.Frame {
	return &clusterpb.Frame{ClientID: fmt.Sprint("c", i%3), Epoch: 7, Topic: "t", Payload: []byte(fmt.Sprint(i)), QoS: qos}
}

func numbers(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !poll(ok) {
		t.Fatalf("did not come to pass: %s", what)
	}
}

func poll(ok func() bool) bool {
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// proxy stands before a node's server and does what networks do.
type proxy struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	black   chan struct{} // while not nil: bytes and new connections are held until it is closed
	budget  func() int    // bytes after which a new connection is cut; nil: never
	conns   map[net.Conn]struct{}
	stopped bool
}

func newProxy(t testing.TB, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: target, listener: l, conns: make(map[net.Conn]struct{})}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *proxy) remove(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	_ = c.Close()
}

func (p *proxy) serve(c net.Conn) {
	if !p.add(c) {
		return
	}
	defer p.remove(c)
	out, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.target)
	if err != nil || !p.add(out) {
		return
	}
	defer p.remove(out)
	p.mu.Lock()
	left := 1 << 60
	if p.budget != nil {
		left = p.budget()
	}
	p.mu.Unlock()
	var pair sync.WaitGroup
	var rest atomic.Int64
	rest.Store(int64(left))
	for _, d := range [][2]net.Conn{{c, out}, {out, c}} {
		pair.Go(func() { p.copy(d[1], d[0], &rest) })
	}
	pair.Wait()
}

func (p *proxy) copy(to, from net.Conn, rest *atomic.Int64) {
	defer func() { _, _ = to.Close(), from.Close() }()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		p.mu.Lock()
		black := p.black
		p.mu.Unlock()
		if black != nil {
			<-black
		}
		if left := rest.Add(-int64(n)); left < 0 {
			n = max(0, n+int(left))
			_, _ = to.Write(b[:n])
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// hold stops the flow without a sign of it; the function that it returns lets it go on.
func (p *proxy) hold() func() {
	black := make(chan struct{})
	p.mu.Lock()
	p.black = black
	p.mu.Unlock()
	return sync.OnceFunc(func() {
		p.mu.Lock()
		p.black = nil
		p.mu.Unlock()
		close(black)
	})
}

func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) limit(budget func() int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budget = budget
}

func (p *proxy) close() {
	if err := p.listener.Close(); errors.Is(err, net.ErrClosed) {
		return
	}
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.cutAll()
	p.wg.Wait()
}
