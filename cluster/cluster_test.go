package cluster

import (
	"errors"
	"os"
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

// TestJoin: a fourth node joins without a vote, serves, and is given one.
func TestJoin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	w.nodes["node1"].propose("before")
	w.expect = 1 // the default, which founds nothing where there is somebody to join
	n := w.add("node4")
	w.serving("node4")
	if n.fsm.RetainedCount() != 1 {
		t.Error("it serves and has not caught up")
	}
	w.until("a vote for node4", func() bool { return w.role("node4") == RoleFollower })
	if servers, _ := n.log.Servers(); len(servers) != 4 {
		t.Errorf("%v", servers)
	}
	n.close()
	n.start()
	w.serving("node4")
}

// TestWiped: a node that lost its disk is another server: it takes the place of the old one, which had
// promised to keep what is lost.
func TestWiped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	n := w.follower()
	old := n.ServerID()
	n.close()
	if err := os.RemoveAll(n.dir); err != nil {
		t.Fatal(err)
	}
	w.leader().propose("meanwhile")
	n.start() // at once, and under the same address: the old server's
	w.serving(n.id)
	w.until("a vote", func() bool { return w.role(n.id) == RoleFollower })
	servers, err := w.leader().log.Servers()
	if err != nil || len(servers) != 3 {
		t.Errorf("%v %v", servers, err)
	}
	for _, s := range servers {
		if s.ID == old {
			t.Errorf("the old server is a member still: %v", servers)
		}
	}
	if n.fsm.RetainedCount() != 1 {
		t.Error("it serves and has not caught up")
	}
}

// TestWipedNeedsQuorum: where the old server's vote counts for the majority, its place is kept.
func TestWipedNeedsQuorum(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	leader := w.leader()
	n := w.follower()
	old, _ := leader.server(n.ServerID())
	for _, other := range w.running() { // of the voters that would be left, one is not in service
		if other != leader && other != n {
			ref := other.Self()
			other.close()
			w.until("its verdict", func() bool { return leader.rec.down(ref) })
		}
	}
	leader.configuring.Lock()
	defer leader.configuring.Unlock()
	if err := leader.remove(ctx(t), old); !errors.Is(err, ErrQuorum) {
		t.Errorf("got %v", err)
	}
}

// TestMoved: a node comes back under another address.
func TestMoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	n := w.follower()
	before := n.addr
	n.close()
	n.addr = "" // a free port
	hold := listen(t, before)
	defer hold.Close()
	n.start()
	w.serving(n.id)
	s, ok := w.leader().server(n.ServerID())
	if !ok || s.Address != n.addr || !s.Voter {
		t.Errorf("%+v, but it is at %s", s, n.addr)
	}
}

// TestAllMoved: so does the whole cluster, as containers do.
func TestAllMoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	all := w.running()
	for _, n := range all {
		n.close()
		n.addr = ""
	}
	w.gossip = nil
	for _, n := range all {
		n.start()
	}
	w.serving("node1", "node2", "node3")
	for _, s := range must(w.leader().log.Servers()) {
		if s.Address != w.nodes[nodeOf(s.ID)].addr {
			t.Errorf("%+v", s)
		}
	}
}

// TestLeave: the end of a drain: the others know at once, and the node keeps its vote.
func TestLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	n := w.leader()
	ref := n.Self()
	if err := n.HandOver(ctx(t)); err != nil {
		t.Fatal(err)
	}
	if err := n.Leave(ctx(t)); err != nil {
		t.Fatal(err)
	}
	w.until("its end", func() bool { return slices.Contains(n.rec.seen(), "ended") })
	for _, other := range w.running() {
		w.until("its end at "+other.id, func() bool { return other.rec.down(ref) })
		if m, _ := other.member(n.id); m.DownReason != "it was drained" {
			t.Errorf("%+v", m)
		}
	}
	if w.role(n.id) != RoleFollower {
		t.Errorf("role %s", w.role(n.id))
	}
	if serving, _ := n.InService(); serving {
		t.Error("it serves")
	}
}

// TestRemove: only what is not needed any more is removed, and who was removed says so.
func TestRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	leader := w.leader()
	n := w.follower()
	if err := n.Remove(ctx(t), leader.id, false); !errors.Is(err, ErrNotLeader) {
		t.Errorf("on a follower: %v", err)
	}
	if err := leader.Remove(ctx(t), "nobody", false); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("of nobody: %v", err)
	}
	if err := leader.Remove(ctx(t), n.id, false); !errors.Is(err, ErrLive) {
		t.Errorf("in service: %v", err)
	}
	ref := n.Self()
	if err := w.lead(func(l *node) error { leader = l; return l.Remove(ctx(t), n.id, true) }); err != nil {
		t.Fatal(err)
	}
	if !leader.rec.down(ref) {
		t.Error("its incarnation has not ended")
	}
	if _, known := leader.member(n.id); known {
		t.Error("it is known still")
	}
	w.saysRemoved(n)
	n.close()
	if err := w.lead(func(l *node) error { // of two both are in service: one is enough alone
		leader = l
		for _, other := range w.running() {
			if other != l {
				return l.Remove(ctx(t), other.id, true)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := leader.Remove(ctx(t), leader.id, true); !errors.Is(err, ErrQuorum) {
		t.Errorf("the last voter: %v", err)
	}
}

// TestRemovedWhileAway: raft tells it nothing, so it asks.
func TestRemovedWhileAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	leader := w.leader()
	n := w.follower()
	ref := n.Self()
	n.close()
	w.until("the verdict", func() bool { return leader.rec.down(ref) })
	if err := w.lead(func(l *node) error { return l.Remove(ctx(t), n.id, false) }); err != nil {
		t.Fatal(err)
	}
	n.start()
	w.saysRemoved(n)
	n.close()
	if err := os.RemoveAll(n.dir); err != nil {
		t.Fatal(err)
	}
	n.start()
	w.serving(n.id)
}

func (w *world) saysRemoved(n *node) {
	w.t.Helper()
	w.until(n.id+" says that it was removed", func() bool {
		serving, why := n.InService()
		return !serving && strings.Contains(why, "was removed from the cluster")
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
