package auth

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// failures counts failed logins by address and listener, and keeps an address with too many out of
// that listener for a while. The table is this node's own and bounded.
type failures struct {
	cfg *Config
	now func() time.Time
	mu  sync.Mutex
	by  map[failKey]*failed
}

// failKey groups the addresses of one IPv6 network: whoever has one has all.
type failKey struct {
	network  netip.Prefix
	listener string
}

type failed struct {
	count int
	since time.Time // the window's begin
	until time.Time // kept out until
}

// failuresLimit bounds the table. When it is full of addresses that count, others are not counted.
const failuresLimit = 100_000

func (f *failures) init(cfg *Config) { f.cfg, f.now, f.by = cfg, time.Now, make(map[failKey]*failed) }

func (f *failures) key(a *Attempt) (k failKey, ok bool) {
	if f.cfg.MaxFailures <= 0 || !a.Remote.IsValid() {
		return k, false
	}
	ip := a.Remote.Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	return failKey{p, a.Listener}, err == nil
}

// tooMany tells whether the address is kept out.
func (f *failures) tooMany(a *Attempt) bool {
	k, ok := f.key(a)
	if !ok {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.by[k]
	return e != nil && f.now().Before(e.until)
}

// count notes a failure and tells whether it was one too many.
func (f *failures) count(a *Attempt) bool {
	k, ok := f.key(a)
	if !ok {
		return false
	}
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.by[k]
	if e == nil {
		if len(f.by) >= failuresLimit {
			f.purge(now)
		}
		if len(f.by) >= failuresLimit {
			return false
		}
		e = &failed{since: now}
		f.by[k] = e
	}
	if now.Sub(e.since) > f.cfg.FailureWindow {
		e.count, e.since = 0, now
	}
	e.count++
	if e.count < f.cfg.MaxFailures || now.Before(e.until) {
		return false
	}
	e.count, e.until = 0, now.Add(f.cfg.BanTime)
	return true
}

// forgive takes one failure back: many clients may share an address, and some of them may be wrong.
func (f *failures) forgive(a *Attempt) {
	k, ok := f.key(a)
	if !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.by[k]; e != nil && e.count > 0 {
		e.count--
	}
}

func (f *failures) purge(now time.Time) {
	for k, e := range f.by {
		if now.Sub(e.since) > f.cfg.FailureWindow && !now.Before(e.until) {
			delete(f.by, k)
		}
	}
}

// keptOut is how many addresses are kept out now.
func (f *failures) keptOut() (n int) {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.by {
		if now.Before(e.until) {
			n++
		}
	}
	return n
}

// counts are what has become of attempts since the node started.
type counts struct {
	failed, banned, bansMade atomic.Uint64
	methods                  []methodCounts
	scram                    methodCounts
}

type methodCounts struct {
	name string
	of   [deny + 1]atomic.Uint64
}

// Stats are the counters of logins.
type Stats struct {
	Failed  uint64 // refused, for whatever reason but a ban
	Banned  uint64 // refused because of a ban, the cluster's or this node's
	KeptOut uint64 // how often an address was kept out for too many failures
	Now     int    // addresses that are kept out now
	Methods []MethodStats
}

// MethodStats are the verdicts of one method.
type MethodStats struct {
	Name                    string
	Passed, Allowed, Denied uint64
}

// Stats reads the counters.
func (r *Rules) Stats() Stats {
	s := Stats{Failed: r.counts.failed.Load(), Banned: r.counts.banned.Load(), KeptOut: r.counts.bansMade.Load(), Now: r.failures.keptOut()}
	for i := range r.counts.methods {
		m := &r.counts.methods[i]
		s.Methods = append(s.Methods, MethodStats{m.name, m.of[pass].Load(), m.of[allow].Load(), m.of[deny].Load()})
	}
	m := &r.counts.scram
	s.Methods = append(s.Methods, MethodStats{"scram", m.of[pass].Load(), m.of[allow].Load(), m.of[deny].Load()})
	return s
}
