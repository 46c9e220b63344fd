// Package trace follows single messages through this node for an operator who asks where one went.
//
// It owns the rules that say which messages are followed, the sampling, the bound on their rate, and the
// steps on their way to who asked. It must cost nothing when nobody asks: one atomic load a message.
package trace

import (
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/proto/topic"
)

// Step is one thing that became of a message on this node.
type Step struct {
	Time      int64  // ns since 1970, on this node's clock
	Message   string // the same on every node; two equal messages of one client share it
	Kind      string // what happened, one word
	Client    string // whom it happened to: the publisher, or a subscriber
	Publisher string
	Topic     string
	QoS       byte
	PacketID  uint16
	Index     uint64 // of its entry in the log
	Took      int64  // ns; 0: it is no matter of time
	Detail    string // for people
	Context   string // what Rule.Choose said of the message
	Skipped   uint64 // steps that were left out before this one: too many a second
}

// Subject is the message that a step is about. Its strings and bytes may alias a buffer.
type Subject struct {
	Publisher string
	Topic     string
	Payload   []byte
	Props     []byte // forwardable properties of MQTT 5.0, encoded
	QoS       byte
}

// Rule says which messages are followed.
type Rule struct {
	Client string  // published by it, or on the way to it; empty: anybody's
	Filter string  // whose topic matches; empty: any
	Sample float64 // this part of the messages, the same ones on every node; 0 or 1: all
	Rate   int     // steps a second at most, of each node; 0: 500
	// Choose picks messages instead of Sample, and says what is known of a message beside its steps. id is the
	// message's name. nil: Sample counts.
	Choose func(s *Subject, id uint64) (context string, ok bool)
}

const (
	defaultRate = 500
	// buffered is how many steps wait for a reader.
	buffered = 1024
	// pendingLimit bounds the deliveries whose acknowledgement is waited for.
	pendingLimit = 10_000
	// maxTaps bounds who may ask at a time.
	maxTaps = 16
)

// Tracer is a node's. A nil Tracer follows nothing.
type Tracer struct {
	active atomic.Pointer[Taps]
	mu     sync.Mutex // of those who change it
}

// Taps are those who ask, at one time.
type Taps struct{ list []*Tap }

// Tap is one who asks. Steps come from C until Close.
type Tap struct {
	C      <-chan Step
	c      chan Step
	rule   Rule
	tracer *Tracer

	mu      sync.Mutex
	second  int64
	used    int
	skipped uint64
	pending map[delivery]sent
}

// delivery is a PUBLISH on the way to a client.
type delivery struct {
	client string
	id     uint16
}

type sent struct {
	at                        int64
	message, topic, publisher string
	context                   string
	qos                       byte
}

// ErrTooMany: as many operators trace as may.
var ErrTooMany = fmt.Errorf("trace: %d traces are open already", maxTaps)

// Open begins to follow messages. Close ends it.
func (t *Tracer) Open(r Rule) (*Tap, error) {
	if r.Rate <= 0 {
		r.Rate = defaultRate
	}
	if r.Sample <= 0 || r.Sample > 1 {
		r.Sample = 1
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*Tap
	if now := t.active.Load(); now != nil {
		list = append(list, now.list...)
	}
	if len(list) >= maxTaps {
		return nil, ErrTooMany
	}
	c := make(chan Step, buffered)
	tap := &Tap{C: c, c: c, rule: r, tracer: t, pending: make(map[delivery]sent)}
	t.active.Store(&Taps{append(list, tap)})
	return tap, nil
}

// Close ends the following. Nobody may read from C afterwards.
func (p *Tap) Close() {
	t := p.tracer
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*Tap
	for _, o := range t.active.Load().list {
		if o != p {
			list = append(list, o)
		}
	}
	if len(list) == 0 {
		t.active.Store(nil)
		return
	}
	t.active.Store(&Taps{list})
}

// Active are those who ask, nil: nobody, which is all that a message then costs.
func (t *Tracer) Active() *Taps {
	if t == nil {
		return nil
	}
	return t.active.Load()
}

// ID is a message's name: a digest of who published what where.
func (s *Subject) ID() uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, s.Publisher)
	_, _ = h.Write([]byte{0})
	_, _ = io.WriteString(h, s.Topic)
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(s.Payload)
	return h.Sum64()
}

