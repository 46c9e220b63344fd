package run

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skein-mqtt/skein/node/httpd"
)

func newDrain(clients func(context.Context, func() int) error, order *[]string) *drain {
	return &drain{
		rate: 7, timeout: time.Minute, logger: slog.New(slog.DiscardHandler),
		transfer: func(context.Context) error {
			*order = append(*order, "transfer")
			return errors.New("not the leader")
		},
		clients: clients, count: func() int { return 0 },
		leave: func(context.Context) error {
			*order = append(*order, "leave")
			return nil
		},
	}
}

func TestDrain(t *testing.T) {
	var order []string
	step := make(chan struct{})
	var there atomic.Int64
	there.Store(4)
	d := newDrain(func(_ context.Context, rate func() int) error {
		if r := rate(); r != 7 {
			t.Errorf("rate %d", r)
		}
		there.Store(5) // one was just arriving
		step <- struct{}{}
		<-step
		there.Store(3)
		step <- struct{}{}
		<-step
		if r := rate(); r != 50 {
			t.Errorf("rate %d after it was changed", r)
		}
		there.Store(0)
		order = append(order, "clients")
		return nil
	}, &order)
	d.count = func() int { return int(there.Load()) }
	h := &health{
		drain: d, inService: func() bool { return true }, grace: 3 * time.Second, quarantined: func() string { return "" },
		cordoned: func() bool { return false },
		lease:    func() (bool, time.Duration) { return true, 0 }, low: func() (bool, uint64, uint64) { return true, 1 << 20, 2 << 20 },
	}
	if s, reason := h.Ready(); s != httpd.NotReady || !strings.Contains(reason, "1 MiB free, less than 2 MiB") {
		t.Errorf("%v %s", s, reason)
	}
	if p, err := d.status(); err != nil || p.Done {
		t.Errorf("%v %v", p, err)
	}
	for range 2 {
		d.start(t.Context(), 0, 0)
	}
	<-step
	if p, err := d.status(); err != nil || p.Total != 5 || p.Left != 5 {
		t.Errorf("%v %v", p, err)
	}
	step <- struct{}{}
	<-step
	d.start(t.Context(), 50, 0)
	if p, err := d.status(); err != nil || p.Done || p.Total != 5 || p.Left != 3 || p.Phase != "clients are leaving" {
		t.Errorf("%v %v", p, err)
	}
	if s, reason := h.Ready(); s != httpd.Draining || reason != "clients are leaving" {
		t.Errorf("%v %s", s, reason)
	}
	step <- struct{}{}
	if err := d.wait(); err != nil {
		t.Error(err)
	}
	if p, err := d.status(); err != nil || !p.Done || p.Left != 0 {
		t.Errorf("%v %v", p, err)
	}
	if s, _ := h.Ready(); s != httpd.Draining {
		t.Errorf("%v after the drain", s)
	}
	if strings.Join(order, " ") != "transfer clients leave" {
		t.Errorf("%v", order)
	}
}

// Load balancers hear that a node is not ready before its clients are turned away.
func TestDrainNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		var asked atomic.Bool
		d := newDrain(func(context.Context, func() int) error {
			asked.Store(true)
			order = append(order, "clients")
			return nil
		}, &order)
		d.notice = 2 * time.Second
		h := &health{drain: d, quarantined: func() string { return "" }, inService: func() bool { return true }, low: func() (bool, uint64, uint64) { return false, 0, 0 }}
		d.start(t.Context(), 0, 0)
		time.Sleep(d.notice - time.Millisecond) // of the bubble's clock
		synctest.Wait()
		if s, reason := h.Ready(); s != httpd.Draining || asked.Load() {
			t.Errorf("before the notice is over: %v, %s; clients were asked to leave: %v", s, reason, asked.Load())
		}
		if err := d.wait(); err != nil || strings.Join(order, " ") != "transfer clients leave" {
			t.Errorf("%v, %v", err, order)
		}
	})
}

func TestDrainCutShort(t *testing.T) {
	var order []string
	d := newDrain(func(ctx context.Context, _ func() int) error {
		<-ctx.Done()
		return ctx.Err()
	}, &order)
	d.start(t.Context(), 1, time.Millisecond)
	if err := d.wait(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := d.status(); err == nil {
		t.Error("no error")
	}
	if strings.Contains(strings.Join(order, " "), "leave") {
		t.Error("it left although clients were there")
	}
}

func TestReady(t *testing.T) {
	held := false
	h := &health{cordoned: func() bool { return held }, drain: &drain{}, quarantined: func() string { return "" }, grace: 3 * time.Second, low: func() (bool, uint64, uint64) { return false, 0, 0 }}
	for _, test := range []struct {
		serving, leased bool
		lost            time.Duration
		want            httpd.State
		reason          string
	}{
		{false, false, 0, httpd.NotReady, "waits to be taken into service"},
		{true, true, 0, httpd.Ready, ""},
		{true, false, time.Second, httpd.Ready, "within the grace period of 3s"},
		{true, false, 4 * time.Second, httpd.NotReady, "no lease for 4s"},
	} {
		h.inService = func() bool { return test.serving }
		h.lease = func() (bool, time.Duration) { return test.leased, test.lost }
		if s, reason := h.Ready(); s != test.want || !strings.Contains(reason, test.reason) {
			t.Errorf("%+v: %v %q", test, s, reason)
		}
	}
	held = true
	if s, _ := h.Ready(); s != httpd.NotReady {
		t.Errorf("cordoned and without a lease: %v", s)
	}
	h.lease = func() (bool, time.Duration) { return true, 0 }
	if s, reason := h.Ready(); s != httpd.Cordoned || reason == "" {
		t.Errorf("cordoned: %v %q", s, reason)
	}
}
