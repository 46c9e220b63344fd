package broker

import (
	"context"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/node/session"
	"github.com/skein-mqtt/skein/proto/clusterpb"
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

// next takes the oldest.
func (o *orphans) next() (first orphan, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) == 0 {
		return first, false
	}
	first = o.list[0]
	o.list[0] = orphan{}
	o.list = o.list[1:]
	return first, true
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
		ba := getBatch()
		for b.inService() { // Serving signals
			o, ok := b.orphans.next()
			if !ok {
				break
			}
			b.adopt(o, ba)
		}
		b.flusher.take(ba)
		putBatch(ba)
	}
}

// adopt looks for a member. Where the incarnation ends meanwhile and no node says that it has taken the
// message, it becomes an orphan again; at QoS 2, where some node may have, it counts as lost.
func (b *Broker) adopt(o orphan, ba *conn.Batch) {
	s := &search{b: b, m: o.m, pick: clusterpb.SharedPick{Filter: o.filter, Group: o.group}, done: b.orphans.settled}
	s.again = func() {
		if o.m.QoS == 2 {
			b.stats.drop("", fsm.ReasonSessionEnded, 1)
		} else {
			b.orphans.add(o)
		}
		b.orphans.settled(nil)
	}
	var avoid fsm.NodeRef
	if o.elsewhere {
		avoid = b.cluster.Self()
	}
	s.next(avoid, ba)
}
