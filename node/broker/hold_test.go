package broker_test

import (
	"testing"

	"github.com/skein-mqtt/skein/fsm"
)

// straddle has a publisher whose first message is on the log road and whose second, once the session
// that the first was for has gone, is on the link road.
func straddle(w *world) (p *client, begin func()) {
	s := w.connect(w.three, persistent("s"))
	s.subscribed("t:1")
	p = w.connect(w.one, clean("p"))
	return p, func() {
		w.one.HoldLog = true
		p.publish(1, "t", "log")
		s.unsubscribe("t")
		p.publish(1, "t", "link")
	}
}

// From the log to the link: the receiver holds the frame back until it has applied what came before it.
func TestHoldUntilTheLog(t *testing.T) {
	for _, remote := range []bool{false, true} {
		name, at := "here", 0
		if remote {
			name, at = "there", 1
		}
		t.Run(name, func(t *testing.T) {
			cluster(t, 3, nil, func(w *world) {
				k := w.connect(w.Nodes()[at], clean("k"))
				k.subscribed("t:1")
				p, begin := straddle(w)
				begin()
				k.expect()
				w.one.HoldLog = false
				k.expect(message("t", 1, "log"), message("t", 1, "link"))
				p.expect("PUBACK 1 00", "PUBACK 2 00")
			})
		})
	}
}

// Frames that belong between two commands of one batch are delivered between them.
func TestHoldBetweenCommands(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		k := w.connect(w.two, clean("k"))
		k.subscribed("t:1")
		p, begin := straddle(w)
		begin()
		p.retain(1, "t", "log again") // waits for the link, whose frames are acknowledged while they are held
		k.expect()
		w.one.HoldLog = false
		k.expect(message("t", 1, "log"), message("t", 1, "link"), message("t", 1, "log again"))
		p.expect("PUBACK 1 00", "PUBACK 2 00", "PUBACK 3 00")
	})
}

// What is held holds up nobody else.
func TestHoldDelaysNobodyElse(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		k := w.connect(w.two, clean("k"))
		k.subscribed("t:1")
		_, begin := straddle(w)
		begin()
		other := w.connect(w.three, clean("other"))
		other.publish(1, "t", "other")
		k.expect(message("t", 1, "other"))
		other.expect("PUBACK 1 00")
		w.one.HoldLog = false
		k.expect(message("t", 1, "log"), message("t", 1, "link"))
	})
}

// A node dies with a command that is in nobody's log: frames behind it are dropped, counted, and their
// publisher was not told that they had arrived.
func TestHeldForADeadNode(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		k := w.connect(w.two, clean("k"))
		k.subscribed("t:1")
		p, begin := straddle(w)
		begin()
		p.expect()
		w.one.Kill()
		w.Verdict(w.one)
		k.expect()
		if n := w.two.Broker.Stats().Dropped[fsm.ReasonNoQuorum]; n != 1 {
			t.Errorf("%d messages count, want 1", n)
		}
	})
}

// A held message waits for the lease, too, and is not lost with it.
func TestHeldOverALapse(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		k := w.connect(w.one, clean("k"))
		k.subscribed("t:1")
		p, begin := straddle(w)
		begin()
		w.one.LoseLease()
		w.one.HoldLog = false
		k.expect()
		p.expect()
		w.one.GrantLease()
		k.expect(message("t", 1, "log"), message("t", 1, "link"))
		p.expect("PUBACK 1 00", "PUBACK 2 00")
	})
}

// At QoS 0, too, a retained message, which the log carries, comes after what its publisher sent on the
// links before.
func TestRetainedFollowsTheLinks(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		s := w.connect(w.two, clean("s"))
		s.subscribed("t:0")
		p := w.connect(w.one, clean("p"))
		w.HoldLink("n1", "n2", true, false)
		p.publish(0, "t", "a")
		p.retain(0, "t", "b")
		p.publish(0, "t", "c")
		s.expect()
		w.HoldLink("n1", "n2", false, false)
		s.expect(message("t", 0, "a"), message("t", 0, "b"), message("t", 0, "c"))
	})
}

// The client goes without a word while its retained message waits for the links: it is published.
func TestRetainedSurvivesItsPublisher(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		s, p := w.connect(w.two, clean("s")), w.connect(w.one, clean("p"))
		s.subscribed("t:0")
		w.HoldLink("n1", "n2", true, false)
		p.publish(0, "t", "a")
		p.retain(0, "t", "b")
		p.Cut()
		w.Run()
		w.HoldLink("n1", "n2", false, false)
		w.Run()
		r := w.connect(w.three, clean("r"))
		r.subscribe("t:0")
		r.expect(message("t", 0, "b", "retain"), "SUBACK 1 00")
	})
}

// A node that the client has sent nothing to holds up nothing.
func TestRetainedWaitsForNobodyElse(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		s, p := w.connect(w.two, clean("s")), w.connect(w.one, clean("p"))
		s.subscribed("t:1", "u:1")
		w.HoldLink("n1", "n3", true, true)
		p.publish(0, "t", "a")
		p.retain(0, "t", "b")
		p.publish(1, "u", "c")
		s.expect(message("t", 0, "a"), message("t", 0, "b"), message("u", 1, "c"))
	})
}
