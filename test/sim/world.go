package sim

import (
	"crypto/sha256"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// Options of a world.
type Options struct {
	Nodes      int
	LinkBuffer int                                 // bytes; 0: as link.Config
	Broker     func(node string, c *broker.Config) // changes a node's configuration
	Choose     func(n int) int                     // see broker.Config.Choose
}

// World is a cluster and its clients. Its methods, and those of nodes and connections, are for one
// goroutine, in a bubble.
type World struct {
	T         testing.TB
	opt       Options
	nodes     []*Node
	conns     []*Conn
	log       []entry
	term      uint64
	leader    *fsm.FSM // has applied the whole log
	condemned map[fsm.NodeRef]bool
	nonces    uint64
	held      map[route][2]bool
	group     sync.WaitGroup

	mu      sync.Mutex
	streams []*stream
	cuts    map[route]bool
}

type entry struct {
	term  uint64
	bytes []byte
}

// Test runs fn with a world in a bubble, whose nodes n1, n2, … serve.
func Test(t *testing.T, opt Options, fn func(w *World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &World{
			T: t, opt: opt, term: 1, leader: fsm.New("leader"), condemned: make(map[fsm.NodeRef]bool),
			held: make(map[route][2]bool), cuts: make(map[route]bool),
		}
		defer w.close()
		for i := range max(1, opt.Nodes) {
			n := &Node{w: w, ID: string([]byte{'n', byte('1' + i)})}
			w.nodes = append(w.nodes, n)
			n.Start(false)
		}
		w.Run()
		fn(w)
	})
}

func (w *World) config(node string) broker.Config {
	c := broker.Config{
		Node: node, Version: "sim", MaxPacketSize: 1 << 20, ReceiveMaximum: 100, MaxInflight: 20, MaxKeepalive: 0,
		TopicAliasMaximum: 10, MaxQueuedMessages: 1000, SessionExpiryMax: 0xFFFFFFFF, ConnectTimeout: 10 * time.Second,
		RetainAvailable: true, MaxQoS: 2, WildcardAvailable: true, SharedAvailable: true, MaxBufferedBytes: 1 << 20,
		MaxTopicLevels: 32, Choose: w.opt.Choose,
	}
	if w.opt.Broker != nil {
		w.opt.Broker(node, &c)
	}
	return c
}

func (w *World) close() {
	for _, c := range w.conns {
		c.cut()
	}
	for _, s := range w.streamList() {
		s.sever(errDown)
	}
	for _, n := range w.nodes {
		if n.alive {
			n.close()
		}
	}
	w.group.Wait()
}

// Settle waits until nothing moves by itself. No two steps happen at the same time, so that timers
// that they start have an order.
func (w *World) Settle() {
	time.Sleep(time.Microsecond)
	synctest.Wait()
}

// Sleep lets time pass, with everything that happens meanwhile by the clock alone.
func (w *World) Sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Node is a node by its id.
func (w *World) Node(id string) *Node {
	for _, n := range w.nodes {
		if n.ID == id {
			return n
		}
	}
	w.T.Fatalf("no node %q", id)
	return nil
}

// Nodes are all of them.
func (w *World) Nodes() []*Node { return w.nodes }

// State is what the whole log has made.
func (w *World) State() *fsm.FSM { return w.leader }

// LogHash is a hash of the whole log: two runs that agree on it did the same.
func (w *World) LogHash() (sum [32]byte) {
	h := sha256.New()
	for _, e := range w.log {
		h.Write(e.bytes)
	}
	return [32]byte(h.Sum(nil))
}

func (w *World) appendBatch(b []byte) {
	w.append(fsm.EncodeBatch(nil, time.Now().UnixMilli(), b))
}

func (w *World) appendSystem(s *fsmpb.System) {
	w.append(fsm.EncodeSystem(nil, time.Now().UnixMilli(), s))
}

func (w *World) append(b []byte) {
	w.log = append(w.log, entry{w.term, b})
	if _, err := w.leader.Apply(uint64(len(w.log)), w.term, b); err != nil {
		w.T.Fatal(err)
	}
	w.Settle()
}

// Elect begins another term: every node sends again what it has not seen applied.
func (w *World) Elect() {
	w.term++
	for _, n := range w.nodes {
		if n.alive {
			n.Resend()
		}
	}
}

// Verdict declares a node's incarnation dead. Its lease has run out before, wherever it is.
func (w *World) Verdict(n *Node) bool {
	ref, ok := w.leader.Live(n.ID)
	if !ok {
		return false
	}
	if n.alive && n.ref == ref {
		n.leased.Store(false)
	}
	w.condemned[ref] = true
	w.appendSystem(&fsmpb.System{Op: &fsmpb.System_NodeDown{NodeDown: &fsmpb.NodeDown{
		Node: ref.Node, Incarnation: ref.Incarnation, Term: w.term, Reason: "no lease",
	}}})
	return true
}

// Reap cleans up behind an ended incarnation: at most limit records.
func (w *World) Reap(limit uint32) bool {
	ref, ok := w.leader.NeedsReap()
	if ok {
		w.appendSystem(&fsmpb.System{Op: &fsmpb.System_Reap{Reap: &fsmpb.Reap{Node: ref.Node, Incarnation: ref.Incarnation, Limit: limit}}})
	}
	return ok
}

// Tick moves the log's clock.
func (w *World) Tick() {
	w.appendSystem(&fsmpb.System{Op: &fsmpb.System_Tick{Tick: &fsmpb.Tick{}}})
}

// Watermark is the index that every live incarnation has applied.
func (w *World) Watermark() uint64 {
	mark := uint64(len(w.log))
	for _, m := range w.leader.Members() {
		if !m.Live {
			continue
		}
		n := w.Node(m.ID)
		if !n.alive || n.ref.Incarnation != m.Incarnation {
			return 0 // it has not applied its NodeUp, or is gone without a verdict yet
		}
		mark = min(mark, uint64(n.applied))
	}
	return mark
}

// Run lets everything flow, but for what is held back, until nothing moves. Time passes only where
// something waits for nothing else.
func (w *World) Run() {
	for range restless {
		if !w.flow() {
			return
		}
	}
	w.T.Fatal("it does not come to rest")
}

// restless is how many rounds nothing takes that ever ends.
const restless = 20_000

// flow does everything that can be done once.
func (w *World) flow() (moved bool) {
	for _, c := range w.conns {
		if !c.held && c.Arrive(-1) {
			moved = true
		}
	}
	for w.Reap(1000) {
		moved = true
	}
	for _, n := range w.nodes {
		for !n.HoldLog && n.Submit(1000) {
			moved = true
		}
		for !n.HoldApply && n.Apply() {
			moved = true
		}
		moved = n.End() || n.Announce() || n.Serve() || n.TellLease() || moved
		if !n.HoldMark {
			moved = n.Mark() || moved
		}
	}
	for _, s := range w.streamList() {
		held := w.held[s.route]
		for i, h := range held {
			for !h && s.carry(i == 1) {
				w.Settle()
				moved = true
			}
		}
	}
	w.prune()
	return moved
}

// Pass lets time pass in small steps and everything flow meanwhile.
func (w *World) Pass(d time.Duration) {
	const step = 10 * time.Millisecond
	for end := time.Now().Add(d); time.Now().Before(end); {
		w.Run()
		w.Sleep(min(step, time.Until(end)))
	}
	w.Run()
}