// Step tells those who follow the message. client is whom it happens to.
func (t *Taps) Step(s *Subject, kind, client string, step Step) {
	if t == nil {
		return
	}
	id := name{of: s}
	for _, p := range t.list {
		var ok bool
		if step.Context, ok = p.follows(&id, client); !ok {
			continue
		}
		id := id.get()
		step.Time, step.Message, step.Kind, step.QoS = time.Now().UnixNano(), fmt.Sprintf("%016x", id), kind, s.QoS
		step.Client, step.Publisher, step.Topic = clone(client), clone(s.Publisher), clone(s.Topic)
		if kind == Sent && step.PacketID != 0 {
			p.expect(&step)
		}
		p.send(step)
	}
}

// Follows tells whether a step of the message would be told to anybody: where it costs something to find out what to
// tell.
func (t *Taps) Follows(s *Subject, client string) bool {
	if t == nil {
		return false
	}
	id := name{of: s}
	for _, p := range t.list {
		if _, ok := p.follows(&id, client); ok {
			return true
		}
	}
	return false
}

// name is a message's, worked out once.
type name struct {
	of    *Subject
	id    uint64
	known bool
}

func (n *name) get() uint64 {
	if !n.known {
		n.id, n.known = n.of.ID(), true
	}
	return n.id
}

func (p *Tap) follows(n *name, client string) (context string, ok bool) {
	switch {
	case !p.wants(n.of, client):
		return "", false
	case p.rule.Choose != nil:
		return p.rule.Choose(n.of, n.get())
	case p.rule.Sample < 1:
		return "", Sampled(n.get(), p.rule.Sample)
	}
	return "", true
}

// Sampled tells whether a message of that name is in this part of all messages, on every node alike.
func Sampled(id uint64, part float64) bool { return part >= 1 || float64(id)/math.MaxUint64 < part }

// Sent is the kind of the step that a client's acknowledgement follows.
const Sent = "sent"

func clone(s string) string { return string([]byte(s)) }

func (p *Tap) wants(s *Subject, client string) bool {
	if p.rule.Client != "" && p.rule.Client != client && p.rule.Client != s.Publisher {
		return false
	}
	return p.rule.Filter == "" || topic.Match(p.rule.Filter, s.Topic)
}

// expect remembers a delivery until it is acknowledged.
func (p *Tap) expect(s *Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) < pendingLimit {
		p.pending[delivery{s.Client, s.PacketID}] = sent{s.Time, s.Message, s.Topic, s.Publisher, s.Context, s.QoS}
	}
}

// Acknowledged tells those who have seen the delivery that a client has answered it with PUBACK, PUBREC or
// PUBCOMP; last: that was all that is due.
func (t *Taps) Acknowledged(client string, id uint16, packet string, last bool) {
	if t == nil {
		return
	}
	for _, p := range t.list {
		k := delivery{client, id}
		p.mu.Lock()
		d, ok := p.pending[k]
		if ok && last {
			delete(p.pending, k)
		}
		p.mu.Unlock()
		if !ok {
			continue
		}
		now := time.Now().UnixNano()
		p.send(Step{
			Time: now, Message: d.message, Kind: "acknowledged", Client: client, Publisher: d.publisher, Topic: d.topic, QoS: d.qos,
			PacketID: id, Took: now - d.at, Detail: packet, Context: d.context,
		})
	}
}

// send never blocks: what is too much is counted.
func (p *Tap) send(s Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if second := s.Time / int64(time.Second); second != p.second {
		p.second, p.used = second, 0
	}
	if p.used >= p.rule.Rate {
		p.skipped++
		return
	}
	s.Skipped = p.skipped
	select {
	case p.c <- s:
		p.used++
		p.skipped = 0
	default:
		p.skipped++
	}
}
