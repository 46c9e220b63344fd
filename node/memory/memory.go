// Package memory watches how much memory the process holds, so that it can stop taking more before the system ends
// it. It owns the limit, which it also gives to Go's garbage collector, and the verdict "high"; what follows from
// that is decided by those who ask.
package memory

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// Config of a watcher.
type Config struct {
	Limit    uint64 // bytes; 0: Percent of what is at hand
	Percent  int    // of the control group's limit, or of the machine's memory; 0, and no Limit: none
	Interval time.Duration
	// Changed hears of each new verdict.
	Changed func(high bool, used, mark uint64)

	read func() Usage // for tests
}

// Usage is what the process holds.
type Usage struct {
	Live    uint64 // bytes that can't be given back: what the last collection found in use, stacks, and the like
	Collect uint64 // collections so far
}

// Watcher keeps the latest verdict.
type Watcher struct {
	config Config
	limit  uint64
	idle   int // looks without a collection

	mu   sync.Mutex
	high bool
	last Usage
}

// New sets the collector's limit, unless the environment variable GOMEMLIMIT has set one: then that is the limit where
// Config has none.
func New(config Config) *Watcher {
	if config.read == nil {
		config.read = read
	}
	w := &Watcher{config: config, limit: config.Limit}
	set := debug.SetMemoryLimit(-1)
	switch {
	case w.limit == 0 && set != math.MaxInt64:
		w.limit = uint64(set)
	case w.limit == 0:
		w.limit = atHand() / 100 * uint64(config.Percent)
	}
	if w.limit > 0 && w.limit < math.MaxInt64 {
		debug.SetMemoryLimit(int64(w.limit))
	}
	w.look()
	return w
}

// Limit of the process, in bytes; 0: none.
func (w *Watcher) Limit() uint64 { return w.limit }

// mark is what may be live: a quarter is left for garbage and for what is under way.
func (w *Watcher) mark() uint64 { return w.limit - w.limit/4 }

// High is the verdict, with what is live.
func (w *Watcher) High() (high bool, live uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.high, w.last.Live
}

// Run looks at every interval until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTicker(w.config.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.look()
		}
	}
}

// patientLooks are how many looks a verdict of "high" waits for a collection before it asks for one: a process that does
// nothing collects nothing, and would never find that it holds less.
const patientLooks = 20

// look takes a tenth less than the mark to call it well again: no flapping at the edge.
func (w *Watcher) look() {
	u := w.config.read()
	w.mu.Lock()
	mark := w.mark()
	limit := mark
	if w.high {
		limit -= limit / 10
	}
	high := w.limit > 0 && u.Live > limit
	changed := high != w.high
	collected := u.Collect != w.last.Collect
	w.high, w.last = high, u
	w.mu.Unlock()
	if changed && w.config.Changed != nil {
		w.config.Changed(high, u.Live, mark)
	}
	if w.idle++; !high || collected {
		w.idle = 0
	}
	if w.idle >= patientLooks {
		w.idle = 0
		runtime.GC()
	}
}

// read asks the runtime, which stops nothing for it.
func read() Usage {
	const live, objects, cycles = "/gc/heap/live:bytes", "/memory/classes/heap/objects:bytes", "/gc/cycles/total:gc-cycles"
	const total, free, unused, released = "/memory/classes/total:bytes", "/memory/classes/heap/free:bytes", "/memory/classes/heap/unused:bytes", "/memory/classes/heap/released:bytes"
	names := []string{live, cycles, total, objects, free, unused, released}
	samples := make([]metrics.Sample, len(names))
	for i, n := range names {
		samples[i].Name = n
	}
	metrics.Read(samples)
	u := Usage{Live: samples[0].Value.Uint64(), Collect: samples[1].Value.Uint64()}
	rest := samples[2].Value.Uint64() // beside the heap's objects, and what could be given back
	for _, s := range samples[3:] {
		rest -= min(rest, s.Value.Uint64())
	}
	u.Live += rest
	return u
}
