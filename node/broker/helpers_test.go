package broker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/test/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a cluster in which everything flows but for what a test holds back.
type world struct {
	*sim.World
	one, two, three *sim.Node
}

func cluster(t *testing.T, nodes int, change func(c *broker.Config), fn func(w *world)) {
	t.Helper()
	simulate(t, nodes, 0, change, fn)
}

// simulate is cluster with a bound for what waits on a link, in bytes.
func simulate(t *testing.T, nodes, linkBuffer int, change func(c *broker.Config), fn func(w *world)) {
	t.Helper()
	opt := sim.Options{Nodes: nodes, LinkBuffer: linkBuffer}
	if change != nil {
		opt.Broker = func(_ string, c *broker.Config) { change(c) }
	}
	sim.Test(t, opt, func(s *sim.World) {
		w := &world{World: s}
		for i, n := range s.Nodes() {
			*[]**sim.Node{&w.one, &w.two, &w.three}[i] = n
		}
		fn(w)
	})
}

// client is a client that says what it is told to.
type client struct {
	*sim.Conn
	w  *world
	id uint16 // the last packet id

	name      string // and the rest: for sequences
	got, said []string
}

// persistent and clean are what a CONNECT asks for.
func persistent(id string) *mqtt.Connect {
	return &mqtt.Connect{ClientID: id, HasSessionExpiry: true, SessionExpiry: 3600}
}

func clean(id string) *mqtt.Connect { return &mqtt.Connect{ClientID: id, Clean: true} }

// dial opens a connection and sends CONNECT.
func (w *world) dial(n *sim.Node, p *mqtt.Connect) *client {
	c := &client{Conn: w.Dial(n), w: w}
	c.Send(p)
	w.Run()
	return c
}

// connect is dial with a CONNACK.
func (w *world) connect(n *sim.Node, p *mqtt.Connect) *client {
	w.T.Helper()
	c := w.dial(n, p)
	got := c.Got()
	if len(got) == 0 || !strings.HasPrefix(got[0], "CONNACK 00") {
		w.T.Fatalf("%s: got %q, want a CONNACK", p.ClientID, got)
	}
	return c
}

// expect compares what has come since the last look.
func (c *client) expect(want ...string) {
	c.w.T.Helper()
	c.w.Run()
	if got := c.Got(); !slices.Equal(got, want) {
		c.w.T.Fatalf("got  %q\nwant %q", got, want)
	}
}

// send sends and lets everything flow.
func (c *client) send(p ...sim.Packet) {
	c.Send(p...)
	c.w.Run()
}

func (c *client) next() uint16 {
	c.id++
	return c.id
}

// subscribe asks for filters like "a/#:1", filter and QoS.
func (c *client) subscribe(filters ...string) {
	p := &mqtt.Subscribe{PacketID: c.next()}
	for _, f := range filters {
		at := strings.LastIndexByte(f, ':')
		p.Filters = append(p.Filters, mqtt.Subscription{Filter: f[:at], QoS: f[at+1] - '0'})
	}
	c.send(p)
}

// subscribed is subscribe with its SUBACK.
func (c *client) subscribed(filters ...string) {
	c.w.T.Helper()
	c.subscribe(filters...)
	got := c.Got()
	if len(got) == 0 || !strings.HasPrefix(got[0], "SUBACK") {
		c.w.T.Fatalf("got %q, want a SUBACK", got)
	}
}

func (c *client) unsubscribe(filters ...string) {
	c.send(&mqtt.Unsubscribe{PacketID: c.next(), Filters: filters})
}

// publish sends "topic payload" at a QoS.
func (c *client) publish(qos byte, topic, payload string) {
	c.send(c.publication(qos, topic, payload))
}

func (c *client) publication(qos byte, topic, payload string) *mqtt.Publish {
	p := &mqtt.Publish{QoS: qos, Topic: []byte(topic), Payload: []byte(payload)}
	if qos > 0 {
		p.PacketID = c.next()
	}
	return p
}

// retain is publish with RETAIN.
func (c *client) retain(qos byte, topic, payload string) {
	p := c.publication(qos, topic, payload)
	p.Retain = true
	c.send(p)
}

// ack sends an acknowledgement.
func (c *client) ack(t mqtt.Type, id uint16) { c.send(&mqtt.Ack{Type: t, PacketID: id}) }

// message is how Got tells of a PUBLISH.
func message(topic string, qos byte, payload string, marks ...string) string {
	return strings.Join(append([]string{fmt.Sprintf("PUBLISH %s q%d %q", topic, qos, payload)}, marks...), " ")
}

// ms lets time pass.
func (w *world) ms(n int) { w.Pass(time.Duration(n) * time.Millisecond) }

func mustEqual(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
}

// mustHold is mustEqual for one line among others.
func mustHold(t testing.TB, got []string, want string) {
	t.Helper()
	if !slices.Contains(got, want) {
		t.Fatalf("got %q, want %q in it", got, want)
	}
}
