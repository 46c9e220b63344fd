package e2e

import (
	"fmt"
	"strings"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// cut is a QoS 2 exchange that is left at one point when its node dies.
type cut struct {
	name string
	v    byte
	pub  bool
	// before runs up to the cut; after goes on on another node, where the session was found.
	before func(*exchange)
	after  func(*exchange)
}

// exchange is one session at a cut point.
type exchange struct {
	*h.Session
	t     testing.TB
	id    uint16 // the packet id, which must stay the same
	topic string
	got   []string // as subscriber: PUBLISHes that were news
	known bool     // as subscriber: the packet id is past PUBLISH
}

const cutID = 7

func (x *exchange) publish(dup bool) {
	x.MustSend(h.Packet{Type: h.PUBLISH, Topic: x.topic, Payload: x.ID, QoS: 2, ID: cutID, Dup: dup})
}

func (x *exchange) ack(kind byte) { x.MustSend(h.Packet{Type: kind, ID: x.id}) }

// want takes the next packet, which must be of that type and of this exchange.
func (x *exchange) want(kind byte) h.Packet {
	x.t.Helper()
	p := x.Expect(kind)
	if p.ID != x.id {
		x.t.Fatalf("%s: %s, want packet id %d", x.ID, p, x.id)
	}
	return p
}

// finish ends a publisher's exchange and uses the packet id again: the second message must not be
// taken for a repeat.
func (x *exchange) finish() {
	x.t.Helper()
	x.ack(h.PUBREL)
	x.want(h.PUBCOMP)
	x.MustSend(h.Packet{Type: h.PUBLISH, Topic: x.topic, Payload: x.ID + " again", QoS: 2, ID: cutID})
	x.want(h.PUBREC)
	x.ack(h.PUBREL)
	x.want(h.PUBCOMP)
}

// first takes the PUBLISH and learns its packet id.
func (x *exchange) first() {
	x.t.Helper()
	p := x.Await(h.PUBLISH)
	x.id, x.known = p.ID, true
	x.got = append(x.got, p.Payload)
}

// drain goes on as a subscriber until the message that was published last has come.
func (x *exchange) drain() {
	x.t.Helper()
	in := map[uint16]bool{x.id: x.known}
	for last := x.ID + " again"; len(x.got) == 0 || x.got[len(x.got)-1] != last; {
		p, err := x.Next(h.Patience)
		if err != nil {
			x.t.Fatalf("%s: %v, got %q", x.ID, err, x.got)
		}
		switch p.Type {
		case h.PUBLISH:
			if p.ID == x.id && p.Payload == x.ID && !p.Dup {
				x.t.Errorf("%s: sent again without DUP", x.ID)
			}
			if p.Payload == x.ID && p.ID != x.id {
				x.t.Errorf("%s: %s, the packet id was %d", x.ID, p, x.id)
			}
			if !in[p.ID] {
				in[p.ID] = true
				x.got = append(x.got, p.Payload)
			}
			x.MustSend(h.Packet{Type: h.PUBREC, ID: p.ID})
		case h.PUBREL:
			delete(in, p.ID)
			x.MustSend(h.Packet{Type: h.PUBCOMP, ID: p.ID})
		}
	}
}

var cuts = []cut{
	{
		name: "pub-PUBLISH", pub: true,
		before: func(x *exchange) { x.publish(false) },
		after:  func(x *exchange) { x.publish(true); x.want(h.PUBREC); x.finish() },
	},
	{
		name: "pub-PUBREC", pub: true,
		before: func(x *exchange) { x.publish(false); x.want(h.PUBREC) },
		after:  func(x *exchange) { x.finish() },
	},
	{
		name: "pub-PUBREC-lost", pub: true,
		before: func(x *exchange) { x.publish(false); x.want(h.PUBREC) },
		after:  func(x *exchange) { x.publish(true); x.want(h.PUBREC); x.finish() },
	},
	{
		name: "pub-PUBREL", pub: true,
		before: func(x *exchange) { x.publish(false); x.want(h.PUBREC); x.ack(h.PUBREL) },
		after:  func(x *exchange) { x.finish() },
	},
	{
		name: "pub-PUBCOMP", pub: true,
		before: func(x *exchange) { x.publish(false); x.want(h.PUBREC); x.ack(h.PUBREL); x.want(h.PUBCOMP) },
		after:  func(x *exchange) { x.finish() },
	},
	{
		name:   "sub-PUBLISH",
		before: func(x *exchange) { x.first() },
		after: func(x *exchange) {
			if p := x.want(h.PUBLISH); !p.Dup {
				x.t.Errorf("%s: sent again without DUP", x.ID)
			}
			x.ack(h.PUBREC)
			x.drain()
		},
	},
	{
		name:   "sub-PUBREC",
		before: func(x *exchange) { x.first(); x.ack(h.PUBREC) },
		after:  func(x *exchange) { x.drain() },
	}, // PUBREL, or PUBLISH with DUP if the PUBREC was not read
	{
		name:   "sub-PUBREL",
		before: func(x *exchange) { x.first(); x.ack(h.PUBREC); x.want(h.PUBREL) },
		after: func(x *exchange) {
			x.want(h.PUBREL) // never the PUBLISH: to the client that would be a new message
			x.known = false
			x.ack(h.PUBCOMP)
			x.drain()
		},
	},
	{
		name:   "sub-PUBCOMP",
		before: func(x *exchange) { x.first(); x.ack(h.PUBREC); x.want(h.PUBREL); x.known = false; x.ack(h.PUBCOMP) },
		after:  func(x *exchange) { x.drain() },
	}, // a PUBREL may come again, the PUBLISH may not
}

// Exchanges are left at every step, on every version; their node dies; they go on elsewhere with
// the same packet ids, and each message counts once.
func testCutPoints(t *testing.T, c *h.Cluster) {
	for round := range heavy(1, 6) {
		victim := c.Follower()
		if round%2 == 1 {
			victim = c.Leader()
		}
		var other *h.Node
		for _, n := range c.Nodes {
			if n != victim {
				other = n
			}
		}
		cutAt(t, fmt.Sprintf("cut%d", round), victim, other)
		c.Heal()
	}
}

func cutAt(t *testing.T, prefix string, victim, other *h.Node) {
	partner := stored(t, other, prefix+"-partner", h.V5) // the other end of all exchanges
	type running struct {
		cut
		*exchange
	}
	var all []running
	for _, v := range []byte{h.V311, h.V5} {
		for _, point := range cuts {
			point.v = v
			name := fmt.Sprintf("%s-%s-%d", prefix, point.name, v)
			x := &exchange{Session: stored(t, victim, name, v), t: t, id: cutID, topic: name}
			if point.pub {
				partner.Subscribe(2, name)
			} else {
				x.Subscribe(2, name)
				publishAll(t, partner, name, 2, []string{name})
			}
			all = append(all, running{point, x})
		}
	}
	for _, r := range all {
		r.before(r.exchange)
	}
	victim.Kill()
	for _, r := range all {
		if !r.pub {
			publishAll(t, partner, r.topic, 2, []string{r.ID + " again"})
		}
	}
	want := 0
	for _, r := range all {
		next, ack, err := other.Connect(r.v, r.ConnectPacket())
		if err != nil || ack.Code != 0 || !ack.SessionPresent {
			t.Fatalf("%s: %s %v on the other node", r.ID, ack, err)
		}
		r.Client = next
		r.after(r.exchange)
		if r.pub {
			want += 2
		} else {
			same(t, r.ID, r.got, []string{r.ID, r.ID + " again"})
		}
		r.Disconnect()
	}
	partner.Receive(want)
	partner.Quiet(quiet)
	bySender := make(map[string][]string)
	for _, p := range partner.Got {
		key := strings.TrimSuffix(p, " again")
		bySender[key] = append(bySender[key], p)
	}
	for _, r := range all {
		if r.pub {
			same(t, r.ID, bySender[r.ID], []string{r.ID, r.ID + " again"})
		}
	}
	partner.Disconnect()
}
