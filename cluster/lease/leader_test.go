package lease

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// patience bounds whatever a test waits for, on a busy machine too.
const patience = time.Minute

// quorum is a log and its state: what the leader appends is applied at once.
type quorum struct {
	mu      sync.Mutex
	term    uint64
	applied uint64
	commit  uint64
	now     int64
	due     int64
	members []fsm.Member
	reap    []fsm.NodeRef
	entries []*fsmpb.System
	verify  error
	barred  chan struct{} // the barrier waits for it
	gate    chan struct{} // VerifyLeader takes a token from it, unless nil
	clock   func() int64
	handed  int
	voters  []string
}

func newQuorum(members ...fsm.Member) *quorum {
	q := &quorum{applied: 10, commit: 10, members: members, now: 1, barred: make(chan struct{})}
	for _, m := range members {
		q.voters = append(q.voters, m.ID)
	}
	return q
}

func locked[T any](q *quorum, get func() T) T {
	q.mu.Lock()
	defer q.mu.Unlock()
	return get()
}

func (q *quorum) Members() []fsm.Member {
	return locked(q, func() []fsm.Member { return append([]fsm.Member(nil), q.members...) })
}
func (q *quorum) Applied() uint64     { return locked(q, func() uint64 { return q.applied }) }
func (q *quorum) CommitIndex() uint64 { return locked(q, func() uint64 { return q.commit }) }
func (q *quorum) Now() int64          { return locked(q, func() int64 { return q.now }) }
func (q *quorum) Voters() []string    { return q.voters }

func (q *quorum) NextDue() (int64, bool) {
	due := locked(q, func() int64 { return q.due })
	return due, due != 0
}

func (q *quorum) NeedsReap() (fsm.NodeRef, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.reap) == 0 {
		return fsm.NodeRef{}, false
	}
	return q.reap[0], true
}

func (q *quorum) VerifyLeader() error {
	if q.gate != nil {
		<-q.gate
	}
	return locked(q, func() error { return q.verify })
}

func (q *quorum) Barrier(ctx context.Context) error {
	select {
	case <-q.barred:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *quorum) Append(_ context.Context, s *fsmpb.System) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.entries = append(q.entries, s)
	q.applied++
	q.commit++
	switch {
	case s.GetNodeDown() != nil:
		for i, m := range q.members {
			if m.Incarnation == s.GetNodeDown().Incarnation && s.GetNodeDown().Term == q.term {
				q.members[i].Live = false
			}
		}
	case s.GetReap() != nil:
		q.reap = q.reap[1:]
	case s.GetTick() != nil:
		q.due = 0
	}
	return nil
}

func (q *quorum) SetClock(clock func() int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.clock = clock
}

func (q *quorum) HandOver() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.handed++
}

// pair is a leader and the holder of the same node.
type pair struct {
	*Leader
	h     *Holder
	q     *quorum
	wall  atomic.Int64
	leads atomic.Bool
}

func newPair(t *testing.T, q *quorum) *pair {
	p := &pair{q: q}
	p.wall.Store(1_000_000)
	p.leads.Store(true)
	cfg := Config{Duration: 200 * time.Millisecond, Drift: 50 * time.Millisecond, Lag: 300 * time.Millisecond, Wall: p.wall.Load}
	p.h = NewHolder(cfg, "a")
	p.Leader = NewLeader(cfg, "a", q, q, p.h.Now)
	p.h.Applied(q.Applied())
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { p.h.Run(ctx, way{p}) })
	t.Cleanup(func() {
		cancel()
		group.Wait()
		p.Close()
	})
	return p
}

func (p *pair) lead(term uint64) {
	p.q.mu.Lock()
	p.q.term = term
	p.q.mu.Unlock()
	p.Change(true, term)
}

type way struct{ p *pair }

