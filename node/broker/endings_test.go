package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// TestEndsWhileRouting: a connection ends while one of its publishes that were held back is on its way
// to the links, where the connection's lock is let go.
func TestEndsWhileRouting(t *testing.T) {
	l, nodes := newLone(t, nil, "n2")
	l.propose(nodes[0], interestOf("t", "", 1), func(fsm.Result, error) {})
	l.settle()
	p := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "p"})
	c := l.on("p")
	l.leased.Store(false)
	p.publish("t", 1, 1)
	for range 3 {
		p.publish("t", 0, 0)
	}
	l.eventually("publishes are held", func() bool {
		c.conn.Lock()
		defer c.conn.Unlock()
		return c.intake.held != nil && len(c.intake.bytes) == 3*7
	})
	sent := 0
	send := func(to fsm.NodeRef, f *clusterpb.Frame, done clusterpb.LinkDone) bool {
		if sent++; sent == 2 {
			c.with(func(ba *conn.Batch) { c.dismiss(mqtt.AdministrativeAction, ba) })
		}
		if done != nil {
			done.LinkDone(to.Node, clusterpb.LinkTaken)
		}
		return true
	}
	l.onSend.Store(&send)
	l.leased.Store(true)
	l.LeaseBack()
	if sent != 2 {
		t.Errorf("%d frames left, want 2: what follows is not taken any more", sent)
	}
	if n := l.Losses("p")[fsm.ReasonNoQuorum]; n != 2 {
		t.Errorf("%d publishes are counted as lost, want the 2 that were not taken", n)
	}
}

// TestBeforeService: what the log holds from before is neither delivered nor counted again, and needs no
// cluster: it comes while that is being opened.
func TestBeforeService(t *testing.T) {
	b, err := New(Config{
		Node: "n1", MaxPacketSize: 1 << 20, ReceiveMaximum: 1, MaxInflight: 1, ConnectTimeout: time.Minute, MaxBufferedBytes: 4096,
	}, fsm.New("n1"))
	if err != nil {
		t.Fatal(err)
	}
	m := &fsm.Message{Topic: "t", Publisher: "p", QoS: 1, Expires: 1000}
	b.Apply([]fsm.Effect{
		{Kind: fsm.EffectPublished, Message: m, Index: 1, Picks: []fsm.Pick{{ID: 1, Filter: "t", Group: "g"}}},
		{Kind: fsm.EffectPicked, Message: m, Index: 2, Picks: []fsm.Pick{{ID: 2, Filter: "t", Group: "g"}}},
		{Kind: fsm.EffectDropped, Client: "c", Reason: fsm.ReasonExpired, N: 5, Index: 3},
	})
	if s := b.Stats(); s.Dropped != [fsm.ReasonCount]uint64{} {
		t.Errorf("counted: %v", s.Dropped)
	}
}

// TestDropsOnce: what the owner of a session drops counts once, for its client as in the sums.
func TestDropsOnce(t *testing.T) {
	l, _ := newLone(t, nil)
	s := l.dial(&mqtt.Connect{Version: mqtt.V5, ClientID: "s", HasSessionExpiry: true, SessionExpiry: 60, HasMaxPacketSize: true, MaxPacketSize: 40})
	s.subscribe("t/#", 1)
	p := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "p"})
	p.publish("t/a-topic-that-makes-the-packet-too-large", 1, 1)
	p.expect(mqtt.PUBACK)
	l.eventually("it is dropped", func() bool { return l.Losses("s")[fsm.ReasonTooLarge] == 1 })
	l.settle()
	info, _ := l.on("s").describe()
	if n := info.Dropped[fsm.ReasonTooLarge]; n != 1 {
		t.Errorf("the client lost %d", n)
	}
	if n := l.Stats().Dropped[fsm.ReasonTooLarge]; n != 1 {
		t.Errorf("the node dropped %d", n)
	}
}

// guests may not have messages of a topic that begins with "secret".
type guests struct{ Rights }

func (guests) MayReceive(topic string) bool { return !strings.HasPrefix(topic, "secret") }

// TestGroupWithoutPermission: a message for a group of which nobody may have it is dropped and counted,
// not handed around in the log for ever.
func TestGroupWithoutPermission(t *testing.T) {
	l, _ := newLone(t, nil)
	s := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "s"})
	s.subscribe("$share/g/secret/#", 1)
	p := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "p"})
	l.on("s").with(func(*conn.Batch) { l.on("s").rights = guests{} })                                                                  // before p publishes: the log carries that in between
	p.send((&mqtt.Publish{QoS: 1, Retain: true, Topic: []byte("secret/1"), PacketID: 1, Payload: []byte("x")}).Append(nil, p.version)) // by the log
	p.expect(mqtt.PUBACK)
	p.publish("secret/2", 1, 2) // by the links
	p.expect(mqtt.PUBACK)
	l.settle()
	l.eventually("both are settled", func() bool { return l.Losses("s")[fsm.ReasonNotAllowed] == 2 && l.fsm.Counts().Assigned == 0 })
}

