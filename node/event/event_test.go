package event

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func all(*Event) bool { return true }

func TestLast(t *testing.T) {
	l := New(4)
	for i := range 6 {
		l.Add(Event{Kind: Connected, Client: fmt.Sprint("c", i%2), Message: fmt.Sprint(i)})
	}
	texts := func(limit int, fn func(*Event) bool) (out []string) {
		for _, e := range l.Last(limit, fn) {
			out = append(out, fmt.Sprintf("%d %s %s", e.Sequence, e.Client, e.Message))
		}
		return out
	}
	if got, want := texts(9, all), []string{"3 c0 2", "4 c1 3", "5 c0 4", "6 c1 5"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got, want := texts(1, func(e *Event) bool { return e.Client == "c0" }), []string{"5 c0 4"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if l.Since(0) != 2 || l.Since(time.Now().UnixMilli()+1000) != 6 || l.Now() != 6 {
		t.Errorf("since the beginning %d, since now %d, now %d", l.Since(0), l.Since(time.Now().UnixMilli()+1000), l.Now())
	}
}

// The first drop is told at once, those that follow within the window as one; none is lost on the way.
func TestDropsAreGathered(t *testing.T) {
	l := New(100)
	l.Drop("a", "queue_full", 1)
	for range 10 {
		l.Drop("a", "queue_full", 2)
	}
	l.Drop("a", "expired", 1)
	l.gather()
	l.gather() // an empty window closes
	l.Drop("a", "queue_full", 7)
	l.Often(Refused, "b", "not authorized")
	sums := map[string]uint64{}
	events := l.Last(100, all)
	for _, e := range events {
		sums[e.Client+" "+e.Reason] += e.Count
	}
	if sums["a queue_full"] != 28 || sums["a expired"] != 1 || sums["b not authorized"] != 1 || len(events) != 5 {
		t.Errorf("%v in %d events", sums, len(events))
	}
}

// However many clients lose messages, the log holds a bounded number of them, and the sum is right.
func TestDropsAreBounded(t *testing.T) {
	l := New(3 * openKeys)
	for i := range openKeys + 50 {
		l.Drop(fmt.Sprint("c", i), "offline", 1)
	}
	if n := len(l.open); n > openKeys+1 {
		t.Errorf("%d keys", n)
	}
	l.gather()
	var sum, nobody uint64
	for _, e := range l.Last(3*openKeys, all) {
		sum += e.Count
		if e.Client == "" {
			nobody += e.Count
		}
	}
	if sum != openKeys+50 || nobody != 50 {
		t.Errorf("%d counted, %d without a client", sum, nobody)
	}
}

func TestWatch(t *testing.T) {
	l := New(4)
	l.Add(Event{Message: "0"})
	l.Add(Event{Message: "1"})
	enough := errors.New("enough")
	err := l.Watch(t.Context(), 1, func(e *Event, missed uint64) error {
		if e.Message != "1" || e.Sequence != 2 || missed != 0 {
			t.Errorf("%+v", e)
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

func TestNobodyListens(t *testing.T) {
	var none *Log
	none.Add(Event{})
	none.Drop("a", "b", 1)
	none.Often(Refused, "a", "b")
	if none.Last(1, all) != nil || none.Now() != 0 || none.Since(1) != 0 {
		t.Error("a nil log holds something")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := none.Watch(ctx, 0, nil); err != nil {
		t.Error(err)
	}
	New(1).Run(ctx)
}
