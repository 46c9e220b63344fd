package cluster

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

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
