package broker_test

import (
	"testing"

	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/test/sim"
)

func TestConnectWaitsForTheLog(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		w.one.HoldApply = true
		c := w.dial(w.one, persistent("c"))
		c.send(&mqtt.Pingreq{})
		c.expect()
		w.one.HoldApply = false
		c.expect("CONNACK 00", "PINGRESP")
	})
}

func TestConnectWaitsForTheLease(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		w.one.HoldApply = true
		c := w.dial(w.one, persistent("c"))
		w.one.LoseLease()
		w.one.HoldApply = false
		c.expect()
		w.one.GrantLease()
		c.expect("CONNACK 00")
	})
}

func TestConnectGivesUp(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		w.one.HoldApply = true
		c := w.dial(w.one, clean("c"))
		w.ms(11_000)
		c.expect("CONNACK 88", "closed")
		w.one.HoldApply = false
		w.Run()
		if _, ok := w.State().Session("c"); ok {
			t.Error("the log has a client that was refused")
		}
		if n := w.one.Broker.Stats().Refused; n != 1 {
			t.Errorf("%d refusals are counted, want 1", n)
		}
	})
}

// The client that asks for nothing is let go.
func TestConnectNeverComes(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		c := &client{Conn: w.Dial(w.one), w: w}
		c.SendRaw([]byte{0x10})
		w.ms(11_000)
		c.expect("closed")
		if n := w.one.Broker.Stats().Timeouts; n != 1 {
			t.Errorf("%d time-outs are counted, want 1", n)
		}
	})
}

// A client that was refused while its CONNECT was in the log leaves neither a connection nor a will.
func TestConnectThatWasRefusedMeanwhile(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		s := w.connect(w.two, clean("s"))
		s.subscribed("will:1")
		w.one.HoldApply = true
		p := persistent("c")
		p.Will = &mqtt.Will{Topic: "will", QoS: 1}
		c := w.dial(w.one, p)
		w.ms(11_000)
		c.expect("CONNACK 88", "closed")
		w.one.HoldApply = false
		s.expect()
		if i, ok := w.State().Session("c"); !ok || i.Connected {
			t.Errorf("session %v, connected %v; want one that waits", ok, i.Connected)
		}
		w.dial(w.two, persistent("c")).expect("CONNACK 00 present")
	})
}

func TestConnectBeforeService(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		w.two.Kill()
		w.two.Start(true)
		w.two.HoldApply = true // it does not hear of its own incarnation
		early := w.dial(w.two, persistent("early"))
		w.ms(4_000)
		early.expect("CONNACK 88", "closed")
		late := w.dial(w.two, persistent("late"))
		late.expect()
		w.two.HoldApply = false
		late.expect("CONNACK 00")
	})
}

func TestTakeover(t *testing.T) {
	for name, to := range map[string]int{"on one node": 0, "on another": 1} {
		t.Run(name, func(t *testing.T) {
			cluster(t, 2, nil, func(w *world) {
				old := w.connect(w.one, persistent("c"))
				old.subscribed("t:1")
				now := w.dial(w.Nodes()[to], persistent("c"))
				old.expect("DISCONNECT 8e", "closed")
				now.expect("CONNACK 00 present")
				p := w.connect(w.one, clean("p"))
				p.publish(1, "t", "x")
				now.expect(message("t", 1, "x"))
				old.Leave()
				if n := w.one.Broker.Stats().Clients + w.two.Broker.Stats().Clients; n != 2 {
					t.Errorf("%d clients are connected, want 2", n)
				}
			})
		})
	}
}

// What an old owner takes before it has heard of the takeover is neither acknowledged nor delivered.
func TestOldOwnerIsFenced(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		s := w.connect(w.three, persistent("s"))
		k := w.connect(w.three, clean("k"))
		s.subscribed("log:2")
		k.subscribed("link:1")
		old := w.connect(w.one, persistent("c"))
		w.one.HoldApply = true
		now := w.connect(w.two, persistent("c"))
		old.publish(2, "log", "late")
		old.publish(1, "link", "late")
		old.expect()
		s.expect()
		k.expect()
		now.publish(1, "link", "new")
		k.expect(message("link", 1, "new"))
		w.one.HoldApply = false
		old.expect("DISCONNECT 8e", "closed")
		s.expect()
		k.expect()
	})
}

