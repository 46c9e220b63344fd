package broker

import (
	"context"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/node/session"
)

// orphan is a message of a shared group whose member has left without it, or was never found. The log
// does not know it.
type orphan struct {
	m             *fsm.Message
	filter, group string
	elsewhere     bool // this node has no member
}

// orphans wait for another member: one after the other, so that they keep their order, and while the
// node serves, of which they survive the end.
type orphans struct {
	mu   sync.Mutex
	list []orphan
	left int // those in the list, and those that are on their way
	wake chan struct{}
}

func (o *orphans) init() { o.wake = make(chan struct{}, 1) }

func (o *orphans) add(list ...orphan) {
	if len(list) == 0 {
		return
	}
	o.mu.Lock()
	o.list = append(o.list, list...)
	o.left += len(list)
	o.mu.Unlock()
	o.signal()
}

// leftBy adds what a session has left, but for what the log has given it: that stays in the log.
func (o *orphans) leftBy(entries []session.Shared) {
	var list []orphan
	for _, e := range entries {
		if e.Pick == 0 {
			list = append(list, orphan{e.Message, e.Filter, e.Group, false})
		}
	}
	o.add(list...)
}

func (o *orphans) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *orphans) take() []orphan {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.list
	o.list = nil
	return list
}

// settled counts one that has arrived, or is given up.
func (o *orphans) settled(*conn.Batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.left--
}

// wait blocks until none is left, or ctx ends.
func (o *orphans) wait(ctx context.Context) {
	tick := time.NewTicker(drainStep)
	defer tick.Stop()
	for {
		o.mu.Lock()
		left := o.left
		o.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// runOrphans finds members, on a goroutine that holds no lock.
func (b *Broker) runOrphans(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.orphans.wake:
		}
		if !b.serving.Load() { // Serving signals
			continue
		}
		ba := getBatch()
		for _, o := range b.orphans.take() {
			var avoid fsm.NodeRef
			if o.elsewhere {
				avoid = b.cluster.Self()
			}
			b.repick(o.m, o.filter, o.group, avoid, ba, b.orphans.settled)
		}
		b.flusher.take(ba)
		putBatch(ba)
	}
}
