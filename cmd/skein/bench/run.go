package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// run is one measurement.
type run struct {
	cfg         Config
	name        string // unique: topics and client ids begin with it
	publishers  []*publisher
	subscribers []*subscriber
	pools       []pool // shared: by publisher
	pace        pace

	publishing atomic.Bool // messages may leave
	recording  atomic.Bool // latencies count

	once   sync.Once
	broken chan struct{} // closed when a connection has ended by itself
	err    error         // why
}

// Run does what cfg says. A result comes with an error, too, when there is anything to report.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if !cfg.Mode.publishes() {
		return storm(ctx, cfg)
	}
	cfg.KeepAlive = 0 // who waits for a message sends nothing
	r := &run{cfg: cfg, name: runName(), broken: make(chan struct{})}
	defer r.close()
	if err := r.open(); err != nil {
		return nil, err
	}
	if cfg.Mode.stores() {
		return r.stored(ctx)
	}
	return r.measure(ctx)
}

// runName is unlike that of any other run.
func runName() string {
	var b [4]byte
	rand.Read(b[:])
	return "bench-" + hex.EncodeToString(b[:])
}

// fail notes that a connection has ended.
func (r *run) fail(err error) {
	r.once.Do(func() {
		r.err = err
		close(r.broken)
	})
}

// open connects everybody, subscribers first.
func (r *run) open() error {
	cfg := &r.cfg
	pubs, subs := cfg.publishers(), cfg.subscribers()
	if cfg.Mode == Shared {
		r.pools = make([]pool, pubs)
	}
	for i := range subs {
		s := &subscriber{run: r}
		s.id, s.role, s.broken = fmt.Sprintf("%s-s%d", r.name, i), s, r.fail
		n := pubs
		if subs > 1 && cfg.Mode != Shared && cfg.Mode != FanOut {
			s.first, n = uint32(i), 1
		}
		s.streams, s.counts = make([]stream, n), make([]uint32, n)
		r.subscribers = append(r.subscribers, s)
	}
	for i := range pubs {
		p := &publisher{run: r, number: uint32(i), fan: uint64(cfg.fan()), limit: ^uint64(0)}
		p.id, p.role, p.broken = fmt.Sprintf("%s-p%d", r.name, i), p, r.fail
		if cfg.Count > 0 {
			p.limit = uint64((cfg.Count + pubs - 1 - i) / pubs)
		}
		r.publishers = append(r.publishers, p)
	}
	if cfg.Mode != Retained {
		if err := r.subscribeAll(); err != nil {
			return err
		}
	}
	return each(pubs, 50, func(i int) error {
		p := r.publishers[i]
		if err := p.dial(cfg.PubAddrs[i%len(cfg.PubAddrs)], cfg, cfg.PersistentPublishers); err != nil {
			return err
		}
		p.conn.Lock()
		defer p.conn.Unlock()
		p.prepare(r.topic(i))
		return nil
	})
}

func (r *run) subscribeAll() error {
	cfg := &r.cfg
	return each(len(r.subscribers), 50, func(i int) error {
		s := r.subscribers[i]
		err := s.dial(cfg.SubAddrs[i%len(cfg.SubAddrs)], cfg, cfg.Persistent)
		switch {
		case err != nil:
		case cfg.Mode == Wildcard:
			err = s.subscribeMany(r.topic(i), cfg.perPublisher())
		default:
			err = s.subscribe(cfg.QoS, r.filter(i))
		}
		if err == nil && cfg.Mode == Replay {
			s.close()
		}
		return err
	})
}

func (r *run) topic(publisher int) string { return fmt.Sprintf("%s/%d", r.name, publisher) }

func (r *run) filter(subscriber int) string {
	switch r.cfg.Mode {
	case FanIn:
		return r.name + "/+"
	case Retained:
		return r.name + "/#"
	case FanOut:
		return r.topic(0)
	case Shared:
		return "$share/" + r.name + "/" + r.name + "/+"
	}
	return r.topic(subscriber)
}

