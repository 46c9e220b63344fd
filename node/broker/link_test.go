package broker_test

import (
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// A broken stream is resumed: nothing is lost or repeated at QoS 1, and what is lost at QoS 0 counts.
func TestBrokenLink(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		k, p := w.connect(w.two, clean("k")), w.connect(w.one, clean("p"))
		k.subscribed("t:1")
		w.HoldLink("n1", "n2", false, true)
		p.publish(1, "t", "arrived")
		k.expect(message("t", 1, "arrived"))
		w.HoldLink("n1", "n2", true, true)
		p.publish(1, "t", "sent")
		p.publish(0, "t", "lost")
		w.BreakLink("n1", "n2")
		w.HoldLink("n1", "n2", false, false)
		w.ms(500)
		p.expect("PUBACK 1 00", "PUBACK 2 00")
		k.expect(message("t", 1, "sent"))
		if n := w.one.Broker.Stats().Dropped[fsm.ReasonLink]; n != 1 {
			t.Errorf("%d messages were lost on the link, want 1", n)
		}
	})
}

// Two nodes that can't reach each other send what is owed through the log.
func TestRelay(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		k, p := w.connect(w.two, clean("k")), w.connect(w.one, clean("p"))
		k.subscribed("t:1")
		w.SetCut("n1", "n2", true)
		p.publish(1, "t", "1")
		p.publish(1, "t", "2")
		p.expect()
		w.ms(3000)
		p.expect("PUBACK 1 00", "PUBACK 2 00")
		k.expect(message("t", 1, "1"), message("t", 1, "2"))
		w.SetCut("n1", "n2", false)
		p.publish(1, "t", "3")
		w.ms(3000)
		p.expect("PUBACK 3 00")
		k.expect(message("t", 1, "3"))
	})
}

// A node without a lease takes no frames at QoS 1, and has them all when it is back.
func TestFramesWaitForTheLease(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		k, p := w.connect(w.two, clean("k")), w.connect(w.one, clean("p"))
		k.subscribed("t:1")
		w.two.LoseLease()
		w.Run()
		p.publish(1, "t", "x")
		w.ms(50)
		p.expect()
		k.expect()
		w.two.GrantLease()
		w.ms(50)
		p.expect("PUBACK 1 00")
		k.expect(message("t", 1, "x"))
	})
}

// The node that was asked for a member of a group has none any more: another one has it, before PUBACK.
func TestGroupMemberHasGone(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		a, p := w.connect(w.two, clean("a")), w.connect(w.one, clean("p"))
		a.subscribed("$share/g/t:1")
		w.HoldLink("n1", "n2", true, false)
		p.publish(1, "t", "x")
		a.Cut()
		b := w.connect(w.three, clean("b"))
		b.subscribed("$share/g/t:1")
		p.expect()
		w.HoldLink("n1", "n2", false, false)
		p.expect("PUBACK 1 00")
		b.expect(message("t", 1, "x"))
	})
}

// The node that was asked is dead.
func TestGroupMemberIsDead(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		p := w.connect(w.one, clean("p"))
		w.connect(w.two, clean("a")).subscribed("$share/g/t:1")
		w.two.Kill()
		p.publish(1, "t", "x")
		w.Verdict(w.two)
		b := w.connect(w.three, clean("b"))
		b.subscribed("$share/g/t:1")
		p.expect("PUBACK 1 00") // nobody was left: counted
		if n := w.one.Broker.Stats().Dropped[fsm.ReasonNoMember]; n != 1 {
			t.Errorf("%d messages count as without a member, want 1", n)
		}
		p.publish(1, "t", "y")
		p.expect("PUBACK 2 00")
		b.expect(message("t", 1, "y"))
	})
}

// A clean member leaves with messages that it has not acknowledged: another one has those at QoS 1, and
// those at QoS 2 that were never sent.
func TestGroupHandsOn(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		c := clean("a")
		c.HasReceiveMaximum, c.ReceiveMaximum = true, 2
		a, p := w.connect(w.one, c), w.connect(w.two, clean("p"))
		a.subscribed("$share/g/t:2")
		p.publish(1, "t", "one")
		p.publish(2, "t", "two")
		p.publish(2, "t", "unsent")
		a.expect(message("t", 1, "one"), message("t", 2, "two"))
		b := w.connect(w.two, clean("b"))
		b.subscribed("$share/g/t:2")
		a.Cut()
		w.Run()
		b.expect(message("t", 1, "one"), message("t", 2, "unsent"))
	})
}

// Each message of a group goes to one member, persistent or clean; the log assigns it.
func TestMixedGroup(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		members := []*client{
			w.connect(w.one, clean("a")), w.connect(w.two, persistent("b")), w.connect(w.three, clean("c")),
		}
		for _, m := range members {
			m.subscribed("$share/g/t:1")
		}
		p := w.connect(w.one, clean("p"))
		const n = 30
		for range n {
			p.publish(1, "t", "x")
		}
		total := 0
		for _, m := range members {
			got := len(m.Got())
			if got == 0 {
				t.Error("a member got nothing")
			}
			total += got
		}
		if total != n {
			t.Errorf("%d messages arrived, want %d", total, n)
		}
	})
}

// A clean member's node dies before it has acknowledged what the log assigned to it.
func TestAssignedToADeadNode(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		a := w.connect(w.two, clean("a"))
		a.subscribed("$share/g/t:1")
		p := w.connect(w.one, persistent("p"))
		p.publish(2, "t", "x") // by the log
		p.expect("PUBREC 1 00")
		a.expect(message("t", 1, "x"))
		b := w.connect(w.one, clean("b"))
		b.subscribed("$share/g/t:1")
		w.two.Kill()
		w.Verdict(w.two)
		b.expect(message("t", 1, "x"))
	})
}

// What was acknowledged and confirmed is not assigned again.
func TestAssignmentIsSettled(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		a := w.connect(w.two, clean("a"))
		a.subscribed("$share/g/t:1")
		p := w.connect(w.one, persistent("p"))
		p.publish(2, "t", "x")
		a.expect(message("t", 1, "x"))
		a.ack(mqtt.PUBACK, 1)
		w.ms(300)
		if n := w.State().Counts().Assigned; n != 0 {
			t.Errorf("%d assignments are left", n)
		}
	})
}
