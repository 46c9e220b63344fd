package listener

import (
	"os"
	"slices"
	"time"
)

// lookInterval is how often files are looked at. Looking is a system call a file, sees what lies behind
// symbolic links, in mounted volumes and on network file systems, and costs nothing that could be
// measured.
const lookInterval = 500 * time.Millisecond

// stamp tells a file from the one that was there before.
type stamp struct {
	size     int64
	modified time.Time
	mode     os.FileMode // a file that could not be read may be readable now
	sys      os.FileInfo
}

func stamps(files []string) []stamp {
	out := make([]stamp, len(files))
	for i, f := range files {
		if st, err := os.Stat(f); err == nil {
			out[i] = stamp{st.Size(), st.ModTime(), st.Mode(), st}
		}
	}
	return out
}

func same(a, b []stamp) bool {
	return slices.EqualFunc(a, b, func(a, b stamp) bool {
		return a.size == b.size && a.mode == b.mode && a.modified.Equal(b.modified) && (a.sys == nil) == (b.sys == nil) && (a.sys == nil || os.SameFile(a.sys, b.sys))
	})
}

// watch reads the guard's files again when they have changed and been left alone for an interval: a
// certificate and its key are two files, and a file is often emptied before it is written. It ends with
// the listener.
func (l *Listener) watch(loaded []stamp) {
	tick := time.NewTicker(l.config.look)
	defer tick.Stop()
	before := loaded
	for {
		select {
		case <-l.stopped:
			return
		case <-tick.C:
		}
		now := stamps(l.guard.files())
		if !same(now, loaded) && same(now, before) {
			loaded = now
			l.Reload()
		}
		before = now
	}
}

// Reload reads certificates and keys again, for connections to come. Those that can't be read leave the
// ones before in force, with an error in the log.
func (l *Listener) Reload() {
	if l.guard == nil {
		return
	}
	if err := l.guard.load(); err != nil {
		l.config.Logger.Error("the listener keeps the certificates and keys that it has", "listener", l.config.Spec.URL, "error", err)
		return
	}
	l.config.Logger.Info("certificates and keys were read again", "listener", l.config.Spec.URL)
}
