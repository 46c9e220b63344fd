package auth

import (
	"context"
	"runtime"
	"sync"
)

// hashing bounds how many hashes are computed at a time for one listener: each takes a processor, and
// up to 19 MiB, for a while. What strangers try on one listener leaves room for the others.
type hashing struct {
	mu    sync.Mutex
	slots map[string]chan struct{} // by listener
}

// run computes something, or returns false when ctx ends before its turn.
func (h *hashing) run(ctx context.Context, listener string, fn func()) bool {
	h.mu.Lock()
	if h.slots == nil {
		h.slots = make(map[string]chan struct{})
	}
	c := h.slots[listener]
	if c == nil {
		c = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))
		h.slots[listener] = c
	}
	h.mu.Unlock()
	select {
	case c <- struct{}{}:
		defer func() { <-c }()
		fn()
		return true
	case <-ctx.Done():
		return false
	}
}

// fileMethod is auth.password_file.
type fileMethod struct{ r *Rules }

func (m fileMethod) asks() bool { return m.r.users.Load() != nil }

func (m fileMethod) judge(ctx context.Context, a *Attempt) verdict {
	u := m.r.users.Load()
	if u == nil || !a.named() {
		return verdict{}
	}
	known, right := u.Has(a.Username), false
	if !m.r.hashing.run(ctx, a.Listener, func() { right = u.Check(a.Username, a.Password) }) {
		return verdict{outcome: deny}
	}
	switch {
	case right:
		return verdict{outcome: allow}
	case known:
		return verdict{outcome: deny}
	}
	return verdict{}
}

func (m fileMethod) waste(ctx context.Context, a *Attempt) {
	if u := m.r.users.Load(); u != nil && a.named() {
		m.r.hashing.run(ctx, a.Listener, func() { u.decoy.Matches(a.Password) })
	}
}

// usersMethod are the users of the replicated state.
type usersMethod struct{ r *Rules }

func (m usersMethod) asks() bool { return m.r.cfg.State != nil && m.r.cfg.State.HasUsers() }

// decoy is what a user is compared with who does not exist.
var decoy = sync.OnceValue(func() Hash {
	h, err := ParseHash(NewHash([]byte("nobody")))
	if err != nil {
		panic(err) // it is what NewHash makes
	}
	return h
})

func (m usersMethod) judge(ctx context.Context, a *Attempt) verdict {
	if !m.asks() || !a.named() {
		return verdict{}
	}
	u := m.r.cfg.State.User(a.Username)
	if u == nil || u.Password == "" {
		m.waste(ctx, a)
		return verdict{}
	}
	h, err := ParseHash(u.Password)
	if err != nil { // of a newer version, perhaps
		m.r.cfg.Logger.Error("a user's password hash can't be read", "user", a.Username, "error", err)
		h = decoy()
	}
	right := false
	m.r.hashing.run(ctx, a.Listener, func() { right = h.Matches(a.Password) })
	if right && err == nil {
		return verdict{outcome: allow}
	}
	return verdict{outcome: deny}
}

func (m usersMethod) waste(ctx context.Context, a *Attempt) {
	if m.asks() && a.named() {
		m.r.hashing.run(ctx, a.Listener, func() { decoy().Matches(a.Password) })
	}
}
