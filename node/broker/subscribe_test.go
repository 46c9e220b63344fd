package broker_test

import (
	"testing"

	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// P4: SUBACK waits for every live node, also for one that is only slow.
func TestSubackWaitsForAllNodes(t *testing.T) {
	for name, connect := range map[string]*mqtt.Connect{"persistent": persistent("s"), "clean": clean("s")} {
		t.Run(name, func(t *testing.T) {
			cluster(t, 3, nil, func(w *world) {
				s := w.connect(w.one, connect)
				w.three.HoldApply = true
				s.subscribe("t:1")
				s.expect()
				w.three.HoldApply = false
				s.expect("SUBACK 1 01")
			})
		})
	}
}

// A node that has died holds nobody up for longer than its verdict takes.
func TestSubackAfterAVerdict(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		s := w.connect(w.one, clean("s"))
		w.three.Kill()
		s.subscribe("t:1")
		s.expect()
		w.Verdict(w.three)
		s.expect("SUBACK 1 01")
	})
}

// A second clean subscriber of a filter waits for the first one's barrier, and for nothing after it.
func TestSecondSubscriber(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		a, b, c := w.connect(w.one, clean("a")), w.connect(w.one, clean("b")), w.connect(w.one, clean("c"))
		w.two.HoldApply = true
		a.subscribe("t:1")
		b.subscribe("t:0")
		a.expect()
		b.expect()
		w.two.HoldApply = false
		a.expect("SUBACK 1 01")
		b.expect("SUBACK 1 00")
		w.one.HoldLog = true
		c.subscribe("t:2")
		c.expect("SUBACK 1 02")
	})
}

// A SUBSCRIBE that waits holds up neither PUBACK nor PINGRESP.
func TestSlowSubackHoldsNothingUp(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		c := w.connect(w.one, clean("c"))
		w.one.HoldMark = true
		c.subscribe("t:1")
		c.publish(1, "other", "x")
		c.send(&mqtt.Pingreq{})
		c.expect("PUBACK 2 10", "PINGRESP")
		w.one.HoldMark = false
		c.expect("SUBACK 1 01")
	})
}

// UNSUBSCRIBE waits for the SUBSCRIBEs before it, and the next SUBSCRIBE for it.
func TestUnsubscribeKeepsOrder(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		for _, p := range []*mqtt.Connect{clean("k"), persistent("s")} {
			c := w.connect(w.one, p)
			w.one.HoldMark = true
			c.subscribe("t:1")
			c.unsubscribe("t", "u")
			c.subscribe("t:2")
			c.expect()
			w.one.HoldMark = false
			c.expect("SUBACK 1 01", "UNSUBACK 2 0011", "SUBACK 3 02")
		}
	})
}

func TestUnsubackWaitsForTheLog(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		for _, p := range []*mqtt.Connect{clean("k"), persistent("s")} {
			c := w.connect(w.one, p)
			c.subscribed("t:1")
			w.one.HoldLog = true
			c.unsubscribe("t")
			c.expect()
			w.one.HoldLog = false
			c.expect("UNSUBACK 2 00")
		}
		if n := w.State().Route("t"); n.Persistent != 0 || len(n.Nodes) != 0 {
			t.Errorf("the route is %+v after UNSUBACK", n)
		}
	})
}

func TestRetained(t *testing.T) {
	for name, connect := range map[string]*mqtt.Connect{"persistent": persistent("s"), "clean": clean("s")} {
		t.Run(name, func(t *testing.T) {
			cluster(t, 2, nil, func(w *world) {
				p := w.connect(w.one, clean("p"))
				p.retain(1, "t/1", "old")
				p.retain(0, "t/0", "none")
				s := w.connect(w.two, connect)
				w.two.HoldMark = true
				s.subscribe("t/1:1")
				p.retain(1, "t/1", "new")
				w.two.HoldMark = false
				w.Run()
				got := s.Got()
				if connect.Clean { // active with the SUBACK: what it has missed by then is retained
					mustEqual(w.T, got, message("t/1", 1, "new", "retain"), "SUBACK 1 01")
				} else {
					mustEqual(w.T, got, message("t/1", 1, "old", "retain"), message("t/1", 1, "new"), "SUBACK 1 01")
				}
				s.subscribe("t/0:2")
				s.w.Run()
				mustHold(w.T, s.Got(), message("t/0", 0, "none", "retain"))
			})
		})
	}
}

