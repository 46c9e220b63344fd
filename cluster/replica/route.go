package replica

import (
	"context"
	"sync"
)

// destination is who leads.
type destination struct {
	id      string // server id; empty: nobody is known
	address string
	gone    chan struct{} // closed when somebody else leads
}

func (d *destination) changed() bool {
	select {
	case <-d.gone:
		return true
	default:
		return false
	}
}

// route is where batches go now.
type route struct {
	mu sync.Mutex
	to *destination
}

func newRoute() *route { return &route{to: &destination{gone: make(chan struct{})}} }

func (r *route) get() *destination {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.to
}

func (r *route) set(id, address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to.id == id && r.to.address == address {
		return
	}
	close(r.to.gone)
	r.to = &destination{id: id, address: address, gone: make(chan struct{})}
}

// follow calls cancel when d no longer leads, until the returned function was called, which waits for
// that.
func (r *route) follow(d *destination, cancel context.CancelFunc) (unfollow func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-d.gone:
			cancel()
		case <-stop:
		}
	}()
	return func() { close(stop); <-done }
}
