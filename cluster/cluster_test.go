package cluster

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// TestSingle: a node alone is a whole cluster, also when it comes back.
func TestSingle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "node1")
	w.serving("node1")
	n := w.nodes["node1"]
	n.barrier(n.propose("a").Index)
	first := n.Self()
	n.close()
	n.start()
	w.serving("node1")
	if again := n.Self(); again.Incarnation <= first.Incarnation {
		t.Errorf("incarnation %d after %d", again.Incarnation, first.Incarnation)
	}
	if n.fsm.RetainedCount() != 1 {
		t.Error("the state is gone")
	}
	if _, err := n.Transfer(ctx(t), "node1"); err != nil {
		t.Errorf("transfer to itself: %v", err)
	}
	if err := n.HandOver(ctx(t)); err != nil {
		t.Errorf("a node alone need not hand over: %v", err)
	}
	if err := n.Remove(ctx(t), "node1", true); !errors.Is(err, ErrQuorum) {
		t.Errorf("the last voter: %v", err)
	}
}

// TestThree: three blank nodes found one cluster; what one proposes all apply; a barrier means all; links
// lead everywhere.
func TestThree(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	for _, n := range w.running() {
		r := n.propose("from/" + n.id)
		n.barrier(r.Index)
		for _, other := range w.running() {
			if other.fsm.Applied() < r.Index || !other.has("from/"+n.id) {
				t.Errorf("%s has applied %d, less than the barrier of %d", other.id, other.fsm.Applied(), r.Index)
			}
		}
	}
	for _, from := range w.running() {
		for _, to := range w.running() {
			if from != to {
				from.Send(to.Self(), &clusterpb.Frame{QoS: 1, Topic: "t", Payload: []byte(from.id)}, ignored{})
				w.until("a frame from "+from.id+" at "+to.id, func() bool { return to.rec.received(from.id) })
			}
		}
	}
	for _, n := range w.running() {
		if id := n.identity.Get(); id != w.nodes["node1"].folder.store { // the lowest id founded it
			t.Errorf("%s belongs to %q", n.id, id)
		}
	}
	var roles []Role
	for _, i := range w.nodes["node2"].Nodes() {
		roles = append(roles, i.Role)
		if !i.Live || i.Incarnation == 0 || i.PeerAddress != w.nodes[i.ID].addr || i.Version != "1" {
			t.Errorf("%+v", i)
		}
	}
	slices.Sort(roles)
	if !slices.Equal(roles, []Role{RoleFollower, RoleFollower, RoleLeader}) {
		t.Errorf("roles %v", roles)
	}
}

type ignored struct{}

func (ignored) LinkDone(string, clusterpb.LinkCode) {}

// TestLeaderDies: another leads, gives the verdict on the incarnation, and the node comes back under a
// new one.
func TestLeaderDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	dead := w.leader()
	ref := dead.Self()
	dead.close()
	other := w.leader()
	for _, n := range w.running() {
		w.until("the verdict at "+n.id, func() bool { return n.rec.down(ref) })
	}
	other.barrier(other.propose("without").Index)
	dead.start()
	w.serving(dead.id)
	if dead.Self().Incarnation <= ref.Incarnation {
		t.Errorf("%v after %v", dead.Self(), ref)
	}
	if !dead.has("without") {
		t.Error("it serves and has not caught up")
	}
	if events := dead.rec.seen(); events[0] != "serving" {
		t.Errorf("%v", events)
	}
}

// TestVerdict: nothing ends the incarnation of a node that holds a lease; an announcement of the same
// data folder under another nonce waits for the lease.
func TestVerdict(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	leader, n := w.leader(), w.follower()
	ref := n.Self()
	late := &clusterpb.AnnounceRequest{Node: n.id, StoreId: n.folder.store, Nonce: 7, PeerAddr: n.addr}
	if _, err := (service{c: leader.Cluster}).Announce(ctx(t), late); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a binary that knows less than the cluster uses: %v", err)
	}
	late.Features = leader.fsm.FeatureLevel()
	if _, err := (service{c: leader.Cluster}).Announce(ctx(t), late); status.Code(err) != codes.Unavailable {
		t.Fatalf("a lease runs, but: %v", err)
	}
	if live, ok := leader.fsm.Live(n.id); !ok || live != ref {
		t.Fatalf("the incarnation has ended: %v", live)
	}
	foreign := &clusterpb.AnnounceRequest{Node: n.id, StoreId: "0123456789abcdef", Nonce: 8, PeerAddr: "127.0.0.1:1"}
	if _, err := (service{c: leader.Cluster}).Announce(ctx(t), foreign); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a folder that is no member: %v", err)
	}
	// No lease is granted to the old one any more, so it ends and the node comes back.
	w.until("the verdict", func() bool {
		if live, ok := leader.fsm.Live(n.id); ok && live == ref {
			return false
		}
		if n.Leased() && n.Self() == ref {
			t.Fatal("there was a verdict on a node with a lease")
		}
		return true
	})
	w.until("a new incarnation", func() bool { return n.Self().Incarnation > ref.Incarnation })
	if events := n.rec.seen(); !slices.Contains(events, "ended") {
		t.Errorf("%v", events)
	}
}

