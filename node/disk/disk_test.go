package disk

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestLow(t *testing.T) {
	now := Usage{Free: 1000, Total: 10_000}
	var err error
	var heard []bool
	w := New(Config{
		LowBytes: 500, LowPercent: 2, Interval: time.Hour, // 2 % are 200
		Changed: func(low bool, _ Usage, err error) {
			if err == nil {
				heard = append(heard, low)
			}
		},
		read: func(string) (Usage, error) { return now, err },
	})
	for _, step := range []struct {
		free uint64
		err  error
		low  bool
	}{
		{1000, nil, false},
		{200, nil, false},
		{199, nil, true},
		{210, nil, true}, // not yet a tenth above the mark
		{0, errors.New("sick"), true},
		{220, nil, false},
		{0, errors.New("sick"), false},
	} {
		now.Free, err = step.free, step.err
		w.look()
		if low, _, mark := w.Low(); low != step.low || mark != 200 {
			t.Errorf("%d free, %v: low %v, mark %d", step.free, step.err, low, mark)
		}
	}
	if len(heard) != 2 || !heard[0] || heard[1] {
		t.Errorf("heard %v", heard)
	}
}

func TestLowFromTheStart(t *testing.T) {
	w := New(Config{LowBytes: 500, Interval: time.Hour, read: func(string) (Usage, error) { return Usage{Free: 499, Total: 1000}, nil }})
	if low, free, mark := w.Low(); !low || free != 499 || mark != 500 {
		t.Errorf("%v %d %d", low, free, mark)
	}
}

func TestRun(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	w := New(Config{Path: t.TempDir(), LowBytes: 1, Interval: time.Millisecond})
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
	if low, free, _ := w.Low(); low || free == 0 {
		t.Errorf("%v %d", low, free)
	}
	if _, err := Of("/nonexistent/folder"); err == nil {
		t.Error("no error for a folder that isn't there")
	}
}
