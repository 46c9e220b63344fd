// Package disk watches the room that is left for the data folder, so that a node steps aside
// before its log can no longer be written. It owns the verdict "low"; what follows from it is
// decided by those who ask.
package disk

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Usage of a file system, in bytes.
type Usage struct{ Free, Total uint64 }

// Of reads the usage of the file system that holds path. It may block on a sick disk.
func Of(path string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Usage{}, fmt.Errorf("disk space of %s: %w", path, err)
	}
	size := uint64(st.Bsize)
	return Usage{Free: st.Bavail * size, Total: st.Blocks * size}, nil
}

// Config of a watcher.
type Config struct {
	Path       string
	LowBytes   uint64 // low when less is free; 0: never low
	LowPercent int    // of the disk, where that is less than LowBytes; 0: LowBytes alone counts
	Interval   time.Duration
	// Changed hears of each new verdict; err tells that the space could not be read, which
	// changes no verdict.
	Changed func(low bool, u Usage, err error)

	read func(string) (Usage, error) // for tests
}

// Watcher keeps the latest verdict.
type Watcher struct {
	config Config
	mark   uint64

	mu   sync.Mutex
	low  bool
	last Usage
	err  error
}

// New looks once, so that a node that starts on a full disk never becomes ready.
func New(config Config) *Watcher {
	if config.read == nil {
		config.read = Of
	}
	w := &Watcher{config: config}
	w.look()
	return w
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

// Low is the verdict, with the free bytes and the mark that they are below.
func (w *Watcher) Low() (low bool, free, mark uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.low, w.last.Free, w.mark
}

// Usage is what was last read.
func (w *Watcher) Usage() Usage {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// look takes a tenth more than the mark to call the disk well again: no flapping at the edge.
func (w *Watcher) look() {
	u, err := w.config.read(w.config.Path)
	w.mu.Lock()
	failed := err != nil && w.err == nil
	w.err = err
	changed := false
	if err == nil {
		w.last = u
		w.mark = w.config.LowBytes
		if share := u.Total / 100 * uint64(w.config.LowPercent); share > 0 && share < w.mark {
			w.mark = share
		}
		limit := w.mark
		if w.low {
			limit += limit / 10
		}
		low := u.Free < limit
		changed = low != w.low
		w.low = low
	}
	low := w.low
	w.mu.Unlock()
	if (changed || failed) && w.config.Changed != nil {
		w.config.Changed(low, u, err)
	}
}
