package lease

import (
	"slices"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// hand is a holder whose clock a test moves.
func hand(now *time.Duration) *Holder {
	return NewHolder(Config{
		Duration: duration, Drift: drift, Clock: func() time.Duration { return *now }, Wall: func() int64 { return 77 },
	}, "a")
}

func grant(r *clusterpb.LeaseRequest) *clusterpb.LeaseReply {
	return &clusterpb.LeaseReply{Sequence: r.Sequence, Granted: true}
}

func holds(t *testing.T, h *Holder, want bool) {
	t.Helper()
	leased, lost := h.State()
	if h.Leased() != want || leased != want || (h.Left() > 0) != want || (lost > 0) && want {
		t.Errorf("leased %t, %t, left %s, lost for %s; want %t", h.Leased(), leased, h.Left(), lost, want)
	}
}

// TestHold: a lease counts from when it was asked for, not from when it came.
func TestHold(t *testing.T) {
	now := time.Hour
	h := hand(&now)
	if r := h.request(); r.WantLease || r.Node != "a" || r.Clock != 77 {
		t.Errorf("without an incarnation: %v", r)
	}
	h.Begin(ref("a", 5))
	holds(t, h, false)
	r := h.request()
	if !r.WantLease || r.Incarnation != 5 {
		t.Fatalf("%v", r)
	}
	now += 200 * time.Millisecond
	h.take(grant(r))
	holds(t, h, true)
	if h.Left() != 300*time.Millisecond {
		t.Errorf("left %s", h.Left())
	}
	now += 300*time.Millisecond - 1
	holds(t, h, true)
	now++
	holds(t, h, false)
	now += time.Second
	if _, lost := h.State(); lost != time.Second {
		t.Errorf("lost for %s", lost)
	}
	h.take(grant(r)) // once is enough
	holds(t, h, false)
	old := h.request()
	now += duration
	h.take(grant(old)) // an answer that comes too late to be of use
	holds(t, h, false)
}

// TestHoldOrder: answers count by what they answer; refusals and strange ones give nothing and take
// nothing.
func TestHoldOrder(t *testing.T) {
	now := time.Hour
	h := hand(&now)
	h.Begin(ref("a", 5))
	first := h.request()
	now += 100 * time.Millisecond
	second := h.request()
	now += 100 * time.Millisecond
	h.take(grant(second))
	if h.Left() != 400*time.Millisecond {
		t.Errorf("left %s", h.Left())
	}
	h.take(grant(first))
	if h.Left() != 400*time.Millisecond {
		t.Errorf("an older answer: left %s", h.Left())
	}
	h.take(&clusterpb.LeaseReply{Sequence: 99, Granted: true})
	h.take(&clusterpb.LeaseReply{Sequence: 0, Granted: true}) // only a watermark
	third := h.request()
	h.take(&clusterpb.LeaseReply{Sequence: third.Sequence, Reason: "no"})
	if h.Left() != 400*time.Millisecond || h.Reason() != "no" {
		t.Errorf("left %s, reason %q", h.Left(), h.Reason())
	}
	var last *clusterpb.LeaseRequest
	for range 3 * maxSent {
		last = h.request()
	}
	if len(h.sent) != maxSent {
		t.Errorf("%d requests are remembered", len(h.sent))
	}
	h.take(grant(last))
	if h.Left() != duration {
		t.Errorf("left %s", h.Left())
	}
}

// TestHoldEnd: what was asked for by an incarnation gives the next one nothing.
func TestHoldEnd(t *testing.T) {
	now := time.Hour
	h := hand(&now)
	h.Begin(ref("a", 5))
	r := h.request()
	h.take(grant(r))
	under := h.request()
	h.End()
	holds(t, h, false)
	h.take(grant(under))
	holds(t, h, false)
	h.Begin(ref("a", 6))
	h.take(grant(under))
	holds(t, h, false)
	r = h.request()
	h.Begin(ref("a", 7)) // begun anew without an end
	h.take(grant(r))
	holds(t, h, false)
	h.take(grant(h.request()))
	holds(t, h, true)
}

// TestHoldSlept: a machine that was suspended wakes without a lease.
func TestHoldSlept(t *testing.T) {
	now := time.Hour
	h := hand(&now)
	h.Begin(ref("a", 5))
	r := h.request()
	h.take(grant(r))
	on := h.request()
	now += time.Hour
	holds(t, h, false)
	h.take(grant(on)) // it came while the machine slept
	holds(t, h, false)
}

func TestChanged(t *testing.T) {
	now := time.Hour
	h := hand(&now)
	token := func() bool {
		select {
		case <-h.Changed():
			return true
		default:
			return false
		}
	}
	h.Begin(ref("a", 5))
	for _, step := range []struct {
		what string
		do   func()
		want bool
	}{
		{"the first lease", func() { h.take(grant(h.request())) }, true},
		{"a renewal", func() { now += duration / 2; h.take(grant(h.request())) }, false},
		{"it runs out", func() { now += duration }, false},
		{"it is back", func() { h.take(grant(h.request())) }, true},
		{"the end", h.End, true},
	} {
		if step.do(); token() != step.want {
			t.Errorf("%s: want %t", step.what, step.want)
		}
	}
}

// TestBarrier: in order of the index, and not for an incarnation that has ended.
func TestBarrier(t *testing.T) {
	now := time.Hour
	h := hand(&now)
	var done []int
	wait := func(index uint64, n int) { h.Barrier(index, func() { done = append(done, n) }) }
	wait(1, 0) // there is no incarnation
	h.Begin(ref("a", 5))
	wait(20, 1)
	wait(10, 2)
	wait(10, 3)
	wait(30, 4)
	mark := func(w uint64, want ...int) {
		t.Helper()
		h.take(&clusterpb.LeaseReply{Watermark: w})
		if !slices.Equal(done, want) {
			t.Errorf("at %d: %v, want %v", w, done, want)
		}
	}
	mark(9)
	mark(10, 2, 3)
	mark(25, 2, 3, 1)
	mark(12, 2, 3, 1) // from a leader that has not heard of all yet
	if h.Watermark() != 25 {
		t.Errorf("watermark %d", h.Watermark())
	}
	wait(25, 5) // at once
	mark(0, 2, 3, 1, 5)
	h.End()
	mark(40, 2, 3, 1, 5)
}

// TestNow: never ahead of the leader's clock, and never back.
func TestNow(t *testing.T) {
	now := time.Hour
	h := hand(&now)
	if h.Now() != 0 {
		t.Errorf("before any leader: %d", h.Now())
	}
	h.take(&clusterpb.LeaseReply{Clock: 5000})
	now += 100 * time.Millisecond
	if h.Now() != 5100 {
		t.Errorf("%d", h.Now())
	}
	h.take(&clusterpb.LeaseReply{Clock: 4300}) // it took 800 ms
	if h.Now() < 5099 {
		t.Errorf("a late reply counts: %d", h.Now())
	}
	h.opened.Store(true)
	h.take(&clusterpb.LeaseReply{Clock: 4000}) // another leader, whose clock is behind
	if h.Now() != 5100 {
		t.Errorf("it went back: %d", h.Now())
	}
	now += 2 * time.Second
	if h.Now() != 6000 {
		t.Errorf("ahead of its leader: %d", h.Now())
	}
	h.take(&clusterpb.LeaseReply{Commit: 7})
	h.take(&clusterpb.LeaseReply{Commit: 3})
	if h.Commit() != 7 || h.Now() != 6000 {
		t.Errorf("commit %d at %d", h.Commit(), h.Now())
	}
}
