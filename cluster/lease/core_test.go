package lease

import (
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skein-mqtt/skein/fsm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	duration = 500 * time.Millisecond
	drift    = 100 * time.Millisecond
	lag      = 5 * time.Second
)

// bench is a core with the members that it sees; time is what a test says.
type bench struct {
	*core
	t       *testing.T
	now     time.Duration
	members []fsm.Member
}

func newBench(t *testing.T, committed uint64, members ...fsm.Member) *bench {
	b := &bench{core: newCore(Config{Duration: duration, Drift: drift, Lag: lag}.withDefaults(), 3), t: t, now: time.Hour, members: members}
	b.sync(b.now, members)
	b.start(b.now, committed)
	return b
}

func up(node string, incarnation uint64) fsm.Member {
	return fsm.Member{ID: node, Live: true, Incarnation: incarnation}
}

func ref(node string, incarnation uint64) fsm.NodeRef {
	return fsm.NodeRef{Node: node, Incarnation: incarnation}
}

// pass lets time go by as a leader's does: it looks for verdicts all the while, and a majority answers.
func (b *bench) pass(d time.Duration) (down []fsm.NodeRef) { return b.elapse(d, true) }

func (b *bench) elapse(d time.Duration, answered bool) (down []fsm.NodeRef) {
	for end := b.now + d; b.now < end; {
		b.now = min(end, b.now+duration/10)
		b.sync(b.now, b.members)
		if answered {
			b.prove(b.now)
		}
		for _, r := range b.verdicts(b.now) {
			if !slices.Contains(down, r) {
				down = append(down, r)
			}
		}
	}
	return down
}

// TestUnable: while a leader does not hear from a majority nobody can renew a lease, so that time, but
// for what is usual between two answers, does not count against anybody. A dead node's goes on after.
func TestUnable(t *testing.T) {
	b := newBench(t, 0, up("a", 5), up("b", 6))
	b.granted(ref("a", 5), "")
	b.granted(ref("b", 6), "")
	b.find(ref("b", 6)).condemned = true
	if down := b.elapse(time.Minute, false); !slices.Equal(down, []fsm.NodeRef{ref("b", 6)}) {
		t.Errorf("a leader that was unable condemned %v", down)
	}
	// Half a lease counted, up to the first answer; the rest and the drift are left.
	b.prove(b.now)
	if down := b.pass(duration/2 + drift); !slices.Equal(down, []fsm.NodeRef{ref("b", 6)}) {
		t.Errorf("too early: %v", down)
	}
	if down := b.pass(duration / 10); len(down) != 2 {
		t.Errorf("%v", down)
	}
	// One that is always a little late still comes to a verdict.
	b = newBench(t, 0, up("a", 5))
	for range 20 {
		if down := b.elapse(duration*6/10, false); len(down) > 0 {
			return
		}
		b.prove(b.now)
	}
	t.Error("a leader that is always late never comes to a verdict")
}

func (b *bench) granted(r fsm.NodeRef, want string) {
	b.t.Helper()
	if got := b.grant(b.now, r); got != want {
		b.t.Errorf("%v: %q, want %q", r, got, want)
	}
}

func TestGrant(t *testing.T) {
	b := newBench(t, 100, up("a", 5))
	b.report(ref("a", 5), 100)
	b.granted(ref("a", 5), "")
	b.granted(ref("a", 4), refuseUnknown)
	b.granted(ref("b", 5), refuseUnknown)
	late := newCore(b.cfg, 4)
	late.sync(b.now, b.members)
	if got := late.grant(b.now, ref("a", 5)); got != refuseNotReady {
		t.Errorf("before the barrier: %q", got)
	}
	if down := late.verdicts(b.now + time.Minute); down != nil {
		t.Errorf("a verdict before the barrier: %v", down)
	}
}

