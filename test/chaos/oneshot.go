package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/test/harness"
)

// oneshots are clients that live for a few seconds: some leave a delayed will, some a session that
// expires, some messages that do.
type oneshots struct {
	w   *world
	rng *rand.Rand
	who *party
	seq int

	looks int // of the goroutine that validates

	mu          sync.Mutex
	left        []leftSession
	messagesFor []leftMessages
}

// leftSession is a session that was left to expire.
type leftSession struct {
	id string
	at time.Time
}

// expirySeconds is how long such a session lasts.
const expirySeconds = 5

// run makes one after the other until ctx ends.
func (o *oneshots) run(ctx context.Context) {
	for ctx.Err() == nil {
		if o.w.busy() {
			o.seq++
			switch o.rng.IntN(3) {
			case 0:
				o.expiry(ctx)
			case 1:
				o.messages(ctx)
			default:
				o.delayedWill(ctx)
			}
		}
		wait(ctx, 200*time.Millisecond)
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// open connects to some node. The wire is nil when nobody let us in.
func (o *oneshots) open(p harness.Packet) (*wire, harness.Packet) {
	nodes := o.w.doors()
	n := nodes[o.rng.IntN(len(nodes))]
	w, ack, err := hello(n, harness.V5, p)
	if err != nil {
		return nil, ack
	}
	o.w.model.Note(o.who, 0, "%s connects to %s, session present %v", p.ClientID, n.id, ack.SessionPresent)
	return w, ack
}

// hello connects to a node and wants to be let in.
func hello(n target, version byte, p harness.Packet) (*wire, harness.Packet, error) {
	w, err := dial(n.mqtt, version)
	if err != nil {
		return nil, harness.Packet{}, err
	}
	p.Type = harness.CONNECT
	if err := w.send(p); err != nil {
		w.close(false)
		return nil, harness.Packet{}, err
	}
	ack, err := w.next(connackTime)
	if err == nil && (ack.Type != harness.CONNACK || ack.Code != 0) {
		err = fmt.Errorf("%s", ack)
	}
	if err != nil {
		w.close(false)
		return nil, ack, err
	}
	return w, ack, nil
}

var errSilence = errors.New("nothing came in time")

func (w *wire) next(patience time.Duration) (harness.Packet, error) {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case p, ok := <-w.in:
		if !ok {
			return p, w.err
		}
		return p, nil
	case <-t.C:
		return harness.Packet{}, errSilence
	}
}

// part ends a connection with or without a word.
func (o *oneshots) part(w *wire, goodbye bool) {
	if goodbye {
		_ = w.send(harness.Packet{Type: harness.DISCONNECT})
		for err := error(nil); err == nil; {
			_, err = w.next(time.Second)
		}
	}
	w.close(o.rng.IntN(2) == 0)
}

func (o *oneshots) stay(ctx context.Context) {
	wait(ctx, time.Duration(o.rng.IntN(1200))*time.Millisecond)
}

// alive tells a moment in which the node still held this connection, for all that the cluster knew: it has acknowledged a
// message that was sent then, and without a lease it would not have. sure is false where it did not; then a drain or a
// verdict may have ended the connection long before the client leaves it, and delays have begun.
func (o *oneshots) alive(w *wire) (at time.Time, sure bool) {
	at = time.Now()
	if w.send(harness.Packet{Type: harness.PUBLISH, QoS: 1, ID: 1, Topic: "alive", Payload: "?"}) != nil {
		return at, false
	}
	for {
		p, err := w.next(time.Second)
		if err != nil || p.Type == harness.DISCONNECT {
			return at, false
		}
		if p.Type == harness.PUBACK {
			return at, p.Code == 0 || p.Code == 0x10 // nobody wants it
		}
	}
}

// expiry leaves a session, comes back in time, and leaves it for good.
func (o *oneshots) expiry(ctx context.Context) {
	p := harness.Packet{
		ClientID: fmt.Sprintf("x%d", o.seq), KeepAlive: 30,
		Props: []harness.Property{{ID: harness.SessionExpiry, Num: expirySeconds}},
	}
	w, _ := o.open(p)
	if w == nil {
		return
	}
	o.stay(ctx)
	left, sure := o.alive(w)
	o.part(w, o.rng.IntN(2) == 0)
	wait(ctx, time.Duration(o.rng.IntN(3000))*time.Millisecond)
	// Not early: the log's clock runs no faster than ours. What was left later expires later.
	for w = nil; w == nil && ctx.Err() == nil && time.Since(left) < (expirySeconds-1)*time.Second; {
		var ack harness.Packet
		if w, ack = o.open(p); w == nil {
			wait(ctx, 100*time.Millisecond)
			continue
		}
		if gone := time.Since(left); sure && !ack.SessionPresent && gone < (expirySeconds-1)*time.Second {
			o.w.model.Violate(Expiry, o.who, "%s was away for %v and its session of %d s is gone", p.ClientID, gone, expirySeconds)
		}
	}
	if w == nil {
		return
	}
	o.stay(ctx)
	o.part(w, o.rng.IntN(2) == 0)
	o.w.model.count(func(s *stats) { s.expiries++ })
	o.mu.Lock()
	defer o.mu.Unlock()
	o.left = append(o.left, leftSession{p.ClientID, time.Now()})
}

// expired wants the sessions to be gone that were left long enough ago, seen from a cluster that has
// been whole since healed.
func (o *oneshots) expired(nodes []target, healed time.Time) {
	const enough = (expirySeconds + 8) * time.Second
	o.mu.Lock()
	list := o.left
	o.left = nil
	o.mu.Unlock()
	for i, l := range list {
		if time.Since(l.at) < enough || time.Since(healed) < 6*time.Second {
			o.mu.Lock()
			o.left = append(o.left, l)
			o.mu.Unlock()
			continue
		}
		w, ack, err := hello(nodes[i%len(nodes)], harness.V5, harness.Packet{ClientID: l.id})
		if err != nil {
			continue
		}
		if ack.SessionPresent {
			o.w.model.Violate(Expiry, o.who, "%s left %v ago and its session of %d s is still there", l.id, time.Since(l.at), expirySeconds)
		}
		_ = w.send(harness.Packet{Type: harness.DISCONNECT})
		w.close(false)
	}
}

// sentinelSeconds is how long a session lasts that is left alone from round to round. A clock that is wrong by an
// hour would end it.
const sentinelSeconds = 1800

// sentinel wants that session to be there, but for the first time, and leaves it again, on one node after the other.
func (o *oneshots) sentinel(nodes []target, first bool) {
	o.looks++
	w, ack, err := hello(nodes[o.looks%len(nodes)], harness.V5, harness.Packet{
		ClientID: "sentinel", Props: []harness.Property{{ID: harness.SessionExpiry, Num: sentinelSeconds}},
	})
	if err != nil {
		o.w.model.Violate(Liveness, o.who, "the sentinel can't connect: %v", err)
		return
	}
	if !first && !ack.SessionPresent {
		o.w.model.Violate(Expiry, o.who, "the session of %d s that was left a round ago is gone", sentinelSeconds)
	}
	_ = w.send(harness.Packet{Type: harness.DISCONNECT})
	_, _ = w.next(connackTime) // its end
	w.close(false)
}

// delayedWill ends without a goodbye and stays away, or comes back in time.
func (o *oneshots) delayedWill(ctx context.Context) {
	delay := uint32(2 + o.rng.IntN(3))
	m := o.w.model
	msg := m.Will(o.who, uint32(o.seq), streamID{o.who.name, "w/delayed", 2})
	p := harness.Packet{
		ClientID: fmt.Sprintf("d%d", o.seq), KeepAlive: 30,
		Props: []harness.Property{{ID: harness.SessionExpiry, Num: delay + 30}},
		Will: &harness.Will{
			Topic: msg.topic, QoS: 2, Payload: msg.payload(0), Props: []harness.Property{{ID: harness.WillDelay, Num: delay}},
		},
	}
	w, _ := o.open(p)
	if w == nil { // it may have been set
		m.Maybe(msg)
		return
	}
	m.Mark(msg, armed, o.who, uint32(o.seq), 0)
	o.stay(ctx)
	comesBack := o.rng.IntN(3) == 0
	left, sure := o.alive(w)
	if !comesBack {
		m.Mark(msg, due, o.who, uint32(o.seq), 0)
		m.count(func(s *stats) { s.willsDue++ })
	}
	limit := time.Duration(delay)*time.Second - 500*time.Millisecond
	if sure {
		m.NotBefore(msg, limit-time.Since(left))
	}
	w.close(o.rng.IntN(2) == 0)
	if !comesBack {
		return
	}
	m.Maybe(msg)
	if !sure {
		return
	}
	p.Will = nil
	for time.Since(left) < limit && ctx.Err() == nil {
		if w, ack := o.open(p); w != nil {
			if time.Since(left) < limit && ack.SessionPresent {
				m.Fence(msg)
			}
			o.part(w, true)
			return
		}
		wait(ctx, 100*time.Millisecond)
	}
}

// readRetained reads all retained messages on a node, as a new client.
func (w *world) readRetained(n target, k int) {
	who := &party{name: fmt.Sprintf("retained-reader-on-%s", n.id)}
	conn, _, err := hello(n, harness.V5, harness.Packet{ClientID: fmt.Sprintf("rr%d", k), Clean: true})
	if err != nil {
		w.model.Violate(Liveness, who, "%s can't connect: %v", who.name, err)
		return
	}
	defer conn.close(false)
	got := make(map[string]string)
	if err := conn.send(harness.Packet{Type: harness.SUBSCRIBE, ID: 1, Filters: []harness.Filter{{Name: "r/#", Options: 1}}}); err != nil {
		w.model.Violate(Liveness, who, "%s can't subscribe: %v", who.name, err)
		return
	}
	granted, topics := false, w.model.RetainedTopics()
	for {
		silence := patience
		if granted && len(got) >= len(topics) {
			silence = time.Second
		}
		p, err := conn.next(silence)
		if err != nil {
			if !granted {
				w.model.Violate(Liveness, who, "%s got no SUBACK: %v", who.name, err)
				return
			}
			break
		}
		switch p.Type {
		case harness.SUBACK:
			granted = true
		case harness.PUBLISH:
			got[p.Topic] = p.Payload
			if p.QoS == 1 {
				_ = conn.send(harness.Packet{Type: harness.PUBACK, ID: p.ID})
			}
		}
	}
	for _, topic := range topics {
		w.model.RetainedAs(who.name, topic, got[topic])
		w.model.count(func(s *stats) { s.retainedReads++ })
	}
}
