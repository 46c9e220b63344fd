package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// roads are how many publishes took the link road and the log road.
func roads(w *world) [2]uint64 { return w.one.Broker.Stats().Published }

func TestRoads(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		p, s := w.connect(w.one, clean("p")), w.connect(w.one, persistent("s"))
		w.connect(w.two, clean("k")).subscribed("clean:2", "both:1")
		s.subscribed("both:1", "zero:0")
		for _, c := range []struct {
			from    *client
			topic   string
			qos     byte
			retain  bool
			road    int
			because string
		}{
			{p, "nobody", 1, false, 0, ""},
			{p, "clean", 2, false, 0, ""},
			{p, "both", 0, false, 0, ""},
			{p, "zero", 2, false, 0, "the session is owed nothing at QoS 0"},
			{p, "both", 1, false, 1, "a session is owed it"},
			{p, "nobody", 0, true, 1, "it is retained"},
			{s, "clean", 2, false, 1, "the log judges what is a repeat"},
		} {
			before := roads(w)
			if c.retain {
				c.from.retain(c.qos, c.topic, "x")
			} else {
				c.from.publish(c.qos, c.topic, "x")
			}
			after := roads(w)
			if after[c.road] != before[c.road]+1 || after[1-c.road] != before[1-c.road] {
				t.Errorf("%s at QoS %d, retain %v: roads %v after %v (%s)", c.topic, c.qos, c.retain, after, before, c.because)
			}
			if c.from == p && !c.retain {
				if name, _ := w.one.Broker.Road(c.topic, c.qos, false, false); name != broker.RoadNames[c.road] {
					t.Errorf("Road says %s of %s at QoS %d", name, c.topic, c.qos)
				}
			}
		}
	})
}

// PUBACK waits until the log has the message, and for nothing that other nodes do with it.
func TestPubackOfTheLogRoad(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		s := w.connect(w.two, persistent("s"))
		s.subscribed("t:1")
		p := w.connect(w.one, clean("p"))
		w.one.HoldLog, w.two.HoldApply = true, true
		p.publish(1, "t", "x")
		p.expect()
		w.one.HoldLog = false
		p.expect("PUBACK 1 00")
		s.expect()
		w.two.HoldApply = false
		s.expect(message("t", 1, "x"))
	})
}

// PUBACK waits until every node with a subscriber has taken the message.
func TestPubackOfTheLinkRoad(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		w.connect(w.two, clean("a")).subscribed("t:1")
		b := w.connect(w.three, clean("b"))
		b.subscribed("t:1")
		p := w.connect(w.one, clean("p"))
		w.HoldLink("n1", "n2", false, true)
		w.HoldLink("n1", "n3", true, false)
		p.publish(1, "t", "x")
		p.publish(2, "t", "y")
		p.expect()
		w.HoldLink("n1", "n2", false, false)
		p.expect()
		w.HoldLink("n1", "n3", false, false)
		p.expect("PUBACK 1 00", "PUBREC 2 00")
		b.expect(message("t", 1, "x"), message("t", 1, "y"))
	})
}

// A node that dies is waited for until its verdict, and no longer.
func TestPubackAfterAVerdict(t *testing.T) {
	cluster(t, 3, nil, func(w *world) {
		w.connect(w.two, clean("a")).subscribed("t:1")
		p := w.connect(w.one, clean("p"))
		w.two.Kill()
		p.publish(1, "t", "x")
		p.expect()
		w.Verdict(w.two)
		p.expect("PUBACK 1 00")
	})
}

// Answers of one type keep their order, whatever the road.
func TestAnswersKeepOrder(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		w.connect(w.two, persistent("s")).subscribed("log:1")
		p := w.connect(w.one, clean("p"))
		w.one.HoldLog = true
		p.publish(1, "log", "x")
		p.publish(1, "nobody", "x")
		p.publish(2, "nobody", "x")
		p.expect("PUBREC 3 10")
		w.one.HoldLog = false
		p.expect("PUBACK 1 00", "PUBACK 2 10")
	})
}

// At QoS 0 nobody needs a lease; a publish that has to wait for one holds up what comes behind it, in
// order, but not the client's other packets.
func TestPublishWaitsForTheLease(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		k, p := w.connect(w.one, clean("k")), w.connect(w.one, clean("p"))
		k.subscribed("t:1")
		w.one.LoseLease()
		w.Run()
		p.publish(0, "t", "0")
		p.publish(1, "t", "1")
		p.publish(0, "t", "2")
		p.send(&mqtt.Pingreq{})
		p.expect("PINGRESP")
		k.expect(message("t", 0, "0"))
		w.one.GrantLease()
		p.expect("PUBACK 1 00")
		k.expect(message("t", 1, "1"), message("t", 0, "2"))
	})
}

// From the link road to the log: the log waits until the links have acknowledged.
func TestLogWaitsForTheLinks(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		k, s := w.connect(w.two, clean("k")), w.connect(w.two, persistent("s"))
		k.subscribed("t:1")
		p := w.connect(w.one, clean("p"))
		w.HoldLink("n1", "n2", true, false)
		p.publish(1, "t", "link")
		s.subscribed("t:1")
		p.publish(1, "t", "log")
		p.publish(1, "t", "log too")
		if r := roads(w); r[1] != 0 {
			t.Errorf("%d publishes are in the log already", r[1])
		}
		p.publish(0, "t", "zero") // behind those that wait
		k.expect()
		w.HoldLink("n1", "n2", false, false)
		k.expect(message("t", 1, "link"), message("t", 1, "log"), message("t", 1, "log too"), message("t", 0, "zero"))
		p.expect("PUBACK 1 00", "PUBACK 2 00", "PUBACK 3 00")
	})
}

