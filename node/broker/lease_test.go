package broker_test

import (
	"testing"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// P9: without a lease nothing is acknowledged and nothing of QoS 1 and 2 is given to clients, whatever
// the log says; all of it goes on when the lease is back.
func TestNothingIsSaidWithoutALease(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		s, k, p := w.connect(w.one, persistent("s")), w.connect(w.one, clean("k")), w.connect(w.one, persistent("p"))
		s.subscribed("t:2")
		k.subscribed("t:1")
		elsewhere := w.connect(w.two, clean("e"))
		elsewhere.publish(2, "t", "before")
		s.expect(message("t", 2, "before"))
		k.expect(message("t", 1, "before"))
		w.one.HoldLog, w.one.HoldApply = true, true
		p.publish(1, "t", "own")
		p.publish(2, "t", "own too")
		p.subscribe("x:1")
		s.ack(mqtt.PUBREC, 1)
		w.one.LoseLease()
		w.one.HoldLog, w.one.HoldApply = false, false
		elsewhere.publish(1, "t", "after")
		w.ms(100)
		p.send(&mqtt.Pingreq{})
		p.expect("PINGRESP")
		s.expect()
		k.expect()
		w.one.GrantLease()
		w.Run()
		mustHold(w.T, s.Got(), "PUBREL 1 00")
		k.expect(message("t", 1, "own"), message("t", 1, "own too"), message("t", 1, "after"))
		p.expect("PUBACK 1 00", "PUBREC 2 00", "SUBACK 3 01")
	})
}

// A lease that is back before the broker heard that it was gone lets out what waited, too.
func TestShortLapse(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		p := w.connect(w.one, clean("p"))
		w.one.LoseLease()
		p.Send(p.publication(1, "t", "x"))
		p.Arrive(-1)
		w.one.GrantLease()
		w.ms(1200)
		p.expect("PUBACK 1 10")
	})
}

// So do messages that came meanwhile, however they came.
func TestShortLapseOfASubscriber(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		s, k, p := w.connect(w.one, persistent("s")), w.connect(w.one, clean("k")), w.connect(w.two, clean("p"))
		s.subscribed("log:1")
		k.subscribed("log:1")
		w.one.LoseLease()
		p.Send(p.publication(1, "log", "x"))
		p.Arrive(-1)
		w.two.Submit(10)
		w.one.Apply()
		w.one.GrantLease()
		w.ms(1200)
		s.expect(message("log", 1, "x"))
		k.expect(message("log", 1, "x"))
	})
}

// Beyond the grace period clients are asked to move, and nobody is let in.
func TestBeyondGrace(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		c := w.connect(w.one, persistent("c"))
		w.one.LoseLease()
		w.one.Broker.LeaseLost(true)
		c.expect("DISCONNECT 9c", "closed")
		w.dial(w.one, clean("d")).expect("CONNACK 88", "closed")
		w.one.GrantLease()
		w.Run()
		w.dial(w.one, clean("d")).expect("CONNACK 00")
	})
}

// A node that was declared dead and does not know it: its clients come in elsewhere, and it says nothing
// when it hears of its end but that they are to go.
func TestZombie(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		s, p := w.connect(w.one, persistent("s")), w.connect(w.one, persistent("p"))
		s.subscribed("t:2")
		w.connect(w.two, clean("q")).publish(2, "t", "x")
		s.expect(message("t", 2, "x"))
		w.one.HoldApply = true
		w.Verdict(w.one)
		s.ack(mqtt.PUBREC, 1)
		p.publish(1, "t", "late")
		p.publish(0, "t", "late")
		s.expect()
		p.expect()
		now := w.dial(w.two, persistent("s"))
		now.expect("CONNACK 00 present", message("t", 2, "x", "dup"))
		w.one.HoldApply = false
		s.expect("DISCONNECT 9c", "closed")
		p.expect("DISCONNECT 9c", "closed")
		now.expect()
		if !w.one.Serving() {
			t.Error("it does not come back")
		}
		w.dial(w.one, persistent("p")).expect("CONNACK 00 present")
	})
}

// The end of an incarnation ends everything that waited in it: nothing of it is said afterwards, and a
// batch that was under way is refused.
func TestIncarnationEnds(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		s := w.connect(w.two, persistent("s"))
		s.subscribed("t:1")
		p := w.connect(w.one, clean("p"))
		w.one.HoldLog, w.one.HoldMark = true, true
		p.publish(1, "t", "x")
		p.subscribe("y:1")
		c := w.dial(w.one, clean("c")) // its CONNECT waits, too
		w.Verdict(w.one)
		p.expect("DISCONNECT 9c", "closed")
		c.expect("CONNACK 88", "closed")
		w.one.HoldLog, w.one.HoldMark = false, false
		s.expect()
		w.ms(500)
		if i, ok := w.State().Session("p"); ok {
			t.Errorf("the log has %+v", i)
		}
	})
}
