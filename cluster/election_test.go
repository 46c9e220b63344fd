package cluster

import (
	"context"
	"errors"
	"sync/atomic"
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

// busyLog fails the first attempt to hand over, as raft does where the other node does not answer in time.
type busyLog struct {
	replicatedLog
	tries atomic.Int32
}

func (b *busyLog) Transfer(ctx context.Context, id, address string) error {
	if b.tries.Add(1) == 1 {
		return errors.New("leadership transfer timeout")
	}
	return b.replicatedLog.Transfer(ctx, id, address)
}

// TestQuarantinedLeaderGoesOnTrying: it grants no lease, so the cluster stands still until another node leads.
func TestQuarantinedLeaderGoesOnTrying(t *testing.T) {
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	l := w.leader()
	l.log = &busyLog{replicatedLog: l.log}
	l.quarantine(1)
	w.until("another leader, and leases", func() bool {
		leases := 0
		for _, n := range w.running() {
			if n.Leased() {
				leases++
			}
		}
		return !l.log.IsLeader() && leases == 2
	})
}
