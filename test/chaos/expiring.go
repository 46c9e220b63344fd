package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/skein-mqtt/skein/test/harness"
)

// leftMessages are messages with an expiry that were left for a session that is away.
type leftMessages struct {
	id   string
	at   time.Time // when the last one was taken over
	sure bool      // all were acknowledged, none of them twice
}

const (
	// messageSeconds is the expiry of such messages.
	messageSeconds = 4
	// messagesLeft is how many there are; one more has no expiry.
	messagesLeft = 3
)

// messages leaves some for a session that is away. It comes back in time for them, or long after.
func (o *oneshots) messages(ctx context.Context) {
	id := fmt.Sprintf("e%d", o.seq)
	topic := "e/" + id
	if !o.leaveSession(id, topic) {
		return
	}
	first := time.Now()
	sure, ok := o.leaveMessages(id, topic)
	if !ok { // how many copies there are nobody knows
		o.w.model.Expiring(2*messagesLeft+2, false)
		return
	}
	o.w.model.count(func(s *stats) { s.messageExpiries += messagesLeft })
	if o.rng.IntN(2) == 0 {
		o.w.model.Expiring(messagesLeft, false) // it may come back too late
		o.inTime(ctx, id, first)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messagesFor = append(o.messagesFor, leftMessages{id, time.Now(), sure})
}

func away(id string) harness.Packet {
	return harness.Packet{ClientID: id, KeepAlive: 30, Props: []harness.Property{{ID: harness.SessionExpiry, Num: 24 * 3600}}}
}

// leaveSession makes a session with a subscription that nobody is connected for.
func (o *oneshots) leaveSession(id, topic string) bool {
	w, _ := o.open(away(id))
	if w == nil {
		return false
	}
	defer o.part(w, true)
	if w.send(harness.Packet{Type: harness.SUBSCRIBE, ID: 1, Filters: []harness.Filter{{Name: topic, Options: 1}}}) != nil {
		return false
	}
	ack, err := w.next(connackTime)
	return err == nil && ack.Type == harness.SUBACK
}

// leaveMessages publishes for it. ok: all were acknowledged; sure: none was sent twice.
func (o *oneshots) leaveMessages(id, topic string) (sure, ok bool) {
	w, _ := o.open(harness.Packet{ClientID: id + "-sender", Clean: true, KeepAlive: 30})
	if w == nil {
		return false, false
	}
	defer o.part(w, true)
	for k := range messagesLeft + 1 {
		p := harness.Packet{Type: harness.PUBLISH, Topic: topic, QoS: 1, ID: uint16(k + 1), Payload: "lasts"}
		if k > 0 {
			p.Payload = "expires"
			p.Props = []harness.Property{{ID: harness.MessageExpiry, Num: messageSeconds}}
		}
		if w.send(p) != nil {
			return false, false
		}
	}
	for range messagesLeft + 1 {
		if ack, err := w.next(patience); err != nil || ack.Type != harness.PUBACK || ack.Code >= 0x80 {
			return false, false
		}
	}
	return true, true
}

// inTime comes back before anything may have expired, and wants all of it.
func (o *oneshots) inTime(ctx context.Context, id string, first time.Time) {
	const limit = (messageSeconds - 1) * time.Second
	for time.Since(first) < limit && ctx.Err() == nil {
		w, ack := o.open(away(id))
		if w == nil {
			wait(ctx, 100*time.Millisecond)
			continue
		}
		early := time.Since(first) < limit // by the CONNACK: what follows left the queue before
		got := w.collect("lasts")
		o.part(w, false)
		o.end(id)
		if n := strings.Count(got, "expires"); early && ack.SessionPresent && n < messagesLeft && strings.Contains(got, "lasts") {
			o.w.model.Violate(Expiry, o.who, "%s was back %v after the first of %d messages that last %d s, and got %d of them",
				id, time.Since(first), messagesLeft, messageSeconds, n)
		}
		return
	}
	o.end(id)
}

// end removes a session, if somebody lets us.
func (o *oneshots) end(id string) {
	if w, _ := o.open(harness.Packet{ClientID: id, Clean: true}); w != nil {
		o.part(w, true)
	}
}

// collect acknowledges what comes until want has come and then nothing for a second, and returns the payloads.
func (w *wire) collect(want string) string {
	var got []string
	for {
		silence := time.Second
		if !slices.Contains(got, want) {
			silence = patience
		}
		p, err := w.next(silence)
		if err != nil {
			return strings.Join(got, " ")
		}
		if p.Type == harness.PUBLISH && p.QoS == 1 {
			got = append(got, p.Payload)
			_ = w.send(harness.Packet{Type: harness.PUBACK, ID: p.ID})
		}
	}
}

// expiredMessages wants messages to be gone that expired long enough ago, and the one that has no expiry to be
// there.
func (o *oneshots) expiredMessages(nodes []target, healed time.Time) {
	const enough = (messageSeconds + 8) * time.Second
	o.mu.Lock()
	list := o.messagesFor
	o.messagesFor = nil
	o.mu.Unlock()
	for i, l := range list {
		if time.Since(l.at) < enough || time.Since(healed) < 6*time.Second {
			o.mu.Lock()
			o.messagesFor = append(o.messagesFor, l)
			o.mu.Unlock()
			continue
		}
		w, ack, err := hello(nodes[i%len(nodes)], harness.V5, away(l.id))
		if err != nil {
			o.w.model.Expiring(messagesLeft, false)
			continue
		}
		got := w.collect("lasts")
		_ = w.send(harness.Packet{Type: harness.DISCONNECT})
		w.close(false)
		if w, _, err := hello(nodes[i%len(nodes)], harness.V5, harness.Packet{ClientID: l.id, Clean: true}); err == nil {
			w.close(false) // and with it the session ends
		}
		o.w.model.Expiring(messagesLeft, l.sure && ack.SessionPresent)
		switch {
		case !ack.SessionPresent:
			o.w.model.Violate(Presence, o.who, "%s finds no session", l.id)
		case strings.Contains(got, "expires"):
			o.w.model.Violate(Expiry, o.who, "%s got messages %v after they were sent, which last %d s: %s", l.id, time.Since(l.at), messageSeconds, got)
		case strings.Count(got, "lasts") != 1:
			o.w.model.Violate(Loss, o.who, "%s got %q of a message without an expiry, sent %v ago", l.id, got, time.Since(l.at))
		}
	}
}
