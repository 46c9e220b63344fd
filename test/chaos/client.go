package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/test/harness"
)

// client is one MQTT client with the memory that the protocol asks of it: what it sent and was not
// answered, and which packet ids of QoS 2 it holds. One goroutine runs it.
type client struct {
	plan clientPlan
	rng  *rand.Rand
	w    *world
	who  *party

	// What lasts.
	established bool // the broker has told us that there is a session
	session     *session
	interests   []*interest
	out         []*outgoing
	in          map[uint16]held
	lastID      uint16
	conns       uint32

	// The connection.
	wire     *wire
	conn     uint32
	node     string
	will     *message
	cut      cutPoint
	pinged   time.Time // a PINGREQ without answer; zero: none
	heard    time.Time
	pending  map[uint16]*subscribing // SUBSCRIBE and UNSUBSCRIBE
	nextSend int                     // the stream whose turn it is
	lostAt   time.Time               // the broker's side ended the connection; zero: we did

	old     []*superseded
	settled atomic.Pointer[string] // nil: nothing is left to do; else what is
}

// outgoing is a PUBLISH without its last acknowledgement.
type outgoing struct {
	msg      *message
	packet   harness.Packet
	received bool
	sentAt   time.Time
}

// held is a packet id of QoS 2 between PUBLISH and PUBREL.
type held struct {
	id   streamID
	seq  int
	conn uint32
}

// subscribing is a SUBSCRIBE or an UNSUBSCRIBE without its answer.
type subscribing struct {
	interest *interest
	leave    bool
}

func newClient(w *world, p clientPlan, rng *rand.Rand) *client {
	c := &client{plan: p, rng: rng, w: w, who: &party{name: p.id}, in: make(map[uint16]held)}
	c.unsettled("has not begun")
	return c
}

func (c *client) unsettled(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	c.settled.Store(&s)
}

// run connects, again and again, until ctx ends.
func (c *client) run(ctx context.Context) {
	defer c.drop(false)
	for ctx.Err() == nil {
		if !c.connect(ctx) {
			c.sleep(ctx, time.Duration(50+c.rng.IntN(150))*time.Millisecond)
			continue
		}
		c.serve(ctx)
		if ctx.Err() == nil && c.w.busy() && c.lostAt.IsZero() {
			c.sleep(ctx, c.pause())
		}
	}
}

// pause is how long a client stays away after it cut itself off: mostly not long, sometimes long
// enough for a queue to build up.
func (c *client) pause() time.Duration {
	if c.rng.IntN(6) == 0 {
		return time.Duration(1+c.rng.IntN(4)) * time.Second
	}
	return time.Duration(c.rng.IntN(300)) * time.Millisecond
}

func (c *client) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// connackTime is how long a client waits for its CONNACK: a paused node accepts and says nothing.
const connackTime = 3 * time.Second

// connect tries one node, another one than last time where there is one.
func (c *client) connect(ctx context.Context) bool {
	w, ack, ok := c.handshake(ctx, c.pickNode())
	if !ok {
		return false
	}
	if lost := c.lostAt; !lost.IsZero() {
		c.w.model.reconnected(time.Since(lost))
	}
	return c.begin(w, ack)
}

func (c *client) pickNode() target {
	nodes := c.w.doors()
	if len(nodes) > 1 {
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(t target) bool { return t.id == c.node })
	}
	return nodes[c.rng.IntN(len(nodes))]
}

