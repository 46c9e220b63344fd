package cluster

import (
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// electing ends the leader and returns what waits for its end, as soon as a follower knows the next one: that one takes
// orders already, and has not yet begun to stamp them by its own clock.
func electing(w *world, f *node) (over func()) {
	w.t.Helper()
	leader := w.leader()
	done := make(chan struct{})
	go func() {
		defer close(done)
		leader.close()
	}()
	w.until("another leader", func() bool {
		id, _ := f.log.Leader()
		return id != "" && nodeOf(id) != leader.id
	})
	return func() { <-done }
}

// idle is how long the clusters of these tests write nothing, so that the last stamp in the log is old.
const idle = 1500 * time.Millisecond

// TestWillInAnElection: the delay of a will whose connection breaks while a leader is being elected counts from then, not from
// the last entry before.
func TestWillInAnElection(t *testing.T) {
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	f := w.follower()
	r := f.command(&fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: &fsmpb.Connect{
		ClientId: "c", Persistent: true, Expiry: 1000, Limits: &fsmpb.Limits{Span: 1000},
		Will: &fsmpb.Will{Topic: "will", Payload: []byte("w"), Retain: true, Delay: 1},
	}}})
	time.Sleep(idle) // nothing is written
	over := electing(w, f)
	broke := time.Now()
	f.command(&fsmpb.Command{Op: &fsmpb.Command_Disconnect{Disconnect: &fsmpb.Disconnect{ClientId: "c", Epoch: uint64(r.Epoch)}}})
	w.until("the will", func() bool { return f.has("will") })
	if d := time.Since(broke); d < time.Second {
		t.Errorf("a will with a delay of a second came after %v", d)
	}
	over()
}

// TestConnectStuckInAnElection: a CONNECT that is stuck behind an election does not take its session over after its time.
func TestConnectStuckInAnElection(t *testing.T) {
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	f := w.follower()
	f.propose("x")
	time.Sleep(idle / 2)
	notAfter := f.Now()
	time.Sleep(idle / 2)
	over := electing(w, f)
	if r := f.command(&fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: &fsmpb.Connect{ClientId: "c", NotAfter: uint64(notAfter)}}}); r.Code != fsm.TooLate {
		t.Errorf("%v: it took the session over all the same", r.Code)
	}
	over()
}

// TestQuarantinedLeaderGoesOnTrying: it grants no lease, so the cluster stands still until another node leads, also when the
// first attempt to hand the leadership over has come to nothing.
func TestQuarantinedLeaderGoesOnTrying(t *testing.T) {
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	l := w.leader()
	l.early.mu.Lock() // as quarantine does, but for the first attempt
	l.checks.mu.Lock()
	l.checks.reason = quarantineReason(1)
	l.checks.mu.Unlock()
	l.Cluster.leader.Change(false, 0)
	l.early.mu.Unlock()
	w.until("another leader, and leases", func() bool {
		leases := 0
		for _, n := range w.running() {
			if n != l && n.Leased() {
				leases++
			}
		}
		return !l.log.IsLeader() && leases == 2
	})
}
