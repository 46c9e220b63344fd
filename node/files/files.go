// Package files notices that files have changed: certificates, keys, lists of names.
//
// It owns the looking. It must never read a file: whoever watches does, and decides what a file that can't
// be read means.
package files

import (
	"context"
	"os"
	"slices"
	"time"
)

// Interval is how often files are looked at unless somebody says otherwise. Looking is a system call a file,
// sees what lies behind symbolic links, in mounted volumes and on network file systems, and costs nothing
// that could be measured.
const Interval = 500 * time.Millisecond

// Stamps tell files from those that were there before.
type Stamps []stamp

type stamp struct {
	size     int64
	modified time.Time
	mode     os.FileMode // a file that could not be read may be readable now
	sys      os.FileInfo // nil: it is not there
}

// Look takes the stamps of files as they are now.
func Look(names []string) Stamps {
	out := make(Stamps, len(names))
	for i, f := range names {
		if st, err := os.Stat(f); err == nil {
			out[i] = stamp{st.Size(), st.ModTime(), st.Mode(), st}
		}
	}
	return out
}

// Same tells whether these are the same files, unchanged.
func (s Stamps) Same(other Stamps) bool {
	return slices.EqualFunc(s, other, func(a, b stamp) bool {
		return a.size == b.size && a.mode == b.mode && a.modified.Equal(b.modified) && (a.sys == nil) == (b.sys == nil) && (a.sys == nil || os.SameFile(a.sys, b.sys))
	})
}

// Watch calls changed, on its own goroutine, when the files that names lists differ from loaded and have been
// left alone for an interval: a certificate and its key are two files, and a file is often emptied before it is
// written. Take loaded before the files are read for the first time. It returns when ctx ends.
func Watch(ctx context.Context, interval time.Duration, loaded Stamps, names func() []string, changed func()) {
	if interval <= 0 {
		interval = Interval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	before := loaded
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := Look(names())
		if !now.Same(loaded) && now.Same(before) {
			loaded = now
			changed()
		}
		before = now
	}
}
