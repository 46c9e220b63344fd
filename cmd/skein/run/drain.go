package run

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// drain takes the node out of service without losing anything, once: at SIGTERM, or when an
// operator orders it. A node that was drained stays so until it is started again.
type drain struct {
	logger *slog.Logger

	// In order: leadership goes, notice passes, clients go, the node's own incarnation ends.
	transfer func(context.Context) error
	clients  func(ctx context.Context, rate func() int) error
	leave    func(context.Context) error
	count    func() int // of the clients that are connected

	mu       sync.Mutex
	rate     int
	pace     int // the rate of the drain that is under way
	timeout  time.Duration
	notice   time.Duration // between not being ready and turning clients away
	patience time.Duration // with one client

	group  sync.WaitGroup
	ended  chan struct{} // nil until it is started
	now    string        // what it does; empty until it is started
	total  int           // as many clients as were ever seen
	failed error
}

// start begins the drain and returns. ctx cuts it short. One that has begun already goes on, at the new rate
// if one is given.
func (d *drain) start(ctx context.Context, rate int, timeout time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if rate > 0 {
		d.pace = rate
	}
	if d.ended != nil {
		return
	}
	if rate <= 0 {
		d.pace = d.rate
	}
	d.total = d.count()
	if timeout <= 0 {
		timeout = d.timeout
	}
	d.ended = make(chan struct{})
	d.now = "handing leadership over"
	ctx, cancel := context.WithTimeout(ctx, timeout)
	d.group.Go(func() {
		defer cancel()
		d.run(ctx)
		close(d.ended)
	})
}

func (d *drain) run(ctx context.Context) {
	d.logger.Info("drain begins", "rate", d.currentPace())
	begin := time.Now()
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	err := d.transfer(short)
	cancel()
	if err != nil {
		// The others elect a leader without our help, only later.
		d.logger.Warn("leadership was not handed over", "error", err)
	}
	if left := d.noticePeriod() - time.Since(begin); left > 0 {
		d.set("not ready; load balancers have yet to notice")
		select {
		case <-ctx.Done():
		case <-time.After(left):
		}
	}
	d.set("clients are leaving")
	err = d.clients(ctx, d.currentPace)
	if err == nil {
		d.set("leaving the cluster's service")
		// Without clients there is nothing that the others must be told soon; without a majority
		// nobody can be told.
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		if lerr := d.leave(short); lerr != nil {
			d.logger.Warn("the others could not be told that this node is drained; they will find out", "error", lerr)
		}
		cancel()
	}
	d.set("drained")
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = err
	if err != nil {
		d.now = "drain failed: " + err.Error()
	}
	d.logger.Info("drain ended", "took", time.Since(begin).Round(time.Millisecond).String(), "clients", d.total, "left", d.count(), "error", err)
}

// adjust changes what a drain goes by.
func (d *drain) adjust(change func(*drain)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *drain) currentPace() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pace
}

func (d *drain) noticePeriod() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.notice
}

func (d *drain) clientPatience() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.patience
}

func (d *drain) set(phase string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = phase
}

// phase is what the drain does, or did last; empty: the node is in service.
func (d *drain) phase() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

// wait returns when the drain has ended; it must have been started.
func (d *drain) wait() error {
	d.group.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// status is for the admin service.
func (d *drain) status() (*adminpb.DrainProgress, error) {
	left := d.count() // those that 'skein get clients' shows, also while some still arrive
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total = max(d.total, left)
	p := &adminpb.DrainProgress{Phase: d.now, Total: uint64(d.total), Left: uint64(left)}
	if d.ended == nil {
		return p, nil
	}
	select {
	case <-d.ended:
		p.Done = d.failed == nil
		return p, d.failed
	default:
		return p, nil
	}
}
