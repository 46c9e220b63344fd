package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

func TestCommandsOfEveryNode(t *testing.T) {
	w := newWorld(t, 3, nil)
	w.leader()
	w.upAll()
	w.session(w.all[0])
	const count = 2000
	var streams []*stream
	for _, n := range w.all {
		streams = append(streams, n.publish(1, count))
	}
	for _, s := range streams {
		s.wait()
	}
	w.agree()
	for from, got := range w.queued(w.all[2]) {
		t.Run(from, func(t *testing.T) { w.inOrder(got, count) })
	}
	for _, n := range w.all {
		if commands, bytes := n.Backlog(); commands != 0 || bytes != 0 {
			t.Errorf("%s: backlog %d commands, %d bytes", n.name, commands, bytes)
		}
		if s := n.Stats(); s.Commands < count || s.Batches >= s.Commands || s.Applied != n.Applied() || s.Term == 0 {
			t.Errorf("%s: stats %+v", n.name, s)
		}
		if n.indexes.Load() != n.Applied() {
			t.Errorf("%s: Applied said %d, it is %d", n.name, n.indexes.Load(), n.Applied())
		}
		n.mu.Lock()
		if slices.Contains(n.effects, fsm.EffectResult) || slices.Contains(n.effects, fsm.EffectGap) || !slices.Contains(n.effects, fsm.EffectPassed) {
			t.Errorf("%s: wrong effects were handed out", n.name)
		}
		n.mu.Unlock()
	}
}

func TestLeaderDies(t *testing.T) {
	w := newWorld(t, 3, nil)
	leader := w.leader()
	w.upAll()
	w.session(leader)
	const count = 3000
	var streams []*stream
	for _, n := range w.all {
		streams = append(streams, n.publish(1, count))
	}
	w.until("some are committed", func() bool { return streams[0].done.Load() > 0 })
	leader.close()
	for _, s := range streams {
		if s.n != leader {
			s.wait()
		} else if s.done.Load() != count {
			t.Errorf("%d of %d commands of the closed node were answered", s.done.Load(), count)
		}
	}
	next := w.leader()
	w.agree()
	for from, got := range w.queued(next) {
		t.Run(from, func(t *testing.T) {
			if from == leader.name { // those that it could send, each once
				w.inOrder(got, len(got))
			} else {
				w.inOrder(got, count)
			}
		})
	}
	for _, s := range streams {
		if s.n == leader {
			for _, err := range s.errs {
				if !errors.Is(err, ErrClosed) {
					t.Fatalf("a command of the closed node ended with %v", err)
				}
			}
		}
	}

	leader.open() // it comes back and catches up
	w.leader()
	w.agree()
}

