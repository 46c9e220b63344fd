package broker_test

import (
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// A clean member has had a message, and leaves without an acknowledgement when only persistent ones
// are left: these have nothing from links. The search for another one ends, and what it did not find
// counts.
func TestSharedSearchEnds(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		p := w.connect(w.one, clean("p"))
		k := w.connect(w.two, clean("k"))
		k.subscribed("$share/g/t:1")
		p.publish(1, "t", "x")
		p.expect("PUBACK 1 00")
		k.expect(message("t", 1, "x"))
		s := w.connect(w.three, persistent("s"))
		s.subscribed("$share/g/t:1")
		k.Cut()
		w.Run()
		s.expect()
		if n := w.two.Broker.Stats().Dropped[fsm.ReasonNoMember]; n != 1 {
			t.Errorf("%d messages count as without a member, want 1", n)
		}
	})
}

// The log has ended a node's incarnation, and the node's broker is about to hear of it.
func TestSharedSearchOfAnEndedIncarnation(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		p := w.connect(w.one, clean("p"))
		k := w.connect(w.two, clean("k"))
		k.subscribed("$share/g/t:1")
		w.Verdict(w.one)
		w.one.Apply()
		if w.one.Serving() {
			t.Fatal("the incarnation goes on")
		}
		p.Send(p.publication(1, "t", "x"))
		p.Arrive(-1)
		w.Run()
		p.expect("DISCONNECT 9c", "closed")
		k.expect()
	})
}

// A dead node holds up a SUBACK. Meanwhile the log has the interest, and assigns messages to the member.
func TestAssignedBeforeSuback(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		k, p := w.connect(w.two, clean("k")), w.connect(w.one, persistent("p"))
		w.three.Kill()
		k.subscribe("$share/g/t:1")
		p.publish(2, "t", "x")
		k.expect(message("t", 1, "x"))
		p.expect("PUBREC 1 00")
		w.Verdict(w.three)
		k.expect("SUBACK 1 01")
	})
}

// claims is a cluster where the log has given a message at QoS 2 to the clean member k on two, and what
// two says to that is not in the log. another is a member on three that came later.
func claims(t *testing.T, fn func(w *world, k, another *client)) {
	t.Helper()
	cluster(t, 3, nil, func(w *world) {
		k, p := w.connect(w.two, clean("k")), w.connect(w.one, persistent("p"))
		k.subscribed("$share/g/t:2", "u:1")
		w.two.HoldLog = true
		p.publish(2, "t", "x")
		p.expect("PUBREC 1 00")
		another := w.connect(w.three, clean("another"))
		another.subscribed("$share/g/t:2")
		k.expect()
		another.expect()
		fn(w, k, another)
	})
}

// A node dies with a message at QoS 2 that its member can't have had: another member gets it.
func TestSharedNotClaimed(t *testing.T) {
	claims(t, func(w *world, _, another *client) {
		w.two.Kill()
		w.Verdict(w.two)
		another.expect(message("t", 2, "x"))
	})
}

// A node dies with a message at QoS 2 that its member may have had: nobody else gets it.
func TestSharedClaimed(t *testing.T) {
	claims(t, func(w *world, k, another *client) {
		w.two.HoldLog = false
		k.expect(message("t", 2, "x"))
		w.two.Kill()
		w.Verdict(w.two)
		another.expect()
	})
}

// A member leaves before it can have had a message at QoS 2: another one gets it, once.
func TestSharedLeftBeforeClaim(t *testing.T) {
	claims(t, func(w *world, k, another *client) {
		k.Cut()
		w.Run()
		another.expect()
		w.two.HoldLog = false
		another.expect(message("t", 2, "x"))
		w.two.Kill()
		w.Verdict(w.two)
		another.expect()
	})
}

// What comes after a message that waits for the log waits behind it.
func TestSharedClaimKeepsOrder(t *testing.T) {
	claims(t, func(w *world, k, _ *client) {
		w.connect(w.one, clean("q")).publish(1, "u", "y")
		k.expect()
		w.two.HoldLog = false
		k.expect(message("t", 2, "x"), message("u", 1, "y"))
	})
}

