package lease

import (
	"sync/atomic"
	"time"
)

// estimate reads CLOCK_BOOTTIME without a system call, most of the time: the lease is looked at for
// every message at QoS 1 and 2, and Go can read only the wall clock and CLOCK_MONOTONIC cheaply.
//
// CLOCK_BOOTTIME runs ahead of the monotonic clock by the time that the machine was suspended, and the
// kernel moves the wall clock by the same amount in the same moment. So as long as the wall clock keeps
// its distance from the monotonic one, nothing has been suspended since the last real reading. A step
// of the wall clock merely causes another one; so does age, should a step ever undo a suspension.
type estimate struct {
	exact  Clock
	cheap  func() (monotonic, wall time.Duration)
	anchor atomic.Pointer[anchor]
}

// anchor is a real reading. It is immutable.
type anchor struct {
	at   time.Duration // monotonic
	skew time.Duration // wall clock minus monotonic
	low  time.Duration // what to add to the monotonic clock for a time that is not later than the exact one
	high time.Duration // or not earlier
}

const (
	// slack is how exact an estimate has to be.
	slack = 2 * time.Millisecond
	// anchorLife is how long a real reading is relied on.
	anchorLife = 100 * time.Millisecond
)

func newEstimate(exact Clock) *estimate {
	begin := time.Now()
	return &estimate{exact: exact, cheap: func() (monotonic, wall time.Duration) {
		now := time.Now()
		return now.Sub(begin), time.Duration(now.UnixNano())
	}}
}

// bounds are two readings between which the exact time lies. They differ by a few ms at most.
func (e *estimate) bounds() (low, high time.Duration) {
	monotonic, wall := e.cheap()
	if a := e.anchor.Load(); a != nil && monotonic-a.at < anchorLife && (wall-monotonic-a.skew).Abs() < slack {
		return monotonic + a.low, monotonic + a.high
	}
	exact := e.exact()
	if after, _ := e.cheap(); after-monotonic < slack { // else something came between the readings
		e.anchor.Store(&anchor{at: monotonic, skew: wall - monotonic, low: exact - after - slack, high: exact - monotonic + slack})
	}
	return exact, exact
}
