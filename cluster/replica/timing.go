package replica

import (
	"sync/atomic"
	"time"
)

// timingBuckets doubles from 250 µs on: up to 4.1 s, and what is longer.
const timingBuckets = 15

const shortest = 250 * time.Microsecond

// timing counts how long something takes.
type timing struct {
	counts [timingBuckets + 1]atomic.Uint64
	sum    atomic.Int64
}

func (t *timing) add(d time.Duration) {
	i, limit := 0, shortest
	for i < timingBuckets && d > limit {
		i++
		limit *= 2
	}
	t.counts[i].Add(1)
	t.sum.Add(int64(d))
}

// Timing is how long something took: how often, how long in all, and how often at most so long.
type Timing struct {
	Count   uint64
	Sum     time.Duration
	Buckets map[time.Duration]uint64 // cumulative
}

func (t *timing) read() Timing {
	out := Timing{Buckets: make(map[time.Duration]uint64, timingBuckets), Sum: time.Duration(t.sum.Load())}
	limit := shortest
	for i := range t.counts {
		out.Count += t.counts[i].Load()
		if i < timingBuckets {
			out.Buckets[limit] = out.Count
			limit *= 2
		}
	}
	return out
}
