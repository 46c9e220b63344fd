// Package event remembers what has lately happened on this node, for operators: who came and went and
// why, what was dropped, what became of the node itself.
//
// It owns what an event is, and the coalescing of what happens often. It must never block who reports
// something, nor grow: the oldest goes first.
package event

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/node/ring"
)

// Kind names what has happened. It is a label for filters, not for people.
type Kind string

// The kinds.
const (
	Connected    Kind = "connected"
	Disconnected Kind = "disconnected"
	Refused      Kind = "refused" // a CONNECT
	Subscribed   Kind = "subscribed"
	Unsubscribed Kind = "unsubscribed"
	Dropped      Kind = "dropped" // messages for, or of, a client
	Node         Kind = "node"    // this node's or another one's place in the cluster
	Order        Kind = "order"   // an operator's
)

// Kinds are all of them.
var Kinds = []Kind{Connected, Disconnected, Refused, Subscribed, Unsubscribed, Dropped, Node, Order}

// Event is one thing that has happened. It is immutable.
type Event struct {
	Sequence uint64 // of this node, from 1; ascending
	Time     int64  // ms since 1970, on this node's clock
	Kind     Kind
	Warning  bool   // somebody may want to look at it
	Client   string // its id; empty: it is not about one client
	Reason   string // one word: why; of Dropped as in the metrics
	Message  string // for people
	Count    uint64 // how many such there were: more than 1 for Dropped and Refused alone
}

// window is for how long more of the same is gathered into one event.
const window = time.Second

// openKeys bounds how many clients are told apart in a window; more count under no client.
const openKeys = 1024

type key struct {
	kind           Kind
	client, reason string
}

// Log is a node's events. A nil Log takes and holds nothing. Its methods may be called from any
// goroutine.
type Log struct {
	ring *ring.Ring[Event]

	mu   sync.Mutex
	open map[key]uint64 // gathered since their last event; 0: the window is open
}

// New makes a log that holds size events at most.
func New(size int) *Log { return &Log{ring: ring.New[Event](size), open: make(map[key]uint64)} }

// Add reports an event. Its client may alias what is written again afterwards.
func (l *Log) Add(e Event) {
	if l == nil {
		return
	}
	e.Time, e.Count, e.Client = time.Now().UnixMilli(), max(1, e.Count), strings.Clone(e.Client)
	l.ring.Add(e)
}

// Drop reports messages that were not delivered, as Often does.
func (l *Log) Drop(client, reason string, n int) {
	if l != nil && n > 0 {
		l.often(key{Dropped, client, reason}, uint64(n))
	}
}

// Often reports what may happen very often, as a warning. The first of a client and a reason is an event at
// once; those of the next second become one, when Run looks.
func (l *Log) Often(kind Kind, client, reason string) {
	if l != nil {
		l.often(key{kind, client, reason}, 1)
	}
}

func (l *Log) often(k key, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, open := l.open[k]; open {
		l.open[k] += n
		return
	}
	if len(l.open) >= openKeys {
		k.client = ""
		l.open[k] += n
		return
	}
	k.client = strings.Clone(k.client) // it may alias a buffer
	l.open[k] = 0
	l.Add(k.event(n))
}

func (k key) event(n uint64) Event {
	e := Event{Kind: k.kind, Warning: true, Client: k.client, Reason: k.reason, Count: n, Message: k.reason}
	switch {
	case k.kind != Dropped && n > 1:
		e.Message = fmt.Sprintf("%s, %d times", k.reason, n)
	case k.kind == Dropped && n == 1:
		e.Message = "a message was not delivered: " + k.reason
	case k.kind == Dropped:
		e.Message = fmt.Sprintf("%d messages were not delivered: %s", n, k.reason)
	}
	return e
}

// Run makes events of what was gathered, until ctx ends.
func (l *Log) Run(ctx context.Context) {
	tick := time.NewTicker(window)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.gather()
		}
	}
}

func (l *Log) gather() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, n := range l.open {
		if n == 0 {
			delete(l.open, k)
			continue
		}
		l.open[k] = 0
		l.Add(k.event(n))
	}
}

// Last are the newest events that fn wants, at most limit, oldest first.
func (l *Log) Last(limit int, fn func(*Event) bool) []Event {
	if l == nil {
		return nil
	}
	list, first, _ := l.ring.Read(0)
	kept := len(list) // those that are wanted go to the end
	for i := len(list) - 1; i >= 0 && len(list)-kept < limit; i-- {
		list[i].Sequence = first + uint64(i)
		if fn(&list[i]) {
			kept--
			list[kept] = list[i]
		}
	}
	return list[kept:]
}

// Since is the sequence before the first event after a time, ms since 1970: where to begin to watch.
func (l *Log) Since(time int64) uint64 {
	if l == nil {
		return 0
	}
	list, first, _ := l.ring.Read(0)
	for i := range list {
		if list[i].Time > time {
			return first + uint64(i) - 1
		}
	}
	return first + uint64(len(list)) - 1
}

// Now is the sequence of the newest event.
func (l *Log) Now() uint64 {
	if l == nil {
		return 0
	}
	return l.ring.Last()
}

// Watch calls fn for every event after a sequence, now and as they come, until ctx ends or fn fails, whose
// error it returns. missed is how many events were forgotten just before this one.
func (l *Log) Watch(ctx context.Context, after uint64, fn func(e *Event, missed uint64) error) error {
	if l == nil {
		<-ctx.Done()
		return nil
	}
	return l.ring.Watch(ctx, after, func(sequence uint64, e Event, missed uint64) error {
		e.Sequence = sequence
		return fn(&e, missed)
	})
}
