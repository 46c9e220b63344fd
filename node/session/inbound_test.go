package session

import (
	"errors"
	"fmt"
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

func mustPublish(t *testing.T, s *Session, qos byte, id uint16) (uint64, Verdict) {
	t.Helper()
	slot, v, err := s.Publish(&mqtt.Publish{QoS: qos, PacketID: id, Topic: []byte("t")})
	if err != nil {
		t.Fatal(err)
	}
	return slot, v
}

func refused(t *testing.T, s *Session, p *mqtt.Publish, code mqtt.ReasonCode) {
	t.Helper()
	var e *mqtt.Error
	if _, _, err := s.Publish(p); !errors.As(err, &e) || e.Code != code {
		t.Errorf("PUBLISH %d: %v, want %v", p.PacketID, err, code)
	}
}

// TestAckOrder: acknowledgements of one kind leave in the order of their packets, and none waits
// for another kind [MQTT-4.6.0-2, MQTT-4.6.0-3].
func TestAckOrder(t *testing.T) {
	s := New(Config{Version: mqtt.V5, ReceiveMax: 10})
	one, _ := mustPublish(t, s, 1, 1)
	two, _ := mustPublish(t, s, 2, 2)
	three, _ := mustPublish(t, s, 1, 3)
	sub, unsub := s.Open(Suback, 4), s.Open(Unsuback, 5)
	if !s.Unanswered() {
		t.Error("nothing is due")
	}
	equal(t, "3 first", said(t, mqtt.V5, s.Complete(Puback, three, mqtt.NoMatchingSubscribers, nil, nil)), "")
	equal(t, "2", said(t, mqtt.V5, s.Complete(Pubrec, two, 0, nil, nil)), "PUBREC:2")
	equal(t, "UNSUBACK", said(t, mqtt.V5, s.Complete(Unsuback, unsub, 0, []byte{0x11}, nil)), "UNSUBACK:5[17]")
	equal(t, "1 and 3", said(t, mqtt.V5, s.Complete(Puback, one, 0, nil, nil)), "PUBACK:1 PUBACK:3/10")
	equal(t, "again", said(t, mqtt.V5, s.Complete(Puback, one, 0, nil, nil)), "")
	equal(t, "SUBACK", said(t, mqtt.V5, s.Complete(Suback, sub, 0, []byte{2, 0x87}, nil)), "SUBACK:4[2 135]")
	if s.Unanswered() {
		t.Error("something is due")
	}
}

func TestAckQueue(t *testing.T) {
	var q ackQueue
	next, done := 0, 0
	slots := make(map[int]uint64)
	for round := range 50 { // grows, shrinks and empties
		for range (round * 7) % 200 {
			slots[next] = q.open(uint16(next))
			next++
		}
		for i := next - 1; i >= done; i -= 2 {
			q.done(slots[i], 0, nil)
		}
		for i := next - 2; i >= done; i -= 2 {
			q.done(slots[i], 0, nil)
		}
		for ; done < next-round%3; done++ {
			if a, ok := q.next(); !ok || a.id != uint16(done) {
				t.Fatalf("round %d: %d, %v, want %d", round, a.id, ok, done)
			}
		}
		if q.pending() != next-done {
			t.Fatalf("%d pending, want %d", q.pending(), next-done)
		}
	}
	if _, ok := q.next(); ok != (done < next) {
		t.Error("the end is wrong")
	}
}

// TestReceiveMaximum: who exceeds ours is told so; PUBACK, PUBCOMP and a PUBREC with an error give it
// back, PUBREC does not [MQTT-3.3.4-7, MQTT-4.9.0-2].
func TestReceiveMaximum(t *testing.T) {
	s := New(Config{Version: mqtt.V5, ReceiveMax: 2})
	one, _ := mustPublish(t, s, 1, 1)
	two, _ := mustPublish(t, s, 2, 2)
	refused(t, s, &mqtt.Publish{QoS: 1, PacketID: 3, Topic: []byte("t")}, mqtt.ReceiveMaximumExceeded)
	refused(t, s, &mqtt.Publish{QoS: 2, PacketID: 3, Topic: []byte("t")}, mqtt.ReceiveMaximumExceeded)
	mustPublish(t, s, 0, 0)
	s.Complete(Puback, one, 0, nil, nil)
	s.Complete(Pubrec, two, 0, nil, nil)
	three, _ := mustPublish(t, s, 2, 3)
	refused(t, s, &mqtt.Publish{QoS: 1, PacketID: 4, Topic: []byte("t")}, mqtt.ReceiveMaximumExceeded)
	s.Complete(Pubrec, three, mqtt.NotAuthorized, nil, nil)
	mustPublish(t, s, 1, 4)
	refused(t, s, &mqtt.Publish{QoS: 1, PacketID: 5, Topic: []byte("t")}, mqtt.ReceiveMaximumExceeded)
	if _, commit := s.Pubrel(2); commit {
		t.Error("a clean session has something to commit")
	}
	equal(t, "PUBCOMP", said(t, mqtt.V5, s.Flush(Pubcomp, nil)), "PUBCOMP:2")
	mustPublish(t, s, 1, 5)
	if s.Busy() {
		t.Error("a client that knows the limit is not slowed down")
	}
}

// TestBusy: an older client can't know the limit, and is read no further instead.
func TestBusy(t *testing.T) {
	s := New(Config{Version: mqtt.V311, ReceiveMax: 2})
	one, _ := mustPublish(t, s, 1, 1)
	if s.Busy() {
		t.Error("busy too early")
	}
	mustPublish(t, s, 2, 2)
	if !s.Busy() {
		t.Error("not busy")
	}
	mustPublish(t, s, 1, 3) // was on its way
	s.Complete(Puback, one, 0, nil, nil)
	if !s.Busy() {
		t.Error("not busy")
	}
}

// TestCleanQoS2: a repeat is answered and not routed, until PUBREL.
func TestCleanQoS2(t *testing.T) {
	s := New(Config{Version: mqtt.V5, ReceiveMax: 5})
	slot, v := mustPublish(t, s, 2, 7)
	if v != Route {
		t.Fatal("the first is not routed")
	}
	if _, v := mustPublish(t, s, 2, 7); v != Repeat {
		t.Fatal("the second is routed")
	}
	equal(t, "before the first is done", said(t, mqtt.V5, s.Flush(Pubrec, nil)), "")
	equal(t, "both", said(t, mqtt.V5, s.Complete(Pubrec, slot, 0, nil, nil)), "PUBREC:7 PUBREC:7")
	s.Pubrel(7)
	s.Pubrel(7)
	equal(t, "PUBCOMP", said(t, mqtt.V5, s.Flush(Pubcomp, nil)), "PUBCOMP:7 PUBCOMP:7")
	s.Pubrel(7)
	equal(t, "PUBCOMP", said(t, mqtt.V5, s.Flush(Pubcomp, nil)), "PUBCOMP:7/92")
	slot, v = mustPublish(t, s, 2, 7)
	if v != Route {
		t.Fatal("the next is not routed")
	}
	s.Complete(Pubrec, slot, mqtt.NotAuthorized, nil, nil) // the id is free again
	if _, v = mustPublish(t, s, 2, 7); v != Route {
		t.Fatal("after a refusal it is not routed")
	}
	if s.in.count != 1 {
		t.Errorf("%d of the quota in use", s.in.count)
	}
}

// TestPersistentQoS2: repeats are the log's to judge, and PUBCOMP waits for it.
func TestPersistentQoS2(t *testing.T) {
	s, _ := Resume(Config{Version: mqtt.V5, Persistent: true, ReceiveMax: 1, Span: 1}, &fsm.SessionView{Inbound: []uint16{7, 8}}, nil)
	slot, v := mustPublish(t, s, 2, 9)
	if v != Route {
		t.Fatal("not routed")
	}
	again, v := mustPublish(t, s, 2, 9)
	if v != Route {
		t.Fatal("a repeat is not the log's")
	}
	if _, v := mustPublish(t, s, 2, 7); v != Route { // the quota does not stop what is known
		t.Fatal("not routed")
	}
	equal(t, "first", said(t, mqtt.V5, s.Complete(Pubrec, again, 0, nil, nil)), "")
	equal(t, "both", said(t, mqtt.V5, s.Complete(Pubrec, slot, 0, nil, nil)), "PUBREC:9 PUBREC:9")
	for _, id := range []uint16{8, 9, 9, 30} {
		pubrel, commit := s.Pubrel(id)
		if !commit {
			t.Fatal("PUBCOMP before the commit")
		}
		code, want := mqtt.Success, ""
		if id == 30 {
			code, want = mqtt.PacketIdentifierNotFound, "/92"
		}
		equal(t, "before", said(t, mqtt.V5, s.Flush(Pubcomp, nil)), "")
		equal(t, "PUBCOMP", said(t, mqtt.V5, s.Complete(Pubcomp, pubrel, code, nil, nil)), fmt.Sprintf("PUBCOMP:%d%s", id, want))
	}
	if s.in.count != 1 { // 7 is under way
		t.Errorf("%d of the quota in use", s.in.count)
	}
}

// TestAliasIn: the client's aliases, per connection [MQTT-3.3.2-8 to -12].
func TestAliasIn(t *testing.T) {
	s := New(Config{Version: mqtt.V5, AliasIn: 2, ReceiveMax: 5})
	topic := []byte("first")
	publish := func(alias uint16, name []byte) string {
		t.Helper()
		p := &mqtt.Publish{TopicAlias: alias, Topic: name}
		if _, _, err := s.Publish(p); err != nil {
			t.Fatal(err)
		}
		return string(p.Topic)
	}
	refused(t, s, &mqtt.Publish{TopicAlias: 1}, mqtt.TopicAliasInvalid)
	refused(t, s, &mqtt.Publish{TopicAlias: 3, Topic: topic}, mqtt.TopicAliasInvalid)
	publish(1, topic)
	copy(topic, "XXXXX") // the reader's memory
	equal(t, "alias", publish(1, nil), "first")
	publish(2, []byte("second"))
	publish(1, []byte("third"))
	equal(t, "changed", publish(1, nil), "third")
	equal(t, "other", publish(2, nil), "second")
	equal(t, "none", publish(0, []byte("plain")), "plain")
}