func (w way) Leader() string {
	if w.p.leads.Load() {
		return "a"
	}
	return ""
}
func (w way) Moved() <-chan struct{}                   { return nil }
func (w way) Open(ctx context.Context) (Stream, error) { return w.p.Local(ctx), nil }

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (q *quorum) downs() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.entries {
		if e.GetNodeDown() != nil {
			n++
		}
	}
	return n
}

// TestReign: nothing before the barrier; then leases, the log's clock, barriers; a verdict when the
// node goes silent.
func TestReign(t *testing.T) {
	q := newQuorum(up("a", 5))
	p := newPair(t, q)
	p.h.Begin(ref("a", 5))
	p.lead(2)
	time.Sleep(20 * time.Millisecond) // nothing may happen, so there is nothing to wait for
	if p.h.Leased() || p.Ready() || p.Term() != 0 {
		t.Error("before the barrier")
	}
	close(q.barred)
	until(t, "a lease", p.h.Leased)
	if p.Term() != 2 || locked(q, func() bool { return q.clock == nil }) {
		t.Errorf("term %d", p.Term())
	}
	if now := locked(q, func() int64 { return q.clock() }); now < 1_000_000 {
		t.Errorf("the log's clock: %d", now)
	}
	q.mu.Lock()
	q.applied, q.commit = 20, 20
	q.mu.Unlock()
	p.h.Applied(20)
	p.Changed(20)
	done := make(chan struct{})
	p.h.Barrier(20, func() { close(done) })
	p.h.Report()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the barrier was forgotten")
	}
	if _, current := p.Applied(ref("a", 5), 0); !current {
		t.Error("it is up to date")
	}
	p.leads.Store(false) // it asks no more
	until(t, "the verdict", func() bool { return q.downs() > 0 })
	if p.h.Leased() {
		t.Error("a verdict on a node with a lease")
	}
	if q.entries[0].GetNodeDown().Term != 2 {
		t.Errorf("%v", q.entries[0])
	}
}

// TestClockGoesOn: a term that follows another goes on with its clock, though the members' clocks say by now that it
// began late: a timer that was set in the one must not be early in the other.
func TestClockGoesOn(t *testing.T) {
	q := newQuorum(up("a", 5))
	p := newPair(t, q)
	close(q.barred)
	p.h.Begin(ref("a", 5))
	p.lead(2)
	until(t, "a lease", p.h.Leased)
	began := p.cfg.Clock()
	first := locked(q, func() int64 { return q.clock() })
	p.Change(false, 0)
	p.wall.Add(5000)
	p.lead(3)
	until(t, "the next term", func() bool { return p.Term() == 3 })
	second := locked(q, func() int64 { return q.clock() })
	if passed := (p.cfg.Clock() - began).Milliseconds(); second < first-10 || second-first > passed+1 {
		t.Errorf("%d ms on the log's clock in %d ms", second-first, passed)
	}
	p.Change(false, 0)
	p.wall.Add(3_600_000)
	p.lead(4)
	until(t, "the term after that", func() bool { return p.Term() == 4 })
	if now := locked(q, func() int64 { return q.clock() }); now < 3_600_000 {
		t.Errorf("it is an hour late for ever: %d", now)
	}
}

// TestNoMajority: a leader that can't prove that it leads grants nothing, and says why.
func TestNoMajority(t *testing.T) {
	q := newQuorum(up("a", 5))
	q.verify = errors.New("cut off")
	p := newPair(t, q)
	close(q.barred)
	p.h.Begin(ref("a", 5))
	p.lead(2)
	until(t, "a reason", func() bool { return p.h.Reason() == "the leader has no majority: cut off" })
	if p.h.Leased() {
		t.Error("a lease without a majority")
	}
}

