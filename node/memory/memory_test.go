package memory

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// restore gives the collector its own limit back.
func restore(t *testing.T) {
	t.Helper()
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
}

func TestHigh(t *testing.T) {
	restore(t)
	var now Usage
	var heard []bool
	w := New(Config{Limit: 1 << 40, Interval: time.Hour, Changed: func(high bool, used, mark uint64) {
		if mark != 3<<38 || used != now.Live {
			t.Errorf("used %d, mark %d", used, mark)
		}
		heard = append(heard, high)
	}, read: func() Usage { return now }})
	if got := debug.SetMemoryLimit(-1); got != 1<<40 {
		t.Errorf("the collector's limit is %d", got)
	}
	mark := uint64(3 << 38)
	for _, step := range []struct {
		live uint64
		high bool
	}{{1, false}, {mark, false}, {mark + 1, true}, {mark - mark/20, true}, {mark - mark/10, false}, {mark, false}} {
		now.Live = step.live
		w.look()
		if high, live := w.High(); high != step.high || live != step.live {
			t.Errorf("%d live: high %v, %d", step.live, high, live)
		}
	}
	if len(heard) != 2 || !heard[0] || heard[1] {
		t.Errorf("heard %v", heard)
	}
}

// TestCollects: who is above the mark and does nothing has the collector look, once in a while.
func TestCollects(t *testing.T) {
	restore(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := New(Config{Limit: 1 << 40, Interval: time.Hour, read: func() Usage { return Usage{Live: 1 << 40} }})
	for range 2 * patientLooks {
		w.look()
	}
	if runtime.ReadMemStats(&after); after.NumForcedGC < before.NumForcedGC+1 {
		t.Error("nothing was collected")
	}
}

func TestLimit(t *testing.T) {
	restore(t)
	if w := New(Config{}); w.Limit() != 0 {
		t.Errorf("a limit of %d that nobody asked for", w.Limit())
	}
	all := atHand()
	if all == 0 {
		t.Fatal("there is no memory at hand")
	}
	if w := New(Config{Percent: 50}); w.Limit() != all/100*50 {
		t.Errorf("half of %d is %d", all, w.Limit())
	}
	debug.SetMemoryLimit(1 << 41)
	if w := New(Config{Percent: 50}); w.Limit() != 1<<41 {
		t.Errorf("GOMEMLIMIT counts for nothing: %d", w.Limit())
	}
	if w := New(Config{Limit: 1 << 40}); w.Limit() != 1<<40 || debug.SetMemoryLimit(-1) != 1<<40 {
		t.Errorf("the key counts for nothing: %d", w.Limit())
	}
	debug.SetMemoryLimit(math.MaxInt64)
}

// TestUsage: what is held is live, what was let go is not.
func TestUsage(t *testing.T) {
	const size = 64 << 20
	runtime.GC()
	before := read()
	held := make([]byte, size)
	runtime.GC()
	with := read()
	runtime.KeepAlive(held)
	runtime.GC()
	after := read()
	if with.Live < before.Live+size || after.Live > with.Live-size/2 || with.Collect <= before.Collect {
		t.Errorf("before %+v, with %+v, after %+v", before, with, after)
	}
}

func TestGroups(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	write("a/memory.max", "3000\n")
	write("a/b/memory.max", "max\n")
	write("memory/v1/memory.limit_in_bytes", "9223372036854771712\n")
	write("memory/memory.limit_in_bytes", "2000\n")
	for _, try := range []struct {
		list string
		want uint64
	}{
		{"0::/a/b\n", 3000},
		{"0::/\n", 0},
		{"0::/../elsewhere\n", 0},
		{"12:cpu:/x\n5:memory:/v1\n", 2000}, // in a container the root is its own group
		{"nonsense", 0},
	} {
		if got := ofGroups(root, write("list", try.list)); got != try.want {
			t.Errorf("%q: %d, want %d", try.list, got, try.want)
		}
	}
	if ofGroups(root, filepath.Join(root, "missing")) != 0 {
		t.Error("a limit out of nothing")
	}
}
