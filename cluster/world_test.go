package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// memberlist's Shutdown does not wait for a probe that is under way: it ends by its own time-out.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// patience bounds whatever a test waits for. On a machine that is busy with other things an election
// may take many attempts.
const patience = time.Minute

// world is a cluster in one process.
type world struct {
	secure func(n *node, cfg *Config) // nil: connections are plain
	t      *testing.T
	expect int
	nodes  map[string]*node
	gossip []string
	check  time.Duration // Config.CheckInterval of nodes that start from now on
	newer  string        // the node whose binary knows feature level 2
}

// node is one node over its lives; Cluster is the current one.
type node struct {
	*Cluster
	w    *world
	id   string
	dir  string
	addr string // peer address, kept over restarts unless cleared
	fsm  *fsm.FSM
	rec  *recorder

	alone bool // it joins nobody
}

// recorder is the handler: it notes what it is told.
type recorder struct {
	mu      sync.Mutex
	events  []string
	downs   []fsm.NodeRef
	got     []string
	serving fsm.NodeRef
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

func (r *recorder) Apply(effects []fsm.Effect) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range effects {
		if effects[i].Kind == fsm.EffectNodeDown {
			r.downs = append(r.downs, effects[i].Node)
		}
	}
}

func (r *recorder) Deliver(_ fsm.NodeRef, f *clusterpb.Frame) clusterpb.LinkCode {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, string(f.Payload))
	return clusterpb.LinkTaken
}

func (r *recorder) Serving(self fsm.NodeRef) {
	r.note("serving")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serving = self
}

func (r *recorder) Ended(fsm.NodeRef) {
	r.note("ended")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serving = fsm.NodeRef{}
}
func (r *recorder) LeaseLost(beyond bool) { r.note("lost %t", beyond) }
func (r *recorder) LeaseBack()            { r.note("back") }

func (r *recorder) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func (r *recorder) down(ref fsm.NodeRef) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.downs, ref)
}

func newWorld(t *testing.T, expect int, ids ...string) *world {
	w := &world{t: t, expect: expect, nodes: make(map[string]*node)}
	t.Cleanup(func() {
		var group sync.WaitGroup
		for _, n := range w.nodes {
			group.Go(n.close)
		}
		group.Wait()
	})
	root := t.TempDir()
	for _, id := range ids {
		w.nodes[id] = &node{w: w, id: id, dir: filepath.Join(root, id)}
	}
	for _, id := range ids {
		w.nodes[id].start()
	}
	return w
}

func (w *world) config(n *node) Config {
	cfg := Config{
		NodeID: n.id, DataDir: n.dir, PeerBind: "127.0.0.1:0", GossipBind: "127.0.0.1:0",
		Join: slices.Clone(w.gossip), BootstrapExpect: w.expect,
		HeartbeatTimeout: slack * 500 * time.Millisecond, ElectionTimeout: slack * 500 * time.Millisecond,
		LeaderLeaseTimeout: slack * 250 * time.Millisecond,
		Lease:              slack * 500 * time.Millisecond, Drift: slack * 100 * time.Millisecond, Grace: slack * 500 * time.Millisecond,
		// Tests run side by side, and one's ports are soon another's.
		ClusterName: w.t.Name(), MQTTAdvertise: "127.0.0.1:1883", Version: "1", Features: 1,
		CheckInterval: n.w.check, Logger: slog.New(slog.DiscardHandler),
	}
	if n.id == w.newer {
		cfg.Features = 2
	}
	if n.addr != "" {
		cfg.PeerBind = n.addr
	}
	if os.Getenv("SKEIN_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", n.id)
	}
	if n.alone {
		cfg.Join = nil
	}
	if w.secure != nil {
		w.secure(n, &cfg)
	}
	return cfg
}

func (n *node) start() {
	n.w.t.Helper()
	n.fsm, n.rec = fsm.New(n.id), &recorder{}
	c, err := Open(n.w.t.Context(), n.w.config(n), n.fsm, n.rec)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.Cluster, n.addr = c, c.PeerAddress()
	if g := c.GossipAddress(); g != "" {
		n.w.gossip = append(n.w.gossip, g)
	}
}