// TestVerdict: exactly when no lease of anybody's clock can run any more, and for ever.
func TestVerdict(t *testing.T) {
	b := newBench(t, 0, up("a", 5), up("b", 6))
	for range 10 {
		b.granted(ref("a", 5), "")
		b.granted(ref("b", 6), "")
		if down := b.pass(duration / 3); down != nil {
			t.Fatalf("verdict on %v", down)
		}
	}
	b.granted(ref("a", 5), "")
	b.granted(ref("b", 6), "")
	for left := duration + drift; left > 0; left -= 50 * time.Millisecond {
		if down := b.pass(50 * time.Millisecond); down != nil {
			t.Fatalf("%s too early: %v", left, down)
		}
		b.granted(ref("a", 5), "")
	}
	if down := b.pass(50 * time.Millisecond); !slices.Equal(down, []fsm.NodeRef{ref("b", 6)}) {
		t.Errorf("verdict on %v", down)
	}
	b.granted(ref("b", 6), refuseCondemned)
	if down := b.pass(50 * time.Millisecond); !slices.Equal(down, []fsm.NodeRef{ref("b", 6)}) {
		t.Errorf("the verdict was forgotten, or its entry not repeated: %v", down)
	}
	b.members = []fsm.Member{up("a", 5), {ID: "b", Incarnation: 6}}
	b.granted(ref("a", 5), "")
	if down := b.pass(50 * time.Millisecond); down != nil {
		t.Errorf("it is in the log, but: %v", down)
	}
	b.granted(ref("b", 6), refuseUnknown)
}

// TestVerdictOnOld: an incarnation that was never heard of has its time from the election, and one that
// begins has it from then.
func TestVerdictOnOld(t *testing.T) {
	b := newBench(t, 0, up("old", 1))
	b.pass(300 * time.Millisecond)
	b.members = append(b.members, up("young", 2))
	if down := b.pass(300 * time.Millisecond); down != nil {
		t.Errorf("too early: %v", down)
	}
	if down := b.pass(50 * time.Millisecond); !slices.Equal(down, []fsm.NodeRef{ref("old", 1)}) {
		t.Errorf("%v", down)
	}
	// It was seen 50 ms after it had begun.
	if down := b.pass(350 * time.Millisecond); !slices.Equal(down, []fsm.NodeRef{ref("old", 1), ref("young", 2)}) {
		t.Errorf("%v", down)
	}
}

// TestRefused: what an operator ended is waited out like one that went silent.
func TestRefused(t *testing.T) {
	b := newBench(t, 0, up("a", 5))
	b.granted(ref("a", 5), "")
	b.find(ref("a", 5)).refused = true
	for range 12 {
		b.granted(ref("a", 5), refuseRemoved)
		if down := b.pass(50 * time.Millisecond); down != nil {
			t.Fatalf("its lease may run still: %v", down)
		}
	}
	if down := b.pass(50 * time.Millisecond); len(down) != 1 {
		t.Errorf("%v", down)
	}
}

// TestSlept: a leader that was suspended knows nothing of the others: they get their time anew. What it
// has condemned stays condemned.
func TestSlept(t *testing.T) {
	b := newBench(t, 0, up("a", 5), up("b", 6))
	b.granted(ref("a", 5), "")
	b.granted(ref("b", 6), "")
	b.find(ref("b", 6)).condemned = true
	b.now += time.Hour
	if down := b.verdicts(b.now); !slices.Equal(down, []fsm.NodeRef{ref("b", 6)}) {
		t.Errorf("it woke up and condemned %v", down)
	}
	if down := b.pass(duration + drift); !slices.Equal(down, []fsm.NodeRef{ref("b", 6)}) {
		t.Errorf("too early: %v", down)
	}
	if down := b.pass(50 * time.Millisecond); len(down) != 2 {
		t.Errorf("%v", down)
	}
}

