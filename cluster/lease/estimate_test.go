package lease

import (
	"testing"
	"time"
)

// machine is a computer whose clocks a test moves.
type machine struct {
	monotonic, wall, boot time.Duration
	calls                 int
	delay                 time.Duration // of a system call
}

func (m *machine) run(d time.Duration) {
	m.monotonic, m.wall, m.boot = m.monotonic+d, m.wall+d, m.boot+d
}

func (m *machine) suspend(d time.Duration) { m.wall, m.boot = m.wall+d, m.boot+d }

func (m *machine) estimate() *estimate {
	return &estimate{
		exact: func() time.Duration {
			m.calls++
			at := m.boot
			m.run(m.delay)
			return at
		},
		cheap: func() (time.Duration, time.Duration) { return m.monotonic, m.wall },
	}
}

// check reads the clock and tells how many system calls that took.
func (m *machine) check(t *testing.T, e *estimate) int {
	t.Helper()
	before, boot := m.calls, m.boot
	low, high := e.bounds()
	if low > m.boot || high < boot {
		t.Fatalf("%s to %s at %s", low, high, boot)
	}
	if high-low > 3*slack {
		t.Fatalf("%s to %s is too inexact", low, high)
	}
	return m.calls - before
}

func TestEstimate(t *testing.T) {
	m := &machine{monotonic: 5 * time.Second, wall: time.Hour, boot: time.Minute, delay: time.Microsecond}
	e := m.estimate()
	if n := m.check(t, e); n != 1 {
		t.Fatalf("%d calls", n)
	}
	for range 99 { // 99 ms
		m.run(time.Millisecond)
		if n := m.check(t, e); n != 0 {
			t.Fatal("a call while nothing has happened")
		}
	}
	m.run(time.Millisecond)
	if n := m.check(t, e); n != 1 {
		t.Fatal("no call although the last is old")
	}
	for _, step := range []time.Duration{slack, time.Second, 10 * time.Hour} {
		m.suspend(step)
		if n := m.check(t, e); n != 1 {
			t.Errorf("%d calls after %s of sleep", n, step)
		}
		m.wall += step
		if n := m.check(t, e); n != 1 {
			t.Errorf("%d calls after the wall clock was set by %s", n, step)
		}
		m.wall -= 2 * step
		if n := m.check(t, e); n != 1 {
			t.Errorf("%d calls after the wall clock was set back by %s", n, 2*step)
		}
		if n := m.check(t, e); n != 0 {
			t.Errorf("%d calls when nothing had happened", n)
		}
	}
	m.suspend(slack - 1) // is not noticed, and need not be
	if n := m.check(t, e); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// What comes between the readings must not become part of an estimate.
func TestEstimateInterrupted(t *testing.T) {
	m := &machine{delay: slack}
	e := m.estimate()
	for range 3 {
		if n := m.check(t, e); n != 1 {
			t.Fatalf("%d calls", n)
		}
	}
	if e.anchor.Load() != nil {
		t.Error("it relies on an inexact reading")
	}
}

// The system's clocks are what the machine in the tests is.
func TestEstimateBoottime(t *testing.T) {
	e := newEstimate(Boottime)
	for range 1000 {
		before := Boottime()
		low, high := e.bounds()
		if after := Boottime(); low > after || high < before {
			t.Fatalf("%s to %s is not between %s and %s", low, high, before, after)
		}
	}
}

func BenchmarkEstimate(b *testing.B) {
	e := newEstimate(Boottime)
	for b.Loop() {
		e.bounds()
	}
}

func BenchmarkBoottime(b *testing.B) {
	for b.Loop() {
		Boottime()
	}
}