// each runs fn for all numbers below n, some at a time, until one fails.
func each(n, atOnce int, fn func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var group sync.WaitGroup
	for range min(n, atOnce) {
		group.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := fn(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// measure lets messages flow and reads the figures.
func (r *run) measure(ctx context.Context) (*Result, error) {
	cfg := &r.cfg
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	warmup := cfg.Warmup
	if cfg.Count > 0 { // all of it counts
		warmup = 0
	}
	before, err := look(cfg.PIDs)
	if err != nil {
		return nil, err
	}
	r.recording.Store(warmup == 0)
	r.begin(ctx, &group)
	group.Go(func() { r.unstick(ctx) })
	start := uint64(0)
	if warmup > 0 {
		err = r.wait(ctx, warmup, nil)
		var lookErr error
		if before, lookErr = look(cfg.PIDs); lookErr != nil {
			return nil, lookErr
		}
		start = r.received()
		r.recording.Store(true)
	}
	if err == nil {
		until := cfg.Duration
		if cfg.Count > 0 {
			until = 0
		}
		err = r.progress(ctx, until)
	}
	last := time.Now()
	if err == nil && cfg.Count > 0 {
		last, err = r.settle(ctx)
	}
	after, lookErr := look(cfg.PIDs)
	after.at = last
	end := r.received()
	r.recording.Store(false)
	if cfg.Count == 0 {
		for _, p := range r.publishers {
			p.stop()
		}
		if err == nil {
			_, err = r.settle(ctx)
		}
	}
	cancel()
	group.Wait()
	r.finish()
	res := r.result()
	res.Delivered = end - start
	if lookErr == nil {
		res.take(&after, &before, cfg.PIDs)
	}
	return res, errors.Join(err, lookErr)
}

// begin lets messages leave.
func (r *run) begin(ctx context.Context, group *sync.WaitGroup) {
	cfg := &r.cfg
	r.pace = pace{begin: now(), rate: cfg.Rate, n: len(r.publishers)}
	r.publishing.Store(true)
	if cfg.Rate > 0 {
		group.Go(func() { r.pace.run(ctx, r.publishers) })
		return
	}
	ba := conn.NewBatch()
	for _, p := range r.publishers {
		p.pump(now(), ba)
		ba.Flush()
	}
}

// wait waits that long, or until over says so: looked at a few times a second.
func (r *run) wait(ctx context.Context, d time.Duration, over func() bool) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := timer.C
	if over != nil {
		if d == 0 {
			end = nil
		}
	} else {
		tick.Stop()
	}
	for {
		select {
		case <-end:
			return nil
		case <-r.broken:
			return r.err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if over() {
				return nil
			}
		}
	}
}

// progress waits for the end of the run, at 0 for the last message, and says how far it is.
func (r *run) progress(ctx context.Context, d time.Duration) error {
	begin, step := time.Now(), r.cfg.Progress
	if step <= 0 {
		step = 1 << 60
	}
	last := r.received()
	for {
		left := step
		if d > 0 {
			left = min(step, d-time.Since(begin))
			if left <= 0 {
				return nil
			}
		}
		if err := r.wait(ctx, left, r.complete); err != nil {
			return err
		}
		if d == 0 && r.complete() || d > 0 && time.Since(begin) >= d {
			return nil
		}
		at := r.received()
		fmt.Fprintf(r.cfg.Log, "%4.0f s: %.0f deliveries/s, %d under way\n", time.Since(begin).Seconds(), float64(at-last)/left.Seconds(), r.expected()-min(at, r.expected()))
		last = at
	}
}

// complete tells, when there is a count, whether all of it has been sent.
func (r *run) complete() bool {
	if r.cfg.Count == 0 {
		return false
	}
	for _, p := range r.publishers {
		if p.sent.Load() < p.limit {
			return false
		}
	}
	return true
}

// settle waits for what is under way, as long as some of it comes, and tells when the last came.
func (r *run) settle(ctx context.Context) (last time.Time, err error) {
	n := r.received()
	last = time.Now()
	for r.received() < r.expected() || r.unacked() {
		if err := r.wait(ctx, 2*time.Millisecond, nil); err != nil {
			return last, err
		}
		if at := r.received(); at != n {
			n, last = at, time.Now()
		}
		if time.Since(last) > r.cfg.Drain {
			break
		}
	}
	return last, nil
}

func (r *run) unacked() bool {
	for _, p := range r.publishers {
		if p.unacked.Load() > 0 {
			return true
		}
	}
	return false
}

// patience is how long a window may stand still before what is missing is taken for lost.
const patience = 2 * time.Second

// unstick opens the windows of publishers whose messages do not arrive, until ctx ends.
func (r *run) unstick(ctx context.Context) {
	tick := time.NewTicker(patience / 4)
	defer tick.Stop()
	type state struct {
		delivered uint64
		since     time.Time
	}
	states := make([]state, len(r.publishers))
	ba := conn.NewBatch()
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-tick.C:
			for i, p := range r.publishers {
				s := &states[i]
				if d := p.delivered.Load(); d != s.delivered || s.since.IsZero() {
					*s = state{d, at}
				}
				sent := p.sent.Load() * p.fan
				if waits := sent - min(sent, s.delivered); waits > 0 && at.Sub(s.since) > patience && p.unacked.Load() == 0 {
					p.forgiven.Store(waits)
					p.pump(now(), ba)
				}
			}
			ba.Flush()
		}
	}
}

