package lease

import (
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the time since some fixed moment. It must go on while the machine is suspended.
type Clock func() time.Duration

// Boottime is CLOCK_BOOTTIME.
func Boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("lease: CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

// Config of both sides. All nodes of a cluster must agree on Duration and Drift.
type Config struct {
	// Duration is how long a lease lasts, from when the node sent its request. 0: 500 ms.
	Duration time.Duration
	// Drift is how much longer than a lease the leader waits before its verdict: it covers clocks
	// that run at different speeds. 0: 100 ms.
	Drift time.Duration
	// Lag is how far behind a node may be and still serve: it must have applied what was committed
	// that long ago. 0: 5 s.
	Lag time.Duration
	// Clock: nil is Boottime.
	Clock Clock
	// Wall is this node's wall clock in ms since 1970. nil: the system's.
	Wall   func() int64
	Logger *slog.Logger

	bounds func() (low, high time.Duration) // of Clock, cheap
}

// Defaults.
const (
	DefaultDuration = 500 * time.Millisecond
	DefaultDrift    = 100 * time.Millisecond
	DefaultLag      = 5 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Duration <= 0 {
		c.Duration = DefaultDuration
	}
	if c.Drift <= 0 {
		c.Drift = DefaultDrift
	}
	if c.Lag <= 0 {
		c.Lag = DefaultLag
	}
	if c.Clock == nil {
		c.Clock = Boottime
		c.bounds = newEstimate(Boottime).bounds
	}
	if c.bounds == nil {
		clock := c.Clock
		c.bounds = func() (low, high time.Duration) {
			now := clock()
			return now, now
		}
	}
	if c.Wall == nil {
		c.Wall = wall
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
