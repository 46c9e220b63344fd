package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// world is a cluster in one process, over real connections.
type world struct {
	t     testing.TB
	tune  func(*Config)
	nonce uint64

	mu    sync.Mutex
	nodes map[string]*node // by raft address, those that run
	all   []*node
}

// node is one server. It keeps its folder and its address when it is closed and opened again.
type node struct {
	*Replica
	w       *world
	name    string
	dir     string
	address string
	machine *fsm.FSM
	server  *grpc.Server
	serving sync.WaitGroup
	peerAt  string
	wrap    func(clusterpb.PeerClient) clusterpb.PeerClient
	conns   map[string]*grpc.ClientConn

	self     fsm.NodeRef
	fatals   atomic.Int64
	restores atomic.Int64
	indexes  atomic.Uint64 // what Applied said

	mu      sync.Mutex
	fatal   error
	effects []fsm.EffectKind
	terms   []string
}

// newWorld makes a cluster of running voters.
func newWorld(t testing.TB, n int, tune func(*Config)) *world {
	w := &world{t: t, tune: tune, nodes: make(map[string]*node)}
	for i := range n {
		w.add(fmt.Sprintf("n%d", i+1))
	}
	var servers []Server
	for _, n := range w.all {
		servers = append(servers, n.asServer())
	}
	for _, n := range w.all {
		if err := n.Bootstrap(servers); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, n := range w.all {
			n.close()
		}
	})
	return w
}

func (w *world) add(name string) *node {
	n := &node{w: w, name: name, dir: w.t.TempDir()}
	w.mu.Lock()
	w.all = append(w.all, n)
	w.mu.Unlock()
	n.open()
	return n
}

func (n *node) asServer() Server { return Server{ID: n.name + "/x", Address: n.address, Voter: true} }

// open starts a server, on the files of its last run.
func (n *node) open() {
	n.w.t.Helper()
	if err := n.tryOpen(); err != nil {
		n.w.t.Fatal(err)
	}
}

func (n *node) tryOpen() error {
	t := n.w.t
	t.Helper()
	address := n.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	var listener net.Listener
	n.w.until("listen on "+address, func() (ok bool) {
		var err error
		listener, err = net.Listen("tcp", address)
		return err == nil
	})
	n.address = listener.Addr().String()
	n.machine = fsm.New(n.name)
	n.conns = make(map[string]*grpc.ClientConn)
	transport := NewTransport(tcp{listener}, nil)
	cfg := Config{
		ID: n.name + "/x", Node: n.name, Dir: n.dir, Transport: transport,
		Heartbeat: 300 * time.Millisecond, Election: 300 * time.Millisecond, LeaderLease: 300 * time.Millisecond,
		FSM: n.machine, Dial: n.dial,
		Hooks: Hooks{
			Effects: n.noteEffects,
			Applied: func(index uint64) { n.indexes.Store(index) },
			Restored: func() {
				n.restores.Add(1)
			},
			LeaderChanged: n.noteLeader,
			Led:           func() {},
			Fatal:         n.noteFatal,
		},
	}
	if n.w.tune != nil {
		n.w.tune(&cfg)
	}
	r, err := Open(cfg)
	if err != nil {
		return errors.Join(err, transport.Close())
	}
	n.Replica = r
	peers, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.peerAt = peers.Addr().String()
	n.server = grpc.NewServer()
	clusterpb.RegisterPeerServer(n.server, peerServer{r: r})
	n.serving.Go(func() { _ = n.server.Serve(peers) })
	n.w.mu.Lock()
	n.w.nodes[n.address] = n
	n.w.mu.Unlock()
	return nil
}

func (n *node) close() {
	n.w.mu.Lock()
	running := n.w.nodes[n.address] == n
	delete(n.w.nodes, n.address)
	n.w.mu.Unlock()
	if !running {
		return
	}
	if err := n.Close(); err != nil {
		n.w.t.Errorf("close %s: %v", n.name, err)
	}
	n.server.Stop()
	n.serving.Wait()
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
	n.conns = nil
}

func (n *node) dial(address string) (clusterpb.PeerClient, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	peer := n.w.nodes[address]
	if peer == nil || n.conns == nil {
		return nil, fmt.Errorf("nobody is at %s", address)
	}
	c := n.conns[peer.peerAt]
	if c == nil {
		quick := backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 100 * time.Millisecond}
		var err error
		c, err = grpc.NewClient("passthrough:///"+peer.peerAt, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: quick, MinConnectTimeout: time.Second}))
		if err != nil {
			return nil, err
		}
		n.conns[peer.peerAt] = c
	}
	client := clusterpb.NewPeerClient(c)
	if n.wrap != nil {
		client = n.wrap(client)
	}
	return client, nil
}