func (r *run) received() (n uint64) {
	for _, s := range r.subscribers {
		n += s.received.Load()
	}
	return n
}

func (r *run) expected() (n uint64) {
	for _, p := range r.publishers {
		n += p.sent.Load() * p.fan
	}
	return n
}

// finish ends the connections: nothing changes any more.
func (r *run) finish() {
	r.publishing.Store(false)
	var clients []*client
	for _, p := range r.publishers {
		clients = append(clients, &p.client)
	}
	for _, s := range r.subscribers {
		clients = append(clients, &s.client)
	}
	_ = each(len(clients), 50, func(i int) error { clients[i].close(); return nil })
}

// result is called after finish.
func (r *run) result() *Result {
	cfg := &r.cfg
	res := &Result{
		Mode: cfg.Mode, Version: versionName(cfg.Version), QoS: cfg.QoS, Persistent: cfg.Persistent,
		Publishers: len(r.publishers), Subscribers: len(r.subscribers), Payload: cfg.Payload, Window: cfg.Window, Rate: cfg.Rate,
		Expected: r.expected(), Received: r.received(),
	}
	var h histogram
	for _, s := range r.subscribers {
		h.merge(&s.latencies)
		res.Repeated += s.repeated.Load()
		res.Reordered += s.reordered.Load()
		for i := range s.streams {
			if r.pools == nil {
				res.Lost += s.streams[i].lost(r.publishers[s.first+uint32(i)].sent.Load())
			}
		}
	}
	for i, p := range r.publishers {
		res.Sent += p.sent.Load()
		res.Refused += p.refused
		res.Unacked += uint64(p.unacked.Load())
		if r.pools != nil {
			res.Lost += p.sent.Load() - min(p.sent.Load(), r.pools[i].n)
		}
	}
	res.Latency = h.latency()
	return res
}

// versionName is the protocol's version as people write it.
func versionName(v mqtt.Version) string {
	switch v {
	case mqtt.V5:
		return "5"
	case mqtt.V31:
		return "3.1"
	}
	return "3.1.1"
}

// close leaves nothing behind: neither connections nor sessions.
func (r *run) close() {
	r.finish()
	if r.cfg.Mode == Retained {
		r.forget()
	}
	if !r.cfg.Persistent && !r.cfg.PersistentPublishers {
		return
	}
	clean := r.cfg
	var clients []client
	var addrs []string
	for i, s := range r.subscribers {
		clients, addrs = append(clients, client{id: s.id}), append(addrs, clean.SubAddrs[i%len(clean.SubAddrs)])
	}
	for i, p := range r.publishers {
		clients, addrs = append(clients, client{id: p.id}), append(addrs, clean.PubAddrs[i%len(clean.PubAddrs)])
	}
	_ = each(len(clients), 50, func(i int) error {
		err := clients[i].dial(addrs[i], &clean, false)
		clients[i].close()
		return err
	})
}