func TestCleanStartEndsTheSession(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		c := w.connect(w.one, persistent("c"))
		c.subscribed("t:1")
		c.send(&mqtt.Disconnect{})
		p := persistent("c")
		p.Clean = true
		w.dial(w.two, p).expect("CONNACK 00")
		if s, _ := w.State().Session("c"); s.Subscriptions != 0 {
			t.Errorf("%d subscriptions are left of the old session", s.Subscriptions)
		}
	})
}

func TestConnectIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		packet sim.Packet
		want   []string
	}{
		"something else first": {&mqtt.Pingreq{}, []string{"closed"}},
		"a will to $SYS":       {will("$SYS/x", 0, false), []string{"CONNACK 90", "closed"}},
		"a will at QoS 2":      {will("t", 2, false), []string{"CONNACK 9b", "closed"}},
		"a retained will":      {will("t", 0, true), []string{"CONNACK 9a", "closed"}},
		"authentication":       {&mqtt.Connect{ClientID: "c", AuthMethod: "x"}, []string{"CONNACK 8c", "closed"}},
	} {
		t.Run(name, func(t *testing.T) {
			cluster(t, 1, func(c *broker.Config) { c.MaxQoS, c.RetainAvailable = 1, false }, func(w *world) {
				k := &client{Conn: w.Dial(w.one), w: w}
				k.Send(c.packet)
				k.expect(c.want...)
				if w.State().Counts().CleanClients != 0 {
					t.Error("it is in the log")
				}
			})
		})
	}
}

func will(topic string, qos byte, retain bool) *mqtt.Connect {
	return &mqtt.Connect{ClientID: "c", Clean: true, Will: &mqtt.Will{Topic: topic, QoS: qos, Retain: retain}}
}

func TestSecondConnect(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		c := w.connect(w.one, clean("c"))
		c.send(clean("c"))
		c.expect("DISCONNECT 82", "closed")
		if n := w.one.Broker.Stats().ProtocolErrors; n != 1 {
			t.Errorf("%d protocol errors are counted, want 1", n)
		}
	})
}

func TestMaxConnections(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.MaxConnections = 1 }, func(w *world) {
		a := w.connect(w.one, clean("a"))
		w.dial(w.one, clean("b")).expect("closed")
		a.Cut()
		w.Run()
		w.dial(w.one, clean("b")).expect("CONNACK 00")
		if s := w.one.Broker.Stats(); s.Refused != 1 || s.Connections != 1 || s.Opened != 2 || s.Closed != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWills(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(w *world, c *client)
		want []string
	}{
		"cut":           {func(_ *world, c *client) { c.Cut() }, []string{message("will", 1, "w")}},
		"left":          {func(_ *world, c *client) { c.Leave() }, []string{message("will", 1, "w")}},
		"said goodbye":  {func(_ *world, c *client) { c.send(&mqtt.Disconnect{}) }, nil},
		"with a will":   {func(_ *world, c *client) { c.send(&mqtt.Disconnect{Code: mqtt.DisconnectWithWillMessage}) }, []string{message("will", 1, "w")}},
		"node is dead":  {func(w *world, _ *client) { w.one.Kill(); w.Verdict(w.one) }, []string{message("will", 1, "w")}},
		"taken over":    {func(w *world, _ *client) { w.connect(w.two, clean("c")) }, []string{message("will", 1, "w")}},
		"administrator": {func(w *world, _ *client) { w.one.Broker.Disconnect("c") }, []string{message("will", 1, "w")}},
	} {
		t.Run(name, func(t *testing.T) {
			cluster(t, 2, nil, func(w *world) {
				s := w.connect(w.two, clean("s"))
				s.subscribed("will:1")
				p := clean("c")
				p.Will = &mqtt.Will{Topic: "will", QoS: 1, Payload: []byte("w")}
				c.end(w, w.connect(w.one, p))
				s.expect(c.want...)
				w.ms(1000)
				s.expect()
			})
		})
	}
}