// handshake opens a connection and waits for its CONNACK.
func (c *client) handshake(ctx context.Context, n target) (*wire, harness.Packet, bool) {
	none := harness.Packet{}
	c.node = n.id
	w, err := dial(n.mqtt, c.plan.version)
	if err != nil {
		c.unsettled("can't reach %s: %v", n.id, err)
		return nil, none, false
	}
	c.conns++
	number := c.conns
	p := c.connectPacket(number)
	will := c.will
	c.w.model.Place(c.who, number, n.id)
	if c.cut.hit(sentConnect, c) {
		_ = w.send(p)
		c.w.model.Note(c.who, number, "cut after CONNECT")
		if will != nil { // it may have been set
			c.w.model.Maybe(will)
			c.will = nil
		}
		w.close(true)
		return nil, none, false
	}
	fail := func(why string, args ...any) (*wire, harness.Packet, bool) {
		why = fmt.Sprintf(why, args...)
		c.unsettled("can't connect to %s: %s", n.id, why)
		c.w.model.Note(c.who, number, "no connection: %s", why)
		w.close(false)
		if will != nil { // it may have been set
			c.w.model.Maybe(will)
			c.will = nil
		}
		return nil, none, false
	}
	if err := w.send(p); err != nil {
		return fail("%v", err)
	}
	t := time.NewTimer(connackTime)
	defer t.Stop()
	select {
	case ack, ok := <-w.in:
		switch {
		case !ok:
			return fail("%v", w.err)
		case ack.Type != harness.CONNACK:
			c.w.model.Violate(Protocol, c.who, "%s got %s instead of CONNACK", c.plan.id, ack)
			return fail("%s", ack)
		case ack.Code != 0:
			return fail("refused: %#02x", ack.Code)
		}
		c.conn = number
		return w, ack, true
	case <-t.C:
		return fail("no CONNACK in time")
	case <-ctx.Done():
		return fail("the run ends")
	}
}

func (c *client) connectPacket(number uint32) harness.Packet {
	p := harness.Packet{Type: harness.CONNECT, ClientID: c.plan.id, Clean: !c.plan.persistent, KeepAlive: 30}
	if c.plan.version == harness.V5 {
		if c.plan.persistent {
			p.Props = append(p.Props, harness.Property{ID: harness.SessionExpiry, Num: 24 * 3600}) // no wrong clock makes up for that
		}
		if c.plan.window > 0 {
			p.Props = append(p.Props, harness.Property{ID: harness.ReceiveMaximum, Num: uint32(c.plan.window)})
		}
	}
	c.will = nil
	if c.plan.will && c.w.busy() {
		c.will = c.w.model.Will(c.who, number, streamID{c.plan.id, "w/" + c.plan.id, 2})
		p.Will = &harness.Will{Topic: c.will.topic, QoS: 2, Payload: c.will.payload(0)}
	}
	return p
}

// begin takes a fresh connection over: what Session Present says, and what has to be sent again.
func (c *client) begin(w *wire, ack harness.Packet) bool {
	m := c.w.model
	m.count(func(s *stats) { s.connects++ })
	m.Note(c.who, c.conn, "CONNACK from %s, session present %v", c.node, ack.SessionPresent)
	c.wire, c.pinged, c.heard, c.lostAt = w, time.Time{}, time.Now(), time.Time{}
	c.pending = make(map[uint16]*subscribing)
	if c.cut.point == sentConnect || c.cut.left <= 0 {
		c.cut = c.drawCut()
	}
	if c.will != nil {
		m.Mark(c.will, armed, c.who, c.conn, 0)
	}
	switch {
	case !c.plan.persistent && ack.SessionPresent:
		m.Violate(Presence, c.who, "%s asked for a new session and was told of an old one", c.plan.id)
	case c.plan.persistent && c.established && !ack.SessionPresent:
		m.Violate(Presence, c.who, "%s finds no session on %s", c.plan.id, c.node)
	}
	if !ack.SessionPresent {
		c.forget()
	}
	if c.session == nil {
		c.session = m.Open(c.who, c.plan.persistent)
		c.interests = make([]*interest, len(c.plan.subs))
	}
	c.established = true
	m.Connected(c.session, c.conn)
	return c.again() && c.subscribe()
}

// forget is what follows from a session that is not there: a clean client gives up what was not
// acknowledged, a persistent one sends it as new.
func (c *client) forget() {
	c.in = make(map[uint16]held)
	if !c.plan.persistent {
		for _, o := range c.out {
			c.w.model.Mark(o.msg, abandoned, c.who, c.conn, o.packet.ID)
		}
		c.out = nil
		return
	}
	for _, o := range c.out {
		o.received = false
	}
}