// A congested link stops whoever publishes to it; what is dropped at QoS 0 counts.
func TestCongestedLink(t *testing.T) {
	simulate(t, 2, 4096, nil, func(w *world) {
		k, p := w.connect(w.two, clean("k")), w.connect(w.one, clean("p"))
		k.subscribed("t:1")
		w.HoldLink("n1", "n2", true, false)
		big := strings.Repeat("x", 5000)
		p.publish(1, "t", big)
		p.publish(1, "t", "second")
		other := w.connect(w.one, clean("other"))
		other.publish(0, "t", "dropped")
		other.publish(0, "t", "waits")
		if n := w.one.Broker.Stats().Dropped[fsm.ReasonLink]; n != 1 {
			t.Errorf("%d messages were dropped, want 1", n)
		}
		w.HoldLink("n1", "n2", false, false)
		k.expect(message("t", 1, big), message("t", 1, "second"), message("t", 0, "waits"))
		p.expect("PUBACK 1 00", "PUBACK 2 00")
	})
}

// A 3.x client can't know Receive Maximum: it is not taken more from, rather than closed.
func TestBusyClient(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.ReceiveMaximum = 2 }, func(w *world) {
		w.connect(w.one, persistent("s")).subscribed("t:1")
		five := w.connect(w.one, clean("five"))
		old := &client{Conn: w.Dial(w.one), w: w}
		old.Version = mqtt.V311
		old.Send(clean("old"))
		old.expect("CONNACK 00")
		w.one.HoldLog = true
		for i := range 4 {
			old.publish(1, "t", fmt.Sprint(i))
			five.publish(1, "t", fmt.Sprint(i))
		}
		five.expect("DISCONNECT 93", "closed")
		old.send(&mqtt.Pingreq{})
		old.expect("PINGRESP")
		w.one.HoldLog = false
		old.expect("PUBACK 1 00", "PUBACK 2 00", "PUBACK 3 00", "PUBACK 4 00")
	})
}

// Much that waits for the log: the client is not read any more, and then again.
func TestBacklog(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.MaxPacketSize, c.MaxBufferedBytes = 3<<20, 1<<20 }, func(w *world) {
		w.connect(w.one, persistent("s")).subscribed("t:1")
		p := w.connect(w.one, clean("p"))
		w.one.HoldLog = true
		big := strings.Repeat("x", 3<<20-100)
		for range 4 {
			p.publish(1, "t", big)
		}
		if r := roads(w); r[1] >= 4 {
			t.Errorf("%d publishes of 3 MiB were taken while nothing moves", r[1])
		}
		w.one.HoldLog = false
		w.ms(600)
		p.expect("PUBACK 1 00", "PUBACK 2 00", "PUBACK 3 00", "PUBACK 4 00")
	})
}

// DISCONNECT comes behind the publishes that wait.
func TestGoodbyeBehindHeldPublishes(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		k := w.connect(w.one, clean("k"))
		k.subscribed("t:1", "will:1")
		c := clean("p")
		c.Will = &mqtt.Will{Topic: "will"}
		p := w.connect(w.one, c)
		w.one.LoseLease()
		w.Run()
		p.Send(p.publication(1, "t", "x"), p.publication(0, "t", "y"), &mqtt.Disconnect{})
		p.expect()
		k.expect()
		w.one.GrantLease()
		p.expect("PUBACK 1 00", "closed")
		k.expect(message("t", 1, "x"), message("t", 0, "y"))
	})
}

// QoS 2 of a persistent publisher: a repeat that comes in elsewhere is found by the log, and the packet
// id is free for another message after PUBCOMP only.
func TestQoS2AcrossNodes(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		s := w.connect(w.two, persistent("s"))
		s.subscribed("t:2")
		p := w.connect(w.one, persistent("p"))
		w.HoldLink("n1", "n2", true, true) // it has nothing to do with links
		p.publish(2, "t", "x")
		p.expect("PUBREC 1 00")
		w.one.Kill()
		w.Verdict(w.one)
		again := w.connect(w.two, persistent("p"))
		m := again.publication(2, "t", "x")
		m.Dup = true
		again.send(m)
		again.expect("PUBREC 1 00")
		s.expect(message("t", 2, "x"))
		again.ack(mqtt.PUBREL, 1)
		again.expect("PUBCOMP 1 00")
		again.ack(mqtt.PUBREL, 1)
		again.expect("PUBCOMP 1 92")
		again.id = 0
		again.publish(2, "t", "y")
		again.expect("PUBREC 1 00")
		s.expect(message("t", 2, "y"))
	})
}

func TestPublishIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		m    mqtt.Publish
		want string
	}{
		"QoS":    {mqtt.Publish{Topic: []byte("t"), QoS: 2, PacketID: 1}, "DISCONNECT 9b"},
		"retain": {mqtt.Publish{Topic: []byte("t"), Retain: true}, "DISCONNECT 9a"},
		"levels": {mqtt.Publish{Topic: []byte(strings.Repeat("t/", 40))}, "DISCONNECT 90"},
		"alias":  {mqtt.Publish{Topic: []byte("t"), TopicAlias: 99}, "DISCONNECT 94"},
		"$SYS":   {mqtt.Publish{Topic: []byte("$SYS/x"), QoS: 1, PacketID: 1}, "PUBACK 1 87"},
	} {
		t.Run(name, func(t *testing.T) {
			cluster(t, 1, func(c *broker.Config) { c.MaxQoS, c.RetainAvailable = 1, false }, func(w *world) {
				p := w.connect(w.one, clean("p"))
				p.send(&c.m)
				if got := p.Got(); len(got) == 0 || got[0] != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		})
	}
}