func (n *node) close() {
	if n.Cluster != nil {
		if err := n.Close(); err != nil {
			n.w.t.Errorf("%s: %v", n.id, err)
		}
		select {
		case err := <-n.Failed():
			n.w.t.Errorf("%s failed: %v", n.id, err)
		default:
		}
		n.Cluster = nil
	}
}

func (w *world) running() []*node {
	var out []*node
	for _, n := range w.nodes {
		if n.Cluster != nil {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *node) int { return int(a.id[len(a.id)-1]) - int(b.id[len(b.id)-1]) })
	return out
}

// until waits for something that must come.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			for _, n := range w.running() {
				serving, why := n.InService()
				leader, _ := n.log.Leader()
				servers, _ := n.log.Servers()
				w.t.Logf("%s: serving %t (%s), leader %s, servers %v, events %v, members %+v", n.id, serving, why, leader, servers, n.rec.seen(), n.fsm.Members())
			}
			w.t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (w *world) serving(ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		n := w.nodes[id]
		w.until(id+" serves", func() bool { ok, _ := n.InService(); return ok && n.Leased() })
	}
}

func (w *world) leader() *node {
	w.t.Helper()
	var leader *node
	w.until("a leader that is ready", func() bool {
		for _, n := range w.running() {
			if n.log.IsLeader() && n.Cluster.leader.Ready() {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

// lead does what only a leader can, again with the next one when leadership changed under it.
func (w *world) lead(order func(leader *node) error) error {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := order(w.leader())
		if !errors.Is(err, ErrNotLeader) || time.Now().After(deadline) {
			return err
		}
	}
}

// follower is a node that does not lead.
func (w *world) follower() *node {
	w.t.Helper()
	leader := w.leader()
	for _, n := range w.running() {
		if n != leader {
			return n
		}
	}
	w.t.Fatal("no follower")
	return nil
}

func publish(topic string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{Topic: topic, Payload: []byte("x"), Qos: 1, Retain: true}}}
}

// propose waits until a publish of this node is applied here.
func (n *node) propose(topic string) fsm.Result {
	n.w.t.Helper()
	return n.command(publish(topic))
}

// command waits until a command of this node is applied here.
func (n *node) command(cmd *fsmpb.Command) fsm.Result {
	n.w.t.Helper()
	type outcome struct {
		r   fsm.Result
		err error
	}
	done := make(chan outcome, 1)
	n.Propose(cmd, func(r fsm.Result, err error) { done <- outcome{r, err} })
	select {
	case o := <-done:
		if o.err != nil {
			n.w.t.Fatalf("%s: %v: %v", n.id, cmd, o.err)
		}
		return o.r
	case <-time.After(patience):
		n.w.t.Fatalf("%s: %v was not applied in time", n.id, cmd)
	}
	return fsm.Result{}
}

// has tells whether this node has applied a publish.
func (n *node) has(topic string) (found bool) {
	n.fsm.Retained(topic, func(*fsm.Message) bool {
		found = true
		return false
	})
	return found
}

func (n *node) barrier(index uint64) {
	n.w.t.Helper()
	done := make(chan struct{})
	n.Barrier(index, func() { close(done) })
	select {
	case <-done:
	case <-time.After(patience):
		n.w.t.Fatalf("%s: no watermark of %d in time, but %d", n.id, index, n.Watermark())
	}
}

func (w *world) role(of string) Role {
	for _, i := range w.leader().Nodes() {
		if i.ID == of {
			return i.Role
		}
	}
	return ""
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return c
}

func (r *recorder) received(payload string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.got, payload)
}

// add starts one more node.
func (w *world) add(id string) *node {
	w.t.Helper()
	n := &node{w: w, id: id, dir: filepath.Join(w.t.TempDir(), id)}
	w.nodes[id] = n
	n.start()
	return n
}

// listen occupies an address.
func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