// TestDeposed: what was asked for before the leader was deposed is not granted after, and its verdicts
// are of its own term.
func TestDeposed(t *testing.T) {
	q := newQuorum(up("a", 5))
	q.gate = make(chan struct{})
	p := newPair(t, q)
	close(q.barred)
	p.h.Begin(ref("a", 5))
	p.lead(2)
	select {
	case q.gate <- struct{}{}: // it has begun to ask, and comes back after this
	case <-time.After(patience):
		t.Fatal("nobody asked")
	}
	until(t, "a lease", p.h.Leased)
	p.Change(false, 3)
	if p.Ready() {
		t.Error("it leads still")
	}
	close(q.gate)
	until(t, "the end of the lease", func() bool { return !p.h.Leased() })
	if q.downs() != 0 {
		t.Error("a verdict of nobody")
	}
	p.lead(4)
	until(t, "a lease of the next term", p.h.Leased)
}

// TestExpire: who is to be succeeded is granted nothing more, and is left alone until its lease is over.
func TestExpire(t *testing.T) {
	q := newQuorum(up("a", 5))
	p := newPair(t, q)
	close(q.barred)
	if p.Expire(ref("a", 5)) != 0 {
		t.Error("it does not lead")
	}
	p.h.Begin(ref("a", 5))
	p.lead(2)
	until(t, "a lease", p.h.Leased)
	if left := p.Expire(ref("a", 5)); left <= p.h.Left() {
		t.Errorf("%s, but the lease runs for %s", left, p.h.Left())
	}
	until(t, "the verdict", func() bool {
		if q.downs() > 0 {
			return true
		}
		if p.Expire(ref("a", 5)) == 0 && p.h.Leased() {
			t.Fatal("over, but it is leased")
		}
		return false
	})
	if p.Expire(ref("a", 5)) != 0 || p.h.Leased() {
		t.Error("it is over")
	}
}

// TestCondemn: by its own wish, at once and once for all.
func TestCondemn(t *testing.T) {
	q := newQuorum(up("a", 5))
	p := newPair(t, q)
	close(q.barred)
	p.h.Begin(ref("a", 5))
	if p.Condemn(ref("a", 5), "drained") != nil {
		t.Error("it does not lead")
	}
	p.lead(2)
	until(t, "a lease", p.h.Leased)
	if p.Condemn(ref("a", 4), "drained") != nil {
		t.Error("an incarnation that is not live")
	}
	order := p.Condemn(ref("a", 5), "drained").GetNodeDown()
	if order.GetReason() != "drained" || order.GetIncarnation() != 5 || order.GetTerm() != 2 {
		t.Errorf("%v", order)
	}
	until(t, "a refusal", func() bool { return p.h.Reason() == refuseCondemned || p.h.Reason() == refuseUnknown })
}

// TestChores: the leader cleans up behind verdicts, moves the clock when something is due, and hands
// over when it can't follow the log.
func TestChores(t *testing.T) {
	q := newQuorum(up("a", 5))
	q.reap = []fsm.NodeRef{ref("x", 1), ref("x", 2)}
	p := newPair(t, q)
	close(q.barred)
	p.h.Begin(ref("a", 5))
	p.lead(2)
	until(t, "two reaps", func() bool { return locked(q, func() bool { return len(q.reap) == 0 }) })
	time.Sleep(20 * time.Millisecond)
	if n := locked(q, func() int { return len(q.entries) }); n != 2 {
		t.Errorf("%d entries, though nothing is due", n)
	}
	q.mu.Lock()
	q.due = 1
	q.mu.Unlock()
	until(t, "a tick", func() bool { return locked(q, func() bool { return q.due == 0 }) })
	q.mu.Lock()
	q.commit += 1000
	q.mu.Unlock()
	until(t, "a handover", func() bool { return locked(q, func() bool { return q.handed > 0 }) })
	until(t, "the leader's own lease to end", func() bool { return p.h.Reason() == refuseBehind })
}

// TestLocalClosed: a stream of a leader that is closed ends at once.
func TestLocalClosed(t *testing.T) {
	l := NewLeader(Config{}, "a", newQuorum(), newQuorum(), func() int64 { return 0 })
	l.Close()
	l.Change(true, 1)
	if _, err := l.Local(t.Context()).Recv(); err == nil {
		t.Error("an answer")
	}
	if l.Ready() {
		t.Error("it leads")
	}
}
