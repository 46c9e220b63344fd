package ring

import (
	"context"
	"errors"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The oldest goes first, and a reader learns how many it has missed.
func TestRead(t *testing.T) {
	r := New[int](3)
	if list, _, missed := r.Read(0); list != nil || missed != 0 || r.Last() != 0 {
		t.Errorf("empty: %v, %d missed", list, missed)
	}
	for i := range 5 {
		r.Add(i + 1)
	}
	for after, want := range map[uint64]struct {
		list          []int
		first, missed uint64
	}{0: {[]int{3, 4, 5}, 3, 2}, 1: {[]int{3, 4, 5}, 3, 1}, 2: {[]int{3, 4, 5}, 3, 0}, 4: {[]int{5}, 5, 0}, 5: {nil, 6, 0}} {
		if list, first, missed := r.Read(after); !slices.Equal(list, want.list) || first != want.first || missed != want.missed {
			t.Errorf("after %d: %v from %d, %d missed", after, list, first, missed)
		}
	}
}

// A watcher gets what is there and what comes, in order, and learns of a gap.
func TestWatch(t *testing.T) {
	r := New[int](2)
	for i := range 3 {
		r.Add(i + 1)
	}
	enough := errors.New("enough")
	got, begun := make(chan []int, 1), make(chan struct{})
	go func() {
		var list []int
		err := r.Watch(context.Background(), 0, func(sequence uint64, v int, missed uint64) error {
			if uint64(v) != sequence || (missed == 1) != (v == 2) {
				t.Errorf("value %d has sequence %d, %d missed before", v, sequence, missed)
			}
			if list = append(list, v); len(list) == 2 {
				close(begun)
			}
			if len(list) == 4 {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Error(err)
		}
		got <- list
	}()
	<-begun
	r.Add(4)
	r.Add(5)
	if list := <-got; !slices.Equal(list, []int{2, 3, 4, 5}) {
		t.Error(list)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Watch(ctx, r.Last(), nil); err != nil {
		t.Error(err)
	}
}