// again sends what was not answered, in the order in which it was sent first.
func (c *client) again() bool {
	for _, o := range c.out {
		o.sentAt = time.Now()
		p := harness.Packet{Type: harness.PUBREL, ID: o.packet.ID}
		if !o.received {
			c.w.model.Mark(o.msg, resent, c.who, c.conn, o.packet.ID)
			o.packet.Dup = true
			p = o.packet
		}
		if !c.send(p) {
			return false
		}
	}
	return true
}

// subscribe asks for what the session does not have yet, and goes on to leave what it wanted to leave.
func (c *client) subscribe() bool {
	for i, sub := range c.plan.subs {
		ok := true
		switch in := c.interests[i]; {
		case in != nil && in.leaving > 0:
			ok = c.leave(i)
		case in == nil || in.granted == 0:
			ok = c.ask(i, sub)
		}
		if !ok {
			return false
		}
	}
	return true
}

func (c *client) ask(i int, sub subscription) bool {
	c.interests[i] = c.w.model.Ask(c.session, sub.filter, sub.group, sub.qos)
	id := c.nextID()
	c.pending[id] = &subscribing{interest: c.interests[i]}
	c.w.model.Note(c.who, c.conn, "SUBSCRIBE %s qos %d", sub.name(), sub.qos)
	return c.send(harness.Packet{Type: harness.SUBSCRIBE, ID: id, Filters: []harness.Filter{{Name: sub.name(), Options: sub.qos}}})
}

func (c *client) leave(i int) bool {
	c.w.model.Leaving(c.interests[i])
	id := c.nextID()
	c.pending[id] = &subscribing{interest: c.interests[i], leave: true}
	c.w.model.Note(c.who, c.conn, "UNSUBSCRIBE %s", c.plan.subs[i].name())
	return c.send(harness.Packet{Type: harness.UNSUBSCRIBE, ID: id, Filters: []harness.Filter{{Name: c.plan.subs[i].name()}}})
}

func (c *client) nextID() uint16 {
	for {
		c.lastID++
		if c.lastID == 0 || c.lastID >= fenceID {
			c.lastID = 1
		}
		if c.pending[c.lastID] == nil && !slices.ContainsFunc(c.out, func(o *outgoing) bool { return o.packet.ID == c.lastID }) {
			return c.lastID
		}
	}
}

// send sends a packet unless the connection is to be cut here. False: the connection is over.
func (c *client) send(p harness.Packet) bool {
	if c.wire == nil {
		return false
	}
	err := c.wire.send(p)
	if err != nil {
		c.lose(fmt.Sprintf("sending: %v", err))
		return false
	}
	if c.cut.hit(sentPoint(p), c) {
		c.cutOff("after sending " + p.String())
		return false
	}
	return true
}

// lose is a connection that the other side ended, or that is given up.
func (c *client) lose(why string) {
	c.w.model.count(func(s *stats) { s.lost++ })
	c.lostAt = time.Now()
	c.over("lost: "+why, false)
}

// cutOff ends the connection without a word.
func (c *client) cutOff(why string) {
	c.over("cut "+why, c.rng.IntN(2) == 0)
}

// over ends the connection; the session remains unless it is clean.
func (c *client) over(why string, abruptly bool) {
	if c.wire == nil {
		return
	}
	c.unsettled("%s", why)
	c.wire.close(abruptly)
	if c.wire.malformed() {
		c.w.model.Violate(Protocol, c.who, "%s got a malformed packet: %v", c.plan.id, c.wire.err)
	}
	c.parted(why)
}

// parted is what follows from the end of a connection, however it came.
func (c *client) parted(why string) {
	m := c.w.model
	m.Note(c.who, c.conn, "%s", why)
	m.Parted(c.who, c.conn)
	if c.will != nil && !c.will.maybe {
		m.Mark(c.will, due, c.who, c.conn, 0)
		m.count(func(s *stats) { s.willsDue++ })
	}
	c.wire, c.will = nil, nil
	if !c.plan.persistent && c.session != nil {
		m.End(c.session)
		c.session = nil
	}
}

// drop ends the client for good.
func (c *client) drop(goodbye bool) {
	if c.wire != nil && goodbye {
		_ = c.wire.send(harness.Packet{Type: harness.DISCONNECT})
	}
	c.over("the run ends", false)
	for _, s := range c.old {
		s.close()
	}
	c.old = nil
}
