// Package ring remembers the last of what happens, for readers that come later and watchers that follow.
//
// It owns a bounded buffer. It must never block who adds, nor keep a copy for each reader: one that is slow
// learns how much it has missed.
package ring

import (
	"context"
	"sync"
)

// Ring holds the last values that were added. Its methods may be called from any goroutine.
type Ring[T any] struct {
	mu      sync.Mutex
	list    []T
	next    uint64        // sequence of the next value
	changed chan struct{} // closed with the next value; nil: nobody waits
}

// New makes a ring of size values at most, at least one.
func New[T any](size int) *Ring[T] { return &Ring[T]{list: make([]T, 0, max(1, size)), next: 1} }

// Add puts a value at the end. Sequences begin with 1 and ascend by 1.
func (r *Ring[T]) Add(v T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) < cap(r.list) {
		r.list = append(r.list, v)
	} else {
		r.list[r.place(r.next)] = v
	}
	r.next++
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

func (r *Ring[T]) place(sequence uint64) uint64 { return (sequence - 1) % uint64(cap(r.list)) }

// Last is the sequence of the newest value, 0: there is none.
func (r *Ring[T]) Last() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next - 1
}

// Read copies what came after a sequence, oldest first, with the sequence of the first. missed is how many
// of them the ring has forgotten.
func (r *Ring[T]) Read(after uint64) (list []T, first, missed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read(after)
}

func (r *Ring[T]) read(after uint64) (list []T, first, missed uint64) {
	if oldest := r.next - uint64(len(r.list)); after+1 < oldest {
		missed, after = oldest-after-1, oldest-1
	}
	for s := after + 1; s < r.next; s++ {
		list = append(list, r.list[r.place(s)])
	}
	return list, after + 1, missed
}

// Watch calls fn for what came after a sequence and for what comes, until ctx ends or fn fails, whose error
// it returns. missed is how many values were forgotten just before this one.
func (r *Ring[T]) Watch(ctx context.Context, after uint64, fn func(sequence uint64, v T, missed uint64) error) error {
	for {
		r.mu.Lock()
		list, first, missed := r.read(after)
		if len(list) == 0 && r.changed == nil {
			r.changed = make(chan struct{})
		}
		wait := r.changed
		r.mu.Unlock()
		for i, v := range list {
			after = first + uint64(i)
			if err := fn(after, v, missed); err != nil {
				return err
			}
			missed = 0
		}
		if len(list) > 0 && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wait:
		}
	}
}
