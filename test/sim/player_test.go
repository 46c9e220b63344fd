package sim

import (
	"fmt"
	"slices"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// player is a correct client with a durable state: what it has sent and received survives its
// connections, and it resumes on any node.
type player struct {
	h          *history
	id         string
	version    mqtt.Version
	persistent bool

	conn    *Conn // nil: offline
	number  int   // of its connections
	online  bool  // CONNACK came
	known   bool  // a CONNACK has told of a persistent session
	session int   // counts sessions
	old     []*Conn

	out   []*outgoing // not completed, in the order in which they were sent
	count int         // messages published

	received map[uint16]bool // QoS 2, PUBREL has not come
	owed     []*mqtt.Ack
	subs     map[string]*subscription
	asked    map[uint16]*subscription
}

// outgoing is a QoS 1 or 2 message that is not completed.
type outgoing struct {
	m        *note
	id       uint16
	received bool // PUBREC came
}

// subscription is one filter of a player. Times are steps.
type subscription struct {
	filter string
	qos    byte
	since  int // SUBACK came; never: it did not
	until  int // UNSUBSCRIBE was sent; never: it was not
}

const never = 1 << 30

func (p *player) String() string { return p.id }

// life is what a message is delivered to: a session, or one connection of a clean client.
func (p *player) life() string {
	if p.persistent {
		return fmt.Sprintf("%s/s%d", p.id, p.session)
	}
	return fmt.Sprintf("%s/c%d", p.id, p.number)
}

// connect opens a connection and sends CONNECT. An older one is left open: it is a takeover.
func (p *player) connect(n *Node) {
	if p.conn != nil {
		p.old = append(p.old, p.conn)
	}
	p.conn, p.online = p.h.w.Dial(n), false
	p.conn.Version = p.version
	p.number++
	c := &mqtt.Connect{ClientID: p.id, Clean: !p.persistent}
	if p.persistent && p.version == mqtt.V5 {
		c.HasSessionExpiry, c.SessionExpiry = true, 0xFFFFFFFF
	}
	if !p.persistent {
		p.forget()
	}
	c.Will = p.will()
	p.h.trace("%s connects to %s, connection %d", p, n.ID, p.number)
	p.conn.Send(c)
}

// forget is the end of a session.
func (p *player) forget() {
	p.out, p.owed = nil, nil
	p.received, p.asked = make(map[uint16]bool), make(map[uint16]*subscription)
	p.subs = make(map[string]*subscription)
	p.session++
}

// lost hears that the connection is over.
func (p *player) lost() {
	if p.conn != nil {
		p.old = append(p.old, p.conn)
	}
	p.conn, p.online, p.owed = nil, false, nil
	if !p.persistent {
		p.forget()
	}
}

func (p *player) nextID() uint16 {
	for id := uint16(1); ; id++ { // at once used again
		if !slices.ContainsFunc(p.out, func(o *outgoing) bool { return o.id == id }) && p.asked[id] == nil {
			return id
		}
	}
}

// publish sends a new message.
func (p *player) publish(topic string, qos byte, retain bool) {
	m := p.h.newNote(p, topic, qos, retain)
	pk := m.packet()
	if qos > 0 {
		pk.PacketID = p.nextID()
		p.out = append(p.out, &outgoing{m: m, id: pk.PacketID})
	}
	p.h.trace("%s publishes %s to %s q%d id=%d retain=%v", p, m, topic, qos, pk.PacketID, retain)
	p.conn.Send(pk)
}

func (p *player) subscribe(filter string, qos byte) {
	s := p.subs[filter]
	if s == nil {
		s = &subscription{filter: filter, qos: qos, since: never, until: never}
		p.subs[filter] = s
	}
	s.until = never
	id := p.nextID()
	p.asked[id] = s
	p.h.trace("%s subscribes to %s q%d id=%d", p, filter, s.qos, id)
	p.conn.Send(&mqtt.Subscribe{PacketID: id, Filters: []mqtt.Subscription{{Filter: filter, QoS: s.qos}}})
}

func (p *player) unsubscribe(s *subscription) {
	for id, a := range p.asked { // a SUBACK under way counts no more
		if a == s {
			p.asked[id] = &subscription{}
		}
	}
	id := p.nextID()
	p.asked[id] = &subscription{}
	p.h.ended = append(p.h.ended, endedSubscription{*s, p.life(), p.persistent, p.h.step})
	delete(p.subs, s.filter)
	p.h.trace("%s unsubscribes from %s", p, s.filter)
	p.conn.Send(&mqtt.Unsubscribe{PacketID: id, Filters: []string{s.filter}})
}

// resume sends again what is not completed, in order.
func (p *player) resume() {
	for _, o := range p.out {
		if o.received {
			p.conn.Send(&mqtt.Ack{Type: mqtt.PUBREL, PacketID: o.id})
			continue
		}
		pk := o.m.packet()
		pk.PacketID, pk.Dup = o.id, true
		p.h.trace("%s sends %s again, id=%d", p, o.m, o.id)
		p.conn.Send(pk)
	}
}

// read handles what has come.
func (p *player) read() bool {
	if p.conn == nil {
		return false
	}
	c := p.conn
	packets, closed := c.Receive()
	for _, pk := range packets {
		p.h.trace("%s <- %s", p, Describe(pk))
		p.handle(pk)
		if p.conn != c {
			return true
		}
	}
	if closed {
		p.h.trace("%s is closed", p)
		p.lost()
	}
	return closed || len(packets) > 0
}

func (p *player) handle(pk any) {
	switch pk := pk.(type) {
	case *mqtt.Connack:
		p.connected(pk)
	case *mqtt.Publish:
		p.deliver(pk)
	case *mqtt.Ack:
		p.acknowledged(pk)
	case *mqtt.Suback:
		if s := p.asked[pk.PacketID]; s != nil {
			delete(p.asked, pk.PacketID)
			if len(pk.Codes) != 1 || pk.Codes[0] > 2 {
				p.h.fail("%s: SUBACK %x for %s", p, pk.Codes, s.filter)
			}
			s.since = min(s.since, p.h.step)
			return
		}
		p.h.fail("%s: SUBACK %d for nothing", p, pk.PacketID)
	case *mqtt.Unsuback:
		delete(p.asked, pk.PacketID)
	case *mqtt.Disconnect:
	default:
		p.h.fail("%s: unexpected %s", p, Describe(pk))
	}
}

func (p *player) connected(ack *mqtt.Connack) {
	if ack.Code != 0 {
		p.h.trace("%s is refused", p)
		return
	}
	p.online = true
	if t := p.h.willOf[p.name()]; t != nil {
		t.online = true
	}
	switch {
	case !p.persistent && ack.SessionPresent:
		p.h.fail("%s: Session Present for a clean session", p)
	case p.persistent && p.known && !ack.SessionPresent: // P3
		p.h.fail("%s: the session is gone on connection %d", p, p.number)
	case p.persistent && !ack.SessionPresent:
		p.forget()
	}
	p.known = p.persistent
	// SUBSCRIBEs without an answer are asked again: nobody knows whether they arrived.
	asked := p.asked
	p.asked = make(map[uint16]*subscription)
	p.resume()
	for _, id := range sortedKeys(asked) {
		if s := asked[id]; s.filter != "" && p.subs[s.filter] == s {
			p.subscribe(s.filter, s.qos)
		}
	}
}

func (p *player) acknowledged(a *mqtt.Ack) {
	if a.Type == mqtt.PUBREL {
		delete(p.received, a.PacketID)
		p.owed = append(p.owed, &mqtt.Ack{Type: mqtt.PUBCOMP, PacketID: a.PacketID})
		return
	}
	i := slices.IndexFunc(p.out, func(o *outgoing) bool { return o.id == a.PacketID })
	if i < 0 {
		p.h.fail("%s: %s %d for nothing", p, a.Type, a.PacketID)
		return
	}
	o := p.out[i]
	switch {
	case a.Code == mqtt.PacketIdentifierNotFound && a.Type == mqtt.PUBCOMP && o.received: // an earlier PUBREL has arrived
		p.out = slices.Delete(p.out, i, i+1)
	case a.Code >= 0x80:
		p.h.fail("%s: %s %d refuses with %02x", p, a.Type, a.PacketID, byte(a.Code))
	case a.Type == mqtt.PUBACK && o.m.qos == 1:
		o.m.acked = min(o.m.acked, p.h.step)
		p.out = slices.Delete(p.out, i, i+1)
	case a.Type == mqtt.PUBREC && o.m.qos == 2:
		if !o.received {
			o.m.acked = min(o.m.acked, p.h.step)
		}
		o.received = true
		p.conn.Send(&mqtt.Ack{Type: mqtt.PUBREL, PacketID: o.id})
	case a.Type == mqtt.PUBCOMP && o.received:
		p.out = slices.Delete(p.out, i, i+1)
	default:
		p.h.fail("%s: %s %d for a QoS %d message", p, a.Type, a.PacketID, o.m.qos)
	}
}

func (p *player) deliver(pk *mqtt.Publish) {
	switch pk.QoS {
	case 1:
		p.owed = append(p.owed, &mqtt.Ack{Type: mqtt.PUBACK, PacketID: pk.PacketID})
	case 2:
		p.owed = append(p.owed, &mqtt.Ack{Type: mqtt.PUBREC, PacketID: pk.PacketID})
		if p.received[pk.PacketID] {
			if !pk.Dup {
				p.h.fail("%s got %s for a second time without DUP", p, Describe(pk))
			}
			return
		}
		p.received[pk.PacketID] = true
	}
	p.h.delivered(p, pk)
}

// answer sends up to n of the acknowledgements that it owes.
func (p *player) answer(n int) bool {
	if p.conn == nil || len(p.owed) == 0 {
		return false
	}
	n = min(n, len(p.owed))
	for _, a := range p.owed[:n] {
		p.conn.Send(a)
	}
	p.owed = p.owed[n:]
	return true
}
