package main

import (
	"testing"
	"time"
)

// TestAudit: each fault that a run may have is found, by its name.
func TestAudit(t *testing.T) {
	say := func(l *ledger, conv, seq, n int, readers ...string) {
		for _, r := range readers {
			l.arrived(r, message{Conv: conv, Seq: seq, From: "u", N: n})
		}
	}
	for _, test := range []struct {
		name                           string
		play                           func(l *ledger)
		lost, doubled, disordered, gap int
	}{
		{"all well", func(l *ledger) { say(l, 1, 1, 1, "u", "a"); say(l, 1, 2, 2, "u", "a") }, 0, 0, 0, 0},
		{"one is not heard", func(l *ledger) { say(l, 1, 1, 1, "u", "a"); say(l, 1, 2, 2, "u") }, 1, 0, 0, 0},
		{"one is twice in the transcript", func(l *ledger) { say(l, 1, 1, 1, "u", "a"); say(l, 1, 2, 2, "u", "a"); say(l, 1, 3, 2, "a") }, 0, 1, 0, 0},
		{"the second comes first", func(l *ledger) { say(l, 1, 1, 2, "u", "a"); say(l, 1, 2, 1, "u", "a") }, 0, 0, 2, 0},
		{"a number is missing", func(l *ledger) { say(l, 1, 1, 1, "u", "a"); say(l, 1, 3, 2, "u", "a") }, 0, 0, 0, 2},
	} {
		l := newLedger()
		l.sent("u", 1)
		l.sent("u", 2)
		test.play(l)
		lost, doubled, disordered, gaps := l.audit()
		if lost != test.lost || doubled != test.doubled || disordered != test.disordered || gaps != test.gap {
			t.Errorf("%s: %d lost, %d doubled, %d out of order, %d gaps", test.name, lost, doubled, disordered, gaps)
		}
	}
	l := newLedger()
	l.expectPresence("u", true)
	if who := l.misplaced(time.Hour); len(who) != 0 {
		t.Error("misplaced before the time is over:", who)
	}
	if who := l.misplaced(0); len(who) != 1 {
		t.Error("not misplaced although nobody saw u come")
	}
	l.observePresence("u", true)
	if who := l.misplaced(0); len(who) != 0 {
		t.Error("misplaced although seen:", who)
	}
}
