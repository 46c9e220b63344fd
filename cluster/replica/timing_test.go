package replica

import (
	"testing"
	"time"
)

func TestTiming(t *testing.T) {
	var m timing
	for _, d := range []time.Duration{0, shortest, shortest + 1, time.Millisecond, time.Hour} {
		m.add(d)
	}
	r := m.read()
	if r.Count != 5 || r.Sum != time.Hour+2*shortest+1+time.Millisecond || len(r.Buckets) != timingBuckets ||
		r.Buckets[shortest] != 2 || r.Buckets[2*shortest] != 3 || r.Buckets[time.Millisecond] != 4 || r.Buckets[shortest<<(timingBuckets-1)] != 4 {
		t.Errorf("%+v", r)
	}
}
