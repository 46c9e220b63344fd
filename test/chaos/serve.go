package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/skein-mqtt/skein/test/harness"
)

const (
	pingEvery = time.Second
	// silence is how long a client bears a broker that answers no PINGREQ.
	silence = 4 * time.Second
	// patience is how long it waits for the acknowledgement of one PUBLISH before it tries elsewhere.
	patience = 12 * time.Second
)

// serve handles packets and sends what the plan says until the connection is over.
func (c *client) serve(ctx context.Context) {
	tick := time.NewTicker(c.plan.every)
	defer tick.Stop()
	for c.wire != nil {
		select {
		case <-ctx.Done():
			return
		case p, ok := <-c.wire.in:
			switch {
			case !ok:
				c.lose(fmt.Sprint(c.wire.err))
			case c.cut.hit(gotPoint(p), c):
				c.cutOff("before reading " + p.String())
			default:
				c.heard = time.Now()
				c.handle(p)
			}
		case <-tick.C:
			c.turn(ctx)
		}
	}
}

// turn is what a client does by itself, once in a while.
func (c *client) turn(ctx context.Context) {
	now := time.Now()
	switch {
	case !c.pinged.IsZero() && now.Sub(c.pinged) > silence && now.Sub(c.heard) > silence:
		c.lose("no answer to PINGREQ")
		return
	case len(c.out) > 0 && now.Sub(c.out[0].sentAt) > patience:
		c.lose("no acknowledgement of packet id " + fmt.Sprint(c.out[0].packet.ID))
		return
	case c.pinged.IsZero() && now.Sub(c.heard) > pingEvery:
		c.pinged = now
		if !c.send(harness.Packet{Type: harness.PINGREQ}) {
			return
		}
	}
	if !c.w.busy() {
		c.settle()
		return
	}
	c.unsettled("is busy")
	if len(c.plan.streams) > 0 {
		c.publish()
	}
	if c.wire != nil {
		c.whim(ctx)
	}
}

// settle looks whether anything is left to be done.
func (c *client) settle() {
	switch {
	case len(c.out) > 0:
		o := c.out[0]
		c.unsettled("on %s: %d exchanges are open, the first one %s since %s (packet id %d, PUBREC %v)",
			c.node, len(c.out), o.msg, time.Since(o.sentAt).Round(time.Millisecond), o.packet.ID, o.received)
	case len(c.pending) > 0:
		c.unsettled("on %s: %d SUBSCRIBEs wait", c.node, len(c.pending))
	case c.plan.will:
		c.goodbye() // its will must not be on anybody's mind when the round ends
	case slices.ContainsFunc(c.old, func(s *superseded) bool { return !s.over() }):
		c.unsettled("its superseded connection to %s stays open", c.old[0].node)
	default:
		if c.plan.churn && c.interests[0] == nil {
			c.ask(0, c.plan.subs[0])
			return
		}
		for _, s := range c.old {
			s.close()
		}
		c.old = nil
		c.settled.Store(nil)
	}
}

// whim is what happens seldom: a goodbye, a stop in reading, a fight for the client id, a change of
// mind about a subscription.
func (c *client) whim(ctx context.Context) {
	perMille := func(n float64) bool { return c.rng.Float64()*1000 < n*c.plan.every.Seconds()*10 }
	switch {
	case c.plan.cuts && perMille(3):
		c.goodbye()
	case c.plan.slow && perMille(15):
		d := time.Duration(500+c.rng.IntN(3500)) * time.Millisecond
		c.w.model.Note(c.who, c.conn, "stops reading for %v", d)
		c.sleep(ctx, d)
		c.heard, c.pinged = time.Now(), time.Time{}
	case c.plan.fight && perMille(20):
		c.fight(ctx)
	case c.plan.will && perMille(40):
		c.cutOff("at will")
	case c.plan.churn && perMille(40) && len(c.pending) == 0:
		if c.interests[0] == nil {
			c.ask(0, c.plan.subs[0])
		} else {
			c.leave(0)
		}
	}
}

// goodbye is DISCONNECT. The broker may die before it reads it.
func (c *client) goodbye() {
	if c.will != nil {
		c.w.model.Mark(c.will, said, c.who, c.conn, 0)
	}
	if err := c.wire.send(harness.Packet{Type: harness.DISCONNECT}); err != nil {
		c.lose(fmt.Sprintf("sending DISCONNECT: %v", err))
		return
	}
	for until := time.After(time.Second); ; {
		select {
		case _, ok := <-c.wire.in: // what is on its way is as good as lost
			if ok {
				continue
			}
		case <-until:
		}
		break
	}
	c.over("DISCONNECT", false)
}

// publish sends the next message of the next stream if the window allows.
func (c *client) publish() {
	count := 1
	if c.plan.burst > 0 && c.rng.IntN(40) == 0 {
		count = c.plan.burst
	}
	for range count {
		if c.wire == nil || len(c.out) >= maxWindow {
			return
		}
		s := c.plan.streams[c.nextSend%len(c.plan.streams)]
		c.nextSend++
		size := 0
		if c.plan.big {
			size = c.rng.IntN(8 << 10)
		}
		c.publishOn(s, size)
	}
}