// TestMinority: a node that is left alone serves nobody, and goes on by itself when a majority is back.
func TestMinority(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	alone := w.nodes["node3"]
	w.nodes["node1"].close()
	w.nodes["node2"].close()
	w.until("the end of the grace period", func() bool { return slices.Contains(alone.rec.seen(), "lost true") })
	if alone.Leased() {
		t.Error("it has a lease")
	}
	events := alone.rec.seen()
	if i := slices.Index(events, "lost true"); events[0] != "serving" || events[i-1] != "lost false" {
		t.Errorf("%v", events)
	}
	applied := make(chan error, 1)
	alone.Propose(publish("stuck"), func(_ fsm.Result, err error) { applied <- err })
	w.nodes["node1"].start()
	w.serving("node1", "node3")
	select {
	case err := <-applied:
		if err != nil && !errors.Is(err, ErrEnded) {
			t.Errorf("the proposal: %v", err)
		}
	case <-time.After(patience):
		t.Error("the proposal was forgotten")
	}
	w.until("the handler to be told", func() bool {
		last := alone.rec.seen()
		return last[len(last)-1] == "back" || last[len(last)-1] == "serving"
	})
}

// TestTransfer: the leadership goes where it is told to.
func TestTransfer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	n := w.follower()
	var leader string
	err := w.lead(func(l *node) (err error) { leader, err = l.Transfer(ctx(t), n.id); return err })
	if err != nil || leader != n.id {
		t.Fatalf("%s %v", leader, err)
	}
	if err := w.lead(func(l *node) error { _, err := l.Transfer(ctx(t), "nobody"); return err }); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("to nobody: %v", err)
	}
	w.serving("node1", "node2", "node3")
	for _, other := range w.running() {
		if events := other.rec.seen(); slices.Contains(events, "ended") {
			t.Errorf("%s: %v", other.id, events)
		}
	}
}

// TestOtherCluster: a node of another cluster is not let in.
func TestOtherCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "node1")
	w.serving("node1")
	n := w.nodes["node1"]
	r, err := (service{c: n.Cluster}).Join(ctx(t), &clusterpb.JoinRequest{Node: "x", StoreId: "y", PeerAddr: "127.0.0.1:1", Cluster: "other"})
	if err != nil || r.Done || !strings.Contains(r.Message, `"TestOtherCluster", not "other"`) {
		t.Errorf("%v %v", r, err)
	}
	cfg := w.config(n)
	cfg.PeerBind = "127.0.0.1:0"
	if _, err := Open(t.Context(), cfg, fsm.New("node1"), &recorder{}); !errors.Is(err, ErrLocked) {
		t.Errorf("the folder of another process: %v", err)
	}
}

// TestFoundedApart: two clusters of one name that find each other stay two; who is blank joins one.
func TestFoundedApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "node1")
	n2 := &node{w: w, id: "node2", dir: filepath.Join(t.TempDir(), "node2"), alone: true}
	w.nodes["node2"] = n2
	n2.start()
	w.serving("node1", "node2")
	n3 := w.add("node3")
	w.serving("node3")
	w.until("gossip of all", func() bool { return len(w.nodes["node1"].others()) == 2 && len(n2.others()) == 2 })
	one, two := w.nodes["node1"].identity.Get(), n2.identity.Get()
	if three := n3.identity.Get(); one == two || three != one && three != two {
		t.Errorf("identities %q, %q, %q", one, two, three)
	}
	if got := must(w.nodes["node1"].log.Servers()); len(got)+len(must(n2.log.Servers())) != 3 {
		t.Errorf("%v", got)
	}
	if _, err := (remote{must(w.nodes["node1"].dial.Control(n2.addr))}).Join(ctx(t), &clusterpb.JoinRequest{}); err == nil || !strings.Contains(err.Error(), "founded apart") {
		t.Errorf("the one talks to the other: %v", err)
	}
}

// TestOpenFails: what is in the way is named, and nothing is left behind.
func TestOpenFails(t *testing.T) {
	t.Parallel()
	taken := listen(t, "127.0.0.1:0")
	defer taken.Close()
	good := Config{NodeID: "node1", DataDir: t.TempDir(), PeerBind: "127.0.0.1:0", GossipBind: "127.0.0.1:0", BootstrapExpect: 1}
	for _, test := range []struct {
		what   string
		change func(*Config)
	}{
		{"peer address", func(c *Config) { c.PeerBind = taken.Addr().String() }},
		{"gossip on", func(c *Config) { c.GossipBind = taken.Addr().String() }},
		{"every address", func(c *Config) { c.PeerBind = ":0" }},
		{"shorten", func(c *Config) { c.MQTTAdvertise = strings.Repeat("x", 600) }},
		{"node id", func(c *Config) { c.NodeID = "" }},
		{"data folder", func(c *Config) { c.DataDir = "/dev/null/x" }},
	} {
		cfg := good
		test.change(&cfg)
		c, err := Open(t.Context(), cfg, fsm.New("node1"), &recorder{})
		if err == nil {
			_ = c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.what) {
			t.Errorf("%s: %v", test.what, err)
		}
	}
}