// TestBehind: who has not applied what was committed 5 s ago holds no lease, however the log moved since.
func TestBehind(t *testing.T) {
	b := newBench(t, 100, up("a", 5))
	b.report(ref("a", 5), 90)
	b.granted(ref("a", 5), "") // what was committed before the term began counts from its beginning
	commit := uint64(100)
	advance := func(d time.Duration) {
		for end := b.now + d; b.now < end; b.now += 100 * time.Millisecond {
			commit += 10
			b.committed(b.now, commit)
		}
	}
	advance(4900 * time.Millisecond)
	b.granted(ref("a", 5), "")
	advance(200 * time.Millisecond)
	b.granted(ref("a", 5), refuseBehind)
	b.report(ref("a", 5), 130)
	b.granted(ref("a", 5), "")
	advance(time.Second)
	b.granted(ref("a", 5), refuseBehind)
	b.report(ref("a", 5), 50) // a report that was overtaken takes nothing back
	b.report(ref("a", 5), commit)
	b.granted(ref("a", 5), "")
	if n := len(b.commits); n > 30 {
		t.Errorf("%d marks are kept", n)
	}
	if got := b.settled(b.now, 0); got != b.commits[len(b.commits)-1].index {
		t.Errorf("settled now: %d", got)
	}
}

// TestWatermark: the minimum over all that live, and nothing before each of them was heard.
func TestWatermark(t *testing.T) {
	b := newBench(t, 0, up("a", 5), up("b", 6))
	for _, step := range []struct {
		node string
		inc  uint64
		at   uint64
		want uint64
	}{
		{"a", 5, 10, 0}, // b was not heard in this term
		{"b", 6, 8, 8},
		{"b", 6, 30, 10},
		{"a", 5, 25, 20}, // no further than the leader itself
		{"a", 5, 7, 20},
		{"x", 9, 1, 20}, // not a member
	} {
		b.report(ref(step.node, step.inc), step.at)
		if got := b.watermark(20); got != step.want {
			t.Errorf("after %+v: %d", step, got)
		}
	}
	b.members = append(b.members, up("c", 21))
	b.sync(b.now, b.members)
	if got := b.watermark(22); got != 0 {
		t.Errorf("a new incarnation that was not heard: %d", got)
	}
	b.members = []fsm.Member{up("a", 5), {ID: "b", Incarnation: 6}, {ID: "c", Incarnation: 21}}
	b.sync(b.now, b.members)
	if got := b.watermark(40); got != 25 {
		t.Errorf("only a is left: %d", got)
	}
	b.sync(b.now, nil)
	if got := b.watermark(40); got != 40 {
		t.Errorf("nobody is left: %d", got)
	}
}

// TestBase: a new leader goes on where the last one would be, whether that was a little behind or ahead, but not
// for ever with a clock that was set wrong.
func TestBase(t *testing.T) {
	for _, c := range []struct{ reached, told, median, want int64 }{
		{0, 0, 50_000, 50_000},           // the first of all
		{60_000, 0, 50_000, 60_000},      // the log never goes back
		{40_000, 49_200, 50_000, 49_200}, // the last one's clock was late: its timers must not be early
		{40_000, 50_700, 50_000, 50_700},
		{49_500, 49_200, 50_000, 49_500},
		{1000, 2000, 3_600_000, 3_600_000}, // an hour behind: set anew
		{1000, 3_600_000, 2000, 3_600_000},
	} {
		if got := base(c.reached, c.told, c.median); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// TestMedian: one wrong clock moves nothing, and a minority of clocks is not enough.
func TestMedian(t *testing.T) {
	b := newBench(t, 0)
	voters := []string{"a", "b", "c", "d", "e"}
	for _, step := range []struct {
		node string
		wall int64
		want int64 // 0: not known
	}{
		{"a", 1000, 0},
		{"x", 1, 0}, // no voter
		{"b", 1010, 0},
		{"c", 9_000_000, 1010},
		{"d", 1020, 1010}, // the lower one of two in the middle
		{"e", 5, 1010},
		{"a", 3000, 1020},
		{"d", 900, 1020}, // a message that took longer
	} {
		b.clock(b.now, step.node, step.wall)
		got, ok := b.median(b.now, voters)
		if ok != (step.want != 0) || got != step.want {
			t.Errorf("after %+v: %d %t", step, got, ok)
		}
	}
	if got, _ := b.median(b.now+time.Second, voters); got != 2020 {
		t.Errorf("a second later: %d", got)
	}
	if _, ok := b.median(b.now, nil); ok {
		t.Error("of nobody")
	}
	if got, ok := b.median(b.now, []string{"c"}); !ok || got != 9_000_000 {
		t.Errorf("alone: %d", got)
	}
}