// maxWindow is how many exchanges a client has open at most.
const maxWindow = 20

func (c *client) publishOn(s streamPlan, size int) {
	msg := c.w.model.Send(c.who, c.conn, streamID{c.plan.id, s.topic, s.qos}, s.retain)
	p := harness.Packet{Type: harness.PUBLISH, Topic: s.topic, QoS: s.qos, Retain: s.retain, Payload: msg.payload(size)}
	if s.qos > 0 {
		p.ID = c.nextID()
		c.out = append(c.out, &outgoing{msg: msg, packet: p, sentAt: time.Now()})
	}
	c.send(p)
}

// handle does with one packet what a client must.
func (c *client) handle(p harness.Packet) {
	switch p.Type {
	case harness.PUBLISH:
		c.arrived(p)
	case harness.PUBREL:
		delete(c.in, p.ID)
		c.send(harness.Packet{Type: harness.PUBCOMP, ID: p.ID})
	case harness.PUBACK, harness.PUBREC, harness.PUBCOMP:
		c.acknowledged(p)
	case harness.SUBACK, harness.UNSUBACK:
		c.subscribed(p)
	case harness.PINGRESP:
		c.pinged = time.Time{}
	case harness.DISCONNECT:
		c.lose(fmt.Sprintf("DISCONNECT %#02x", p.Code))
	default:
		c.w.model.Violate(Protocol, c.who, "%s got %s", c.plan.id, p)
	}
}

func (c *client) arrived(p harness.Packet) {
	switch p.QoS {
	case 0:
		c.w.model.Deliver(c.session, c.conn, p)
	case 1:
		c.w.model.Deliver(c.session, c.conn, p)
		c.send(harness.Packet{Type: harness.PUBACK, ID: p.ID})
	case 2:
		if h, ok := c.in[p.ID]; ok {
			c.w.model.Repeat(c.session, h, p, c.conn)
			h.conn = c.conn
			c.in[p.ID] = h
		} else {
			c.w.model.Deliver(c.session, c.conn, p)
			id, seq, _ := parsePayload(p.Payload)
			c.in[p.ID] = held{id, seq, c.conn}
		}
		c.send(harness.Packet{Type: harness.PUBREC, ID: p.ID})
	}
}

func (c *client) acknowledged(p harness.Packet) {
	m := c.w.model
	i := slices.IndexFunc(c.out, func(o *outgoing) bool { return o.packet.ID == p.ID })
	if i < 0 {
		if p.Type == harness.PUBREC { // of an exchange that is over for this side
			c.send(harness.Packet{Type: harness.PUBREL, ID: p.ID})
		}
		return
	}
	o := c.out[i]
	end := func() { c.out = slices.Delete(c.out, i, i+1) }
	switch {
	case o.packet.QoS == 1 != (p.Type == harness.PUBACK):
		m.Violate(Protocol, c.who, "%s got %s for a PUBLISH at QoS %d", c.plan.id, p, o.packet.QoS)
	case p.Type == harness.PUBCOMP:
		m.Mark(o.msg, completed, c.who, c.conn, p.ID)
		if !o.received {
			m.Violate(Protocol, c.who, "%s got PUBCOMP for %s before PUBREC", c.plan.id, o.msg)
		}
		end()
	case p.Code >= 0x80:
		m.Note(c.who, c.conn, "%s", p)
		m.Mark(o.msg, refused, c.who, c.conn, p.ID)
		end()
	case p.Type == harness.PUBACK:
		m.Mark(o.msg, acked, c.who, c.conn, p.ID)
		end()
	default:
		m.Mark(o.msg, received, c.who, c.conn, p.ID)
		m.Mark(o.msg, released, c.who, c.conn, p.ID)
		o.received, o.sentAt = true, time.Now()
		c.send(harness.Packet{Type: harness.PUBREL, ID: p.ID})
	}
}

func (c *client) subscribed(p harness.Packet) {
	s := c.pending[p.ID]
	if s == nil {
		return
	}
	delete(c.pending, p.ID)
	switch {
	case s.leave:
		c.w.model.Left(s.interest)
		c.w.model.Note(c.who, c.conn, "UNSUBACK")
		c.forgetInterest(s.interest)
	case len(p.Codes) != 1 || p.Codes[0] != s.interest.qos:
		c.w.model.Violate(Protocol, c.who, "%s got %s for SUBSCRIBE %s", c.plan.id, p, s.interest.filter)
	default:
		c.w.model.Granted(s.interest)
		c.w.model.Note(c.who, c.conn, "SUBACK")
	}
}

func (c *client) forgetInterest(gone *interest) {
	for i := range c.interests {
		if c.interests[i] == gone {
			c.interests[i] = nil
		}
	}
}
