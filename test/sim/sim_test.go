package sim

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// play runs one history.
func play(t *testing.T, seed uint64, verbose bool) (*history, [32]byte) {
	t.Helper()
	h := newHistory(seed, verbose)
	var sum [32]byte
	Test(t, h.options(), func(w *World) {
		h.run(w)
		sum = w.LogHash()
	})
	return h, sum
}

// TestHistories plays random histories and holds each against the promises. TEST_SKEIN_SEED=N, or N-M,
// plays others.
func TestHistories(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that a seed replays exactly
	first, count := uint64(1), uint64(1000)
	if os.Getenv("TEST_SKEIN_HEAVY") != "" {
		count = 20_000
	}
	if s := os.Getenv("TEST_SKEIN_SEED"); s != "" {
		from, to, _ := strings.Cut(s+"-"+s, "-")
		to, _, _ = strings.Cut(to, "-")
		first = number(t, from)
		count = number(t, to) - first + 1
	}
	for seed := first; seed < first+count && !t.Failed(); seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			h, _ := play(t, seed, false)
			if len(h.failed) == 0 {
				return
			}
			again, _ := play(t, seed, true)
			t.Errorf("%s\nonce more: %s\n%s", h.failed[0], strings.Join(again.failed, "\n"), strings.Join(again.lines, "\n"))
		})
	}
}

func number(t *testing.T, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestReplay: the same seed does the same.
func TestReplay(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes the Go scheduler choose at random")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for seed := uint64(1); seed <= 20; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			a, one := play(t, seed, true)
			b, two := play(t, seed, true)
			for i := range min(len(a.lines), len(b.lines)) {
				if a.lines[i] != b.lines[i] {
					t.Fatalf("line %d was %q, is %q", i, a.lines[i], b.lines[i])
				}
			}
			if len(a.lines) != len(b.lines) || one != two {
				t.Fatal("the log differs")
			}
		})
	}
}