// A clean subscriber's retained message and the live one that follows it in the log: each once, whatever
// its node has applied.
func TestRetainedThenLive(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		p, s := w.connect(w.one, clean("p")), w.connect(w.two, clean("s"))
		other := w.connect(w.two, clean("other"))
		other.subscribed("t:1") // so that the next SUBSCRIBE waits for nothing
		p.retain(1, "t", "1")
		w.two.HoldApply = true
		p.retain(1, "t", "2")
		s.subscribe("t:1")
		s.expect(message("t", 1, "1", "retain"), "SUBACK 1 01")
		w.two.HoldApply = false
		s.expect(message("t", 1, "2"))
	})
}

func TestRetainHandling(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		w.connect(w.one, clean("p")).retain(0, "t", "x")
		for _, p := range []*mqtt.Connect{clean("k"), persistent("s")} {
			c := w.connect(w.one, p)
			ask := func(handling byte) []string {
				c.send(&mqtt.Subscribe{PacketID: c.next(), Filters: []mqtt.Subscription{{Filter: "t", RetainHandling: handling}}})
				return c.Got()
			}
			mustEqual(w.T, ask(2), "SUBACK 1 00")
			mustEqual(w.T, ask(1), "SUBACK 2 00")
			mustHold(w.T, ask(0), message("t", 0, "x", "retain"))
		}
	})
}

func TestSubscribeIsRefused(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) {
		c.DenySubscribe, c.MaxSubscriptions, c.WildcardAvailable, c.SharedAvailable = []string{"secret/#"}, 2, false, false
	}, func(w *world) {
		c := w.connect(w.one, clean("c"))
		c.subscribe("a:1", "secret/x:1", "w/+:1", "$share/g/a:1", "b//c:0")
		c.expect("SUBACK 1 0187a29e00")
		c.subscribe("d:1", "a:2")
		c.expect("SUBACK 2 9702")
		for _, p := range []*mqtt.Connect{clean("many"), persistent("stored")} {
			c := w.connect(w.one, p) // in one packet, and in two at once
			c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "1"}, {Filter: "1"}}})
			c.send(&mqtt.Subscribe{PacketID: 2, Filters: []mqtt.Subscription{{Filter: "2"}, {Filter: "3"}}})
			mustEqual(w.T, c.Got(), "SUBACK 1 0000", "SUBACK 2 0097")
		}
	})
}

func TestNoLocalAndIdentifiers(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		for _, connect := range []*mqtt.Connect{clean("k"), persistent("s")} {
			c := w.connect(w.one, connect)
			c.send(&mqtt.Subscribe{PacketID: c.next(), SubscriptionID: 7, Filters: []mqtt.Subscription{{Filter: "t/#", QoS: 1, NoLocal: true}}})
			c.send(&mqtt.Subscribe{PacketID: c.next(), SubscriptionID: 3, Filters: []mqtt.Subscription{{Filter: "t/+", QoS: 1}}})
			mustHold(w.T, c.Got(), "SUBACK 2 01")
			c.publish(1, "t/1", "own")
			mustHold(w.T, c.Got(), message("t/1", 1, "own", "ids=[3]"))
			w.connect(w.two, clean("p")).publish(1, "t/1", "other")
			c.expect(message("t/1", 1, "other", "ids=[3 7]"))
			c.Cut()
			w.Run()
		}
	})
}