func TestLeadershipMoves(t *testing.T) {
	w := newWorld(t, 3, nil)
	w.leader()
	w.upAll()
	w.session(w.all[0])
	const count, rounds = 300, 4
	for round := range rounds {
		var streams []*stream
		for _, n := range w.all {
			streams = append(streams, n.publish(1+round*count, count))
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := w.leader().Transfer(ctx, "", ""); err != nil {
			t.Logf("transfer: %v", err)
		}
		cancel()
		for _, s := range streams {
			s.wait()
		}
	}
	w.agree()
	for from, got := range w.queued(w.all[0]) {
		t.Run(from, func(t *testing.T) { w.inOrder(got, count*rounds) })
	}
	// Every node hears of its terms in order: it begins before it ends, and terms grow.
	for _, n := range w.all {
		n.mu.Lock()
		var last uint64
		for i, s := range n.terms {
			var leads bool
			var term uint64
			if _, err := fmt.Sscanf(s, "%t %d", &leads, &term); err != nil {
				t.Fatal(err)
			}
			if leads != (i%2 == 0) || term < last {
				t.Errorf("%s heard %v", n.name, n.terms)
				break
			}
			last = term
		}
		n.mu.Unlock()
	}
}

func TestRestart(t *testing.T) {
	w := newWorld(t, 3, nil)
	w.leader()
	w.upAll()
	w.session(w.all[0])
	w.all[1].publish(1, 500).wait()
	w.agree()
	index := w.all[0].Applied()
	for _, n := range w.all {
		n.close()
	}
	for _, n := range w.all {
		n.open()
		if has, err := n.HasState(); !has || err != nil {
			t.Errorf("%s has state: %v, %v", n.name, has, err)
		}
		if err := n.Bootstrap([]Server{n.asServer()}); !errors.Is(err, ErrHasState) {
			t.Errorf("bootstrap: %v", err)
		}
	}
	w.leader()
	w.until("the log is applied again", func() bool { return w.all[0].Applied() >= index })
	w.agree()
	w.inOrder(w.queued(w.all[0])[w.all[1].name], 500)
	w.upAll()
	w.all[1].publish(501, 100).wait() // sequences begin again
	w.inOrder(w.queued(w.all[1])[w.all[1].name], 600)
}

func TestSnapshotForALaggard(t *testing.T) {
	w := newWorld(t, 3, func(c *Config) { c.SnapshotBytes, c.BatchBytes = 32<<10, 4<<10 })
	w.leader()
	w.upAll()
	w.session(w.all[0])
	late := w.follower()
	late.close()
	writer := w.leader()
	total := 0
	publish := func(n int) {
		writer.publish(total+1, n).wait()
		total += n
	}
	w.until("enough snapshots that the log no longer begins where the node left", func() bool {
		publish(1000)
		first, err := writer.store.FirstIndex()
		return err == nil && first > late.machine.Applied()+1
	})
	late.open()
	w.until("the snapshot is restored", func() bool { return late.restores.Load() > 0 })
	publish(500)
	w.agree()
	w.inOrder(w.queued(late)[writer.name], total)
	if late.Stats().SnapshotIndex == 0 {
		t.Error("the snapshot's index is not known")
	}
	// All of them start again from snapshots.
	for _, n := range w.all {
		n.close()
		n.restores.Store(0)
		n.open()
	}
	w.leader()
	w.agree()
	for _, n := range w.all {
		if n.restores.Load() != 1 {
			t.Errorf("%s restored %d snapshots", n.name, n.restores.Load())
		}
	}
	w.inOrder(w.queued(late)[writer.name], total)
}

func TestEndFailsWhatIsPending(t *testing.T) {
	w := newWorld(t, 3, nil)
	n := w.leader()
	if seq := n.Propose(message("n", 1), func(_ fsm.Result, err error) {
		if !errors.Is(err, ErrNoIncarnation) {
			t.Errorf("before Begin: %v", err)
		}
	}); seq != 0 {
		t.Errorf("before Begin it has the sequence %d", seq)
	}
	w.upAll()
	for _, other := range w.all {
		if other != n {
			other.close()
		}
	}
	var order []int
	end := errors.New("the end")
	for i := range 100 {
		if seq := n.Propose(message("n", i), func(_ fsm.Result, err error) {
			if err != end {
				t.Errorf("error %v", err)
			}
			order = append(order, i)
		}); seq != uint64(i+1) {
			t.Fatalf("sequence %d, want %d", seq, i+1)
		}
	}
	n.End(end)
	if len(order) != 100 || !slices.IsSorted(order) {
		t.Errorf("ended: %v", order)
	}
	ran := false
	if n.Propose(message("n", 1), func(_ fsm.Result, err error) { ran = err == end }) != 0 || !ran {
		t.Error("after End a command was taken")
	}
	n.End(end) // again is fine
	if len(order) != 100 {
		t.Error("a done ran twice")
	}
}

func TestNotACommand(t *testing.T) {
	w := newWorld(t, 1, nil)
	n := w.leader()
	w.up(n)
	var got error
	if n.Propose(&fsmpb.Command{}, func(_ fsm.Result, err error) { got = err }) != 0 || !errors.Is(got, ErrCommand) {
		t.Errorf("an empty command: %v", got)
	}
	if _, err := n.AppendSystem(t.Context(), &fsmpb.System{}); !errors.Is(err, ErrCommand) {
		t.Errorf("an empty order: %v", err)
	}
	w.do(n, &fsmpb.Command{Op: &fsmpb.Command_Interest{Interest: &fsmpb.Interest{Filter: "a", Count: 1}}})
}

func TestUnreadableEntryStopsTheNode(t *testing.T) {
	w := newWorld(t, 3, nil)
	leader := w.leader()
	w.upAll()
	if err := leader.submit([]byte("this is no entry"), func(uint64, error) {}); err != nil {
		t.Fatal(err)
	}
	w.until("all have stopped", func() bool {
		for _, n := range w.all {
			if n.fatals.Load() == 0 {
				return false
			}
		}
		return true
	})
	for _, n := range w.all {
		applied := n.Applied()
		n.publish(1, 10)
		n.close()
		if n.Applied() != applied {
			t.Errorf("%s went on", n.name)
		}
		if n.fatals.Load() != 1 || !errors.Is(n.fatal, fsm.ErrNewer) || !strings.Contains(n.fatal.Error(), "newest version") {
			t.Errorf("%s: %d times, %v", n.name, n.fatals.Load(), n.fatal)
		}
	}
}

func TestOrders(t *testing.T) {
	w := newWorld(t, 3, nil)
	leader, follower := w.leader(), w.follower()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	if err := leader.Barrier(ctx); err != nil {
		t.Fatal(err)
	}
	if leader.Applied() < leader.CommitIndex() {
		t.Error("after a barrier there is something left to apply")
	}
	leader.SetClock(func() int64 { return 7_000_000 })
	index, err := leader.AppendSystem(ctx, &fsmpb.System{Op: &fsmpb.System_Tick{Tick: &fsmpb.Tick{}}})
	if err != nil || index == 0 || leader.Applied() < index {
		t.Errorf("index %d, error %v", index, err)
	}
	if now := leader.machine.Now(); now != 7_000_000 {
		t.Errorf("the log's clock is %d", now)
	}
	leader.SetClock(nil)
	if err := leader.Barrier(ctx); err != nil || leader.machine.Now() != 7_000_000 {
		t.Error("the log's clock moved")
	}

	for name, err := range map[string]error{
		"verify": follower.VerifyLeader(), "barrier": follower.Barrier(ctx), "transfer": follower.Transfer(ctx, "", ""),
		"add": follower.AddVoter(ctx, "x", "127.0.0.1:1"), "remove": follower.RemoveServer(ctx, "x"),
	} {
		if !errors.Is(err, ErrNotLeader) {
			t.Errorf("%s on a follower: %v", name, err)
		}
	}
	if err := leader.Transfer(ctx, follower.asServer().ID, follower.address); err != nil {
		t.Fatal(err)
	}
	w.until("the follower leads", func() bool { return w.leader() == follower })
}

func TestMembers(t *testing.T) {
	w := newWorld(t, 1, nil)
	leader := w.leader()
	w.up(leader)
	w.session(leader)
	leader.publish(1, 10).wait()
	second := w.add("second")
	if has, err := second.HasState(); has || err != nil {
		t.Errorf("a blank server has state: %v, %v", has, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	add := second.asServer()
	if err := leader.AddNonvoter(ctx, add.ID, add.Address); err != nil {
		t.Fatal(err)
	}
	add.Voter = false
	w.until("it has caught up", func() bool { return second.Applied() >= leader.CommitIndex() })
	if servers, err := second.Servers(); err != nil || !slices.Contains(servers, add) {
		t.Errorf("servers %v, %v", servers, err)
	}
	if err := leader.AddVoter(ctx, add.ID, add.Address); err != nil {
		t.Fatal(err)
	}
	add.Voter = true
	if servers, _ := leader.Servers(); !slices.Contains(servers, add) {
		t.Errorf("servers %v", servers)
	}
	w.agree() // a change of the members counts as applied
	if err := leader.RemoveServer(ctx, leader.asServer().ID); err != nil {
		t.Fatal(err)
	}
	w.until("the other leads", func() bool { return second.IsLeader() })
	leader.close()
	w.up(second)
	second.publish(1, 10).wait()
}

func TestCloseWithoutMajority(t *testing.T) {
	w := newWorld(t, 3, nil)
	leader := w.leader()
	w.upAll()
	for _, n := range w.all {
		if n != leader {
			n.close()
		}
	}
	s := leader.publish(1, 100)
	start := time.Now()
	leader.close()
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	if s.done.Load() != 100 {
		t.Errorf("%d of 100 commands were answered", s.done.Load())
	}
	if err := leader.VerifyLeader(); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