// The others declare a living node dead. What its clean member of a group had from a link, and has not
// acknowledged, is known to this node alone: it finds another member, in order, when the node is back.
func TestSharedHandedOnAfterVerdict(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		p := w.connect(w.one, clean("p"))
		k := w.connect(w.two, clean("k"))
		k.subscribed("$share/g/t:1")
		another := w.connect(w.three, clean("another"))
		for _, s := range []string{"a", "b", "c"} {
			p.publish(1, "t", s)
		}
		p.expect("PUBACK 1 00", "PUBACK 2 00", "PUBACK 3 00")
		k.expect(message("t", 1, "a"), message("t", 1, "b"), message("t", 1, "c"))
		k.ack(mqtt.PUBACK, 1)
		another.subscribed("$share/g/t:1")
		w.Verdict(w.two)
		k.expect("DISCONNECT 9c", "closed")
		another.expect(message("t", 1, "b"), message("t", 1, "c"))
	})
}

// The incarnation ends with publishes on their way to the log: the client hears of those at QoS 1, and
// what it sent at QoS 0 counts as dropped.
func TestPublishesOfAnEndedIncarnation(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		p := w.connect(w.one, clean("p"))
		w.one.HoldLog = true
		p.retain(0, "t", "x")
		p.retain(1, "t", "y")
		w.Verdict(w.one)
		w.one.HoldLog = false
		p.expect("DISCONNECT 9c", "closed")
		if n := w.one.Broker.Stats().Dropped[fsm.ReasonNoQuorum]; n != 1 {
			t.Errorf("%d messages count as without a quorum, want 1", n)
		}
	})
}

// An incarnation ends while what a member has left is on its way to another: it is not lost by that.
func TestSharedUnderWayAtTheVerdict(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		p, k := w.connect(w.one, clean("p")), w.connect(w.two, clean("k"))
		k.subscribed("$share/g/t:1")
		p.publish(1, "t", "a")
		p.publish(1, "t", "b")
		p.expect("PUBACK 1 00", "PUBACK 2 00")
		k.expect(message("t", 1, "a"), message("t", 1, "b"))
		another := w.connect(w.three, clean("another"))
		another.subscribed("$share/g/t:1")
		w.two.LoseLease()
		w.two.HoldLog, w.two.HoldApply = true, true
		w.SetCut("n1", "n2", true)
		w.SetCut("n2", "n3", true)
		w.Run()
		k.Cut()
		w.Run()
		w.Verdict(w.two)
		w.Run()
		w.SetCut("n1", "n2", false)
		w.SetCut("n2", "n3", false)
		w.two.HoldLog, w.two.HoldApply = false, false
		w.ms(3000)
		another.expect(message("t", 1, "a"), message("t", 1, "b"))
	})
}

// A member leaves while the log hears that a message is its own: another one gets it, also a persistent
// one, which has such messages from the log alone.
func TestSharedLeftForPersistent(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		k, p := w.connect(w.two, clean("k")), w.connect(w.one, persistent("p"))
		k.subscribed("$share/g/t:2")
		w.two.HoldLog = true
		p.publish(2, "t", "x")
		p.expect("PUBREC 1 00")
		s := w.connect(w.three, persistent("s"))
		s.subscribed("$share/g/t:2")
		k.expect()
		k.Cut()
		w.Run()
		w.two.HoldLog = false
		s.expect(message("t", 2, "x"))
	})
}

// A node is given up with a QoS 2 message that it has taken and whose sender did not hear so. The sender
// finds another member: the node, when it is back, must not.
func TestSharedNotHandedOnTwice(t *testing.T) {
	cluster(t, 3, func(c *broker.Config) { c.MaxInflight = 1 }, func(w *world) {
		p, k := w.connect(w.one, clean("p")), w.connect(w.two, clean("k"))
		k.subscribed("$share/g/t:2")
		p.publish(2, "t", "a")
		p.expect("PUBREC 1 00")
		k.expect(message("t", 2, "a"))
		w.HoldLink("n1", "n2", false, true)
		p.publish(2, "t", "b")
		p.expect()
		another := w.connect(w.three, clean("another"))
		another.subscribed("$share/g/t:2")
		w.two.HoldApply = true
		w.Verdict(w.two)
		p.expect("PUBREC 2 00")
		another.expect(message("t", 2, "b"))
		another.ack(mqtt.PUBREC, 1)
		another.expect("PUBREL 1 00")
		w.HoldLink("n1", "n2", false, false)
		w.two.HoldApply = false
		w.ms(500)
		another.expect()
		if n := w.two.Broker.Stats().Dropped[fsm.ReasonSessionEnded]; n != 1 {
			t.Errorf("%d messages count as of an ended session, want 1", n)
		}
	})
}