func (n *node) noteEffects(effects []fsm.Effect) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range effects {
		n.effects = append(n.effects, e.Kind)
	}
}

func (n *node) noteLeader(leads bool, term uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.terms = append(n.terms, fmt.Sprintf("%v %d", leads, term))
}

func (n *node) noteFatal(err error) {
	n.fatals.Add(1)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fatal = err
}

// peerServer is the part of the peers' service that the log needs.
type peerServer struct {
	clusterpb.UnimplementedPeerServer
	r *Replica
}

func (p peerServer) Propose(s clusterpb.Peer_ProposeServer) error { return p.r.HandlePropose(s) }

// tcp is a raft.StreamLayer.
type tcp struct{ net.Listener }

func (tcp) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(address), timeout)
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited too long: %s", what)
		}
	}
}

// running are the nodes that run.
func (w *world) running() (out []*node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.all {
		if w.nodes[n.address] == n {
			out = append(out, n)
		}
	}
	return out
}

// leader waits until a node leads and the others know it.
func (w *world) leader() (leader *node) {
	w.t.Helper()
	w.until("a leader", func() bool {
		leader = nil
		for _, n := range w.running() {
			if n.IsLeader() && n.VerifyLeader() == nil {
				leader = n
			}
		}
		if leader == nil {
			return false
		}
		for _, n := range w.running() {
			if id, _ := n.Leader(); id != leader.asServer().ID {
				return false
			}
		}
		return true
	})
	return leader
}

// follower is one that does not lead.
func (w *world) follower() *node {
	w.t.Helper()
	leader := w.leader()
	for _, n := range w.running() {
		if n != leader {
			return n
		}
	}
	w.t.Fatal("there is no follower")
	return nil
}

// up starts an incarnation of a node.
func (w *world) up(n *node) {
	w.t.Helper()
	w.nonce++
	up := &fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: n.name, Nonce: w.nonce}}}
	var index uint64
	w.until("the node is up", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var err error
		index, err = w.leader().AppendSystem(ctx, up)
		return err == nil
	})
	w.until("the node has applied that", func() bool { return n.Applied() >= index })
	n.self = fsm.NodeRef{Node: n.name, Incarnation: index}
	n.Begin(n.self)
}

func (w *world) upAll() {
	w.t.Helper()
	for _, n := range w.running() {
		w.up(n)
	}
}

// session makes an offline session that gets every message.
func (w *world) session(n *node) {
	w.t.Helper()
	r := w.do(n, &fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: &fsmpb.Connect{
		ClientId: "all", Persistent: true, Expiry: 0xFFFFFFFF, Protocol: 5, Limits: &fsmpb.Limits{Span: 65535},
	}}})
	w.do(n, &fsmpb.Command{Op: &fsmpb.Command_Subscribe{Subscribe: &fsmpb.Subscribe{
		ClientId: "all", Epoch: uint64(r.Epoch), Subscriptions: []*fsmpb.Subscription{{Filter: "#", Qos: 1}},
	}}})
	w.do(n, &fsmpb.Command{Op: &fsmpb.Command_Disconnect{Disconnect: &fsmpb.Disconnect{ClientId: "all", Epoch: uint64(r.Epoch), Clean: true}}})
}

// do proposes a command and waits for its result.
func (w *world) do(n *node, cmd *fsmpb.Command) fsm.Result {
	w.t.Helper()
	type outcome struct {
		r   fsm.Result
		err error
	}
	done := make(chan outcome, 1)
	if n.Propose(cmd, func(r fsm.Result, err error) { done <- outcome{r, err} }) == 0 {
		w.t.Fatal("the command was not taken")
	}
	select {
	case o := <-done:
		if o.err != nil || o.r.Code != fsm.OK {
			w.t.Fatalf("%v: code %d, error %v", cmd, o.r.Code, o.err)
		}
		return o.r
	case <-time.After(patience):
		w.t.Fatalf("no result of %v", cmd)
		return fsm.Result{}
	}
}

// agree waits until all have applied the same and compares their states.
func (w *world) agree() {
	w.t.Helper()
	nodes := w.running()
	w.until("a barrier", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return w.leader().Barrier(ctx) == nil // entries that only raft sees come last otherwise
	})
	w.until("all have applied the same", func() bool {
		for _, n := range nodes {
			if n.Applied() != nodes[0].Applied() || n.Applied() < n.CommitIndex() {
				return false
			}
		}
		return true
	})
	for _, n := range nodes {
		if n.machine.Hash() != nodes[0].machine.Hash() {
			w.t.Errorf("%s and %s have another state at entry %d", n.name, nodes[0].name, n.Applied())
		}
	}
}
