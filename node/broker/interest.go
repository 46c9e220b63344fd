package broker

import (
	"sync"
	"sync/atomic"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// interests tells the other nodes for which filters this one has clean subscribers: the first one and
// the last, and each change of a shared group's number, which decides how often it gets a message.
type interests struct {
	b     *Broker
	mu    sync.Mutex
	table map[subKey]*interest
}

type interest struct {
	count   int
	ready   bool // every live node knows of it
	waiting []func()
}

// counter counts down.
type counter struct{ left atomic.Int32 }

func (t *interests) init(b *Broker) { t.b, t.table = b, make(map[subKey]*interest) }

// reset forgets all of an incarnation that has ended.
func (t *interests) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.table = make(map[subKey]*interest)
}

// acquire adds a subscriber. done runs when every live node knows that this one has any: perhaps
// before acquire returns, else where a barrier is passed; not at all when the incarnation ends before.
func (t *interests) acquire(k subKey, done func()) {
	t.mu.Lock()
	i := t.table[k]
	if i == nil {
		i = &interest{}
		t.table[k] = i
	}
	i.count++
	if i.count == 1 {
		t.propose(k, i.count, func(index uint64) {
			t.b.cluster.Barrier(index, func() { t.settle(i) })
		})
	} else if k.group != "" {
		t.propose(k, i.count, func(uint64) {})
	}
	if !i.ready {
		i.waiting = append(i.waiting, done)
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	done()
}

func (t *interests) settle(i *interest) {
	t.mu.Lock()
	i.ready = true
	waiting := i.waiting
	i.waiting = nil
	t.mu.Unlock()
	for _, done := range waiting {
		done()
	}
}

// release takes a subscriber away. done runs when the log has it, perhaps before release returns.
func (t *interests) release(k subKey, done func()) {
	t.mu.Lock()
	i := t.table[k]
	if i == nil { // of an incarnation that has ended
		t.mu.Unlock()
		done()
		return
	}
	i.count--
	if i.count == 0 {
		delete(t.table, k)
	}
	if i.count > 0 && k.group == "" {
		t.mu.Unlock()
		done()
		return
	}
	t.propose(k, i.count, func(uint64) { done() })
	t.mu.Unlock()
}

// propose is called with mu held: the log has the counts in the order in which they changed.
func (t *interests) propose(k subKey, count int, applied func(index uint64)) {
	cmd := &fsmpb.Interest{Filter: k.filter, Group: k.group, Count: uint32(count)}
	t.b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_Interest{Interest: cmd}}, func(r fsm.Result, err error) {
		if err == nil {
			applied(r.Index)
		}
	})
}
