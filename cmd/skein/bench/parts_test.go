package bench

import (
	"math"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	for v := uint64(1); v < 1<<43; v += v/7 + 1 {
		i := bucketOf(v)
		top := valueOf(i)
		if top < v || float64(top-v) > float64(v)/64 {
			t.Fatalf("%d is in bucket %d, which ends at %d", v, i, top)
		}
		if bucketOf(top) != i || bucketOf(top+1) != i+1 {
			t.Fatalf("bucket %d of %d does not end at %d", i, v, top)
		}
	}
	if got := bucketOf(math.MaxUint64); got != histogramRows<<subBits-1 {
		t.Fatalf("the largest value is in bucket %d", got)
	}
	var a, b histogram
	for i := range 1000 {
		h := &a
		if i%2 == 0 {
			h = &b
		}
		h.add(int64(time.Millisecond) * int64(i+1))
	}
	a.merge(&b)
	a.merge(&histogram{})
	l := a.latency()
	near := func(got, want float64) bool { return math.Abs(got-want) <= want/60 }
	if l.Count != 1000 || l.Min != 1 || l.Max != 1000 || !near(l.P50, 500) || !near(l.P99, 990) || !near(l.Mean, 500.5) {
		t.Errorf("%+v", l)
	}
}

func TestStream(t *testing.T) {
	var s stream
	for _, step := range []struct {
		n    uint64
		want arrival
	}{{0, inOrder}, {1, inOrder}, {1, again}, {4, inOrder}, {2, late}, {2, again}, {6, inOrder}} {
		if got := s.see(step.n); got != step.want {
			t.Errorf("%d: %d, want %d", step.n, got, step.want)
		}
	}
	if got := s.lost(9); got != 4 { // 3, 5, 7, 8
		t.Errorf("lost %d", got)
	}
}

func TestPool(t *testing.T) {
	var p pool
	var a, b stream
	for _, step := range []struct {
		s    *stream
		n    uint64
		want arrival
	}{{&a, 0, inOrder}, {&b, 5, inOrder}, {&a, 70, inOrder}, {&b, 70, again}, {&a, 6, late}, {&b, 6, again}} {
		if got := step.s.member(step.n, p.see(step.n)); got != step.want {
			t.Errorf("%d: %d, want %d", step.n, got, step.want)
		}
	}
	if p.n != 4 {
		t.Errorf("%d", p.n)
	}
}

func TestPace(t *testing.T) {
	p := pace{begin: 1000, rate: 100, n: 4}
	if at := p.at(3, 2); at != 1000+110e6 { // the twelfth of all
		t.Errorf("at %d", at)
	}
	for publisher := range uint32(4) {
		for number := range uint64(50) {
			at := p.at(publisher, number)
			if p.due(publisher, at-1000) > number || p.due(publisher, at+1000) != number+1 {
				t.Errorf("message %d of %d is due at %d, but %d are then", number, publisher, at, p.due(publisher, at+1000))
			}
		}
	}
}