// TestNeverSentIsHandedOn: a QoS 2 message that waits for a member of a group goes to another one when
// that member ends [MQTT-4.8.2-5].
func TestNeverSentIsHandedOn(t *testing.T) {
	l, _ := newLone(t, nil)
	one := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "one", HasReceiveMaximum: true, ReceiveMaximum: 1})
	one.subscribe("$share/g/t", 2)
	p := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "p"})
	for _, payload := range []string{"sent", "waits"} {
		m := &mqtt.Publish{QoS: 2, Retain: true, Topic: []byte("t"), PacketID: uint16(len(payload)), Payload: []byte(payload)}
		p.send(m.Append(nil, p.version)) // by the log
		p.expect(mqtt.PUBREC)
	}
	one.expect(mqtt.PUBLISH)
	two := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "two"})
	two.subscribe("$share/g/t", 2)
	_ = one.Close()
	if body := two.expect(mqtt.PUBLISH); !strings.HasSuffix(string(body), "waits") {
		t.Errorf("got %q", body)
	}
}

// TestLaterSubscribeCounts: of two SUBSCRIBEs of one filter that are under way the later one decides,
// though it has nothing to wait for but the first one's barrier.
func TestLaterSubscribeCounts(t *testing.T) {
	l, _ := newLone(t, nil)
	s := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "s"})
	l.hold(true)
	for qos := range byte(2) {
		s.send((&mqtt.Subscribe{PacketID: uint16(qos + 1), Filters: []mqtt.Subscription{{Filter: "t", QoS: qos}}}).Append(nil, s.version))
	}
	c := l.on("s")
	l.eventually("the second is active", func() bool {
		c.conn.Lock()
		defer c.conn.Unlock()
		return c.subs[subKey{"t", ""}] != nil && c.subs[subKey{"t", ""}].QoS == 1
	})
	l.hold(false)
	s.expect(mqtt.SUBACK)
	s.expect(mqtt.SUBACK)
	p := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "p"})
	p.publish("t", 1, 1)
	if first, _ := s.next(); first != 0x32 {
		t.Errorf("got %x, want a PUBLISH at QoS 1", first)
	}
}

// TestGoodbyeBehindPublishes: who has sent DISCONNECT has no will any more, also when the connection is
// ended before the publishes in front of it could be taken.
func TestGoodbyeBehindPublishes(t *testing.T) {
	l, _ := newLone(t, nil)
	p := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "p", Will: &mqtt.Will{Topic: "will", Retain: true, Payload: []byte("x")}})
	c := l.on("p")
	l.leased.Store(false)
	p.publish("t", 1, 1)
	p.send((&mqtt.Disconnect{}).Append(nil, p.version))
	l.eventually("both have come", func() bool {
		c.conn.Lock()
		defer c.conn.Unlock()
		return c.intake.goodbye != nil
	})
	if !c.quiet() {
		t.Error("a drain would wait for it")
	}
	c.with(func(ba *conn.Batch) { c.dismiss(mqtt.ServerUnavailable, ba) })
	l.settle()
	if n := l.fsm.RetainedCount(); n != 0 {
		t.Error("the will was published")
	}
	if n := l.fsm.Counts().CleanClients; n != 0 {
		t.Errorf("%d clients are left", n)
	}
}

// TestNobodyIsAdmittedWithoutALease: the news that the lease is back may be late.
func TestNobodyIsAdmittedWithoutALease(t *testing.T) {
	l, _ := newLone(t, nil)
	p := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "p"})
	l.leased.Store(false)
	c := l.on("p")
	c.with(func(*conn.Batch) { c.phase = phaseGated }) // as one whose CONNECT was applied just now
	l.LeaseBack()
	if c.phase != phaseGated {
		t.Error("it was admitted")
	}
	l.leased.Store(true)
	l.LeaseBack()
	p.expect(mqtt.CONNACK)
}

// TestFramesOfTheDead: what the log had relayed of a node comes after the verdict on it, when this node
// had to wait for its lease. It is delivered unless what it follows never came.
func TestFramesOfTheDead(t *testing.T) {
	l, nodes := newLone(t, nil, "n2")
	s := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "s"})
	s.subscribe("t", 1)
	l.holds.pass(nodes[0], 5)
	l.holds.end(nodes[0])
	for after, payload := range map[uint64]string{5: "follows", 6: "lost"} {
		f := &clusterpb.Frame{ClientID: "p", Epoch: 1, Topic: "t", Payload: []byte(payload), QoS: 1, Plain: true, After: after}
		l.Deliver(nodes[0], f)
	}
	if body := s.expect(mqtt.PUBLISH); !strings.HasSuffix(string(body), "follows") {
		t.Errorf("got %q", body)
	}
	if n := l.Losses("p")[fsm.ReasonNoQuorum]; n != 1 {
		t.Errorf("%d are counted", n)
	}
	l.holds.end(fsm.NodeRef{Node: "n2", Incarnation: nodes[0].Incarnation + 1})
	l.holds.mu.Lock()
	defer l.holds.mu.Unlock()
	if _, ok := l.holds.nodes[nodes[0]]; ok {
		t.Error("it is remembered for ever")
	}
}
