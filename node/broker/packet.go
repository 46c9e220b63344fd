package broker

import (
	"errors"
	"slices"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/node/session"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Data takes what the client sent: as many whole packets as there are.
func (c *client) Data(b []byte, ba *conn.Batch) (used int, err error) {
	c.conn.Lock()
	if c.choke() {
		c.conn.Unlock()
		return 0, nil
	}
	propose := false
	for err == nil && !c.intake.full && !propose && !c.slowed.Load() {
		if c.phase == phaseOver {
			err = conn.ErrClosed
			break
		}
		if c.phase == phaseProposed || c.phase == phaseGated {
			break // paused: the CONNACK comes first
		}
		if c.phase == phaseFresh && used < len(b) && mqtt.TypeOf(b[used]) != mqtt.CONNECT { // [MQTT-3.1.0-1]
			err = c.refuse(mqtt.ProtocolError, ba)
			break
		}
		first, body, n, e := mqtt.Split(b[used:], c.b.cfg.MaxPacketSize)
		if e != nil {
			err = c.fail(c.b.tooMuch(e), ba)
			break
		}
		if n == 0 {
			break
		}
		switch c.phase {
		case phaseFresh:
			err = c.open(first, body, ba)
			propose = err == nil && c.phase == phaseProposed
		case phaseExchange:
			err = c.exchangePacket(first, body, ba)
			propose = err == nil && c.phase == phaseProposed
		default:
			if err = c.packet(first, body, b[used:used+n], ba); err == nil {
				err = c.spent(mqtt.TypeOf(first), n, ba)
			}
		}
		used += n
	}
	if err == nil && c.phase == phaseOnline {
		c.push(ba)
	}
	c.seen.bytesIn += uint64(used)
	c.conn.Unlock()
	c.b.stats.bytesIn.Add(uint64(used))
	if propose {
		c.authenticate()
	}
	return used, err
}

// overfull tells whether the client makes answers faster than it reads them, or than the log takes
// what they wait for. Caller holds the lock.
func (c *client) overfull() bool {
	return c.conn.OutLen() > 2*c.b.cfg.MaxBufferedBytes || c.pending > 2*maxPending
}

// choke stops reading from a client that is overfull, until unchoke: its keepalive goes on, so that
// one that never reads is gone by then. Caller holds the lock.
func (c *client) choke() bool {
	if c.phase != phaseOnline || !c.overfull() {
		return false
	}
	c.choked = true
	c.conn.Pause()
	c.conn.NotifyDrained()
	return true
}

func (c *client) unchoke() {
	if !c.choked || c.overfull() {
		return
	}
	c.choked = false
	c.readOn()
}

// packet handles one packet of a client that is online. raw is the whole of it. Caller holds the
// lock; for a PUBLISH it is let go meanwhile. An error ends the connection.
func (c *client) packet(first byte, body, raw []byte, ba *conn.Batch) error {
	c.b.stats.packetsIn.Add(1)
	var err error
	switch t := mqtt.TypeOf(first); t {
	case mqtt.PUBLISH:
		err = c.take(first, body, raw, ba)
	case mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP:
		err = c.acknowledged(first, body, ba)
	case mqtt.SUBSCRIBE:
		err = c.subscribe(first, body, ba)
	case mqtt.UNSUBSCRIBE:
		err = c.unsubscribe(first, body, ba)
	case mqtt.PINGREQ:
		if err = (&mqtt.Pingreq{}).Decode(c.version, first, body); err == nil {
			c.say(ba, func(dst []byte) []byte { return (&mqtt.Pingresp{}).Append(dst, c.version) })
		}
	case mqtt.DISCONNECT:
		if in := &c.intake; len(in.bytes) > 0 || in.held != nil { // what it published before comes first
			in.goodbye = append([]byte(nil), raw...)
			in.full = true
			c.held.Store(true)
			c.conn.Pause()
			return nil
		}
		return c.goodbye(first, body, ba)
	case mqtt.AUTH:
		err = c.reauthenticate(first, body, ba)
	case mqtt.CONNECT:
		err = &mqtt.Error{Code: mqtt.ProtocolError, Msg: "a second CONNECT"} // [MQTT-3.1.0-2]
	default:
		err = &mqtt.Error{Code: mqtt.ProtocolError, Msg: t.String() + " from a client"}
	}
	if err != nil {
		return c.fail(err, ba)
	}
	return nil
}

func (c *client) acknowledged(first byte, body []byte, ba *conn.Batch) error {
	var p mqtt.Ack
	if err := p.Decode(c.version, first, body); err != nil {
		return err
	}
	s := c.sess
	switch p.Type {
	case mqtt.PUBACK:
		c.b.traced().Acknowledged(c.info.id, p.PacketID, "PUBACK", true)
		s.Puback(p.PacketID)
	case mqtt.PUBREC:
		c.b.traced().Acknowledged(c.info.id, p.PacketID, "PUBREC", p.Code.Failed())
		out, _ := s.Pubrec(p.PacketID, p.Code, c.conn.Out())
		c.conn.SetOut(out, ba)
	case mqtt.PUBCOMP:
		c.b.traced().Acknowledged(c.info.id, p.PacketID, "PUBCOMP", true)
		s.Pubcomp(p.PacketID)
	case mqtt.PUBREL:
		slot, commit := s.Pubrel(p.PacketID)
		if commit {
			c.proposeRelease(p.PacketID, slot)
			break
		}
		c.conn.SetOut(s.Flush(session.Pubcomp, c.conn.Out()), ba)
	}
	return nil
}

// goodbye handles DISCONNECT.
func (c *client) goodbye(first byte, body []byte, ba *conn.Batch) error {
	if err := c.farewell(first, body); err != nil {
		return c.fail(err, ba)
	}
	c.leave(ba)
	return conn.ErrClosed
}

// farewell notes what a DISCONNECT says about the will and the session. Caller holds the lock.
func (c *client) farewell(first byte, body []byte) error {
	var p mqtt.Disconnect
	err := p.Decode(c.version, first, body)
	if err == nil && c.version == mqtt.V5 {
		err = p.FromClient()
		if err == nil && p.HasSessionExpiry && p.SessionExpiry > 0 && c.connect.SessionExpiry == 0 { // section 3.14.2.2.2
			err = &mqtt.Error{Code: mqtt.ProtocolError, Msg: "DISCONNECT raises a session expiry of 0"}
		}
	}
	if err != nil {
		return err
	}
	c.clean = p.Code == mqtt.NormalDisconnection
	c.why = "the client said goodbye"
	if !c.clean {
		c.why += ": " + p.Code.String()
	}
	if p.HasSessionExpiry {
		e := min(p.SessionExpiry, c.b.cfg.SessionExpiryMax)
		c.expiry = &e
	}
	return nil
}

// fail ends the connection because of what the client sent. Caller holds the lock.
func (c *client) fail(err error, ba *conn.Batch) error {
	code := codeOf(err)
	var wire *mqtt.Error
	if !errors.As(err, &wire) && errors.Is(err, conn.ErrClosed) {
		return err
	}
	if c.phase == phaseFresh || c.phase == phaseExchange {
		return c.refuse(code, ba)
	}
	c.b.stats.protocolErrors.Add(1)
	c.why = "what it sent was not in order: " + err.Error()
	c.b.logger.Debug("client is disconnected", "client", c.info.id, "remote", c.conn.RemoteAddr().String(), "reason", err)
	c.dismiss(code, ba)
	return conn.ErrClosed
}

// dismiss ends the connection from this side: DISCONNECT with a reason where the version has it. The
// will stands. Caller holds the lock.
func (c *client) dismiss(code mqtt.ReasonCode, ba *conn.Batch) {
	if c.phase == phaseOver {
		return
	}
	if c.phase < phaseOnline {
		gated := c.phase == phaseGated
		_ = c.refuse(mqtt.ServerUnavailable, ba)
		if gated { // as connected does for one that is over before it is in the log
			c.clean = true
			c.proposeDisconnect()
		}
		return
	}
	if c.why == "" {
		c.why = code.String()
	}
	c.sayDisconnect(code, ba)
	c.leave(ba)
}

// sayDisconnect says DISCONNECT to those who know it from a broker. Caller holds the lock.
func (c *client) sayDisconnect(code mqtt.ReasonCode, ba *conn.Batch) {
	if c.version != mqtt.V5 {
		return
	}
	d := &mqtt.Disconnect{Code: code}
	if code == mqtt.UseAnotherServer || code == mqtt.ServerMoved {
		d.ServerReference = c.b.cfg.ServerReference
		if d.ServerReference != "" && !c.fits(len(d.Append(nil, c.version))) {
			d.ServerReference = ""
		}
	}
	c.say(ba, func(dst []byte) []byte { return d.Append(dst, c.version) })
}

// leave ends the connection in order: the log hears how far it came. Caller holds the lock.
func (c *client) leave(ba *conn.Batch) {
	if c.phase == phaseOver {
		return
	}
	c.phase = phaseOver
	c.proposeDisconnect()
	c.finish(ba)
}

// finish lets the outbox go out and closes. Caller holds the lock.
func (c *client) finish(ba *conn.Batch) {
	c.conn.End()
	c.conn.Mark(ba)
}

// Closed hears that the connection has ended.
func (c *client) Closed(err error) {
	b := c.b
	c.conn.Lock()
	c.tellDisconnected(err)
	b.stats.bytesOut.Add(c.conn.Sent())
	if c.phase != phaseOver {
		online := c.phase >= phaseGated
		c.phase = phaseOver
		if online {
			c.proposeDisconnect()
		} // else connected says goodbye for it
	}
	c.conn.Unlock()
	b.mu.Lock()
	b.remove(c)
	if b.clients[c.info.id] == c {
		delete(b.clients, c.info.id)
	}
	b.mu.Unlock()
	b.stats.closed.Add(1)
}

// sever ends the connection because this node's incarnation has ended: the others have settled what
// becomes of its session, so nothing is proposed and nothing that waits is said. What its shared groups
// have from links is known to this node alone, and finds other members when the node serves again.
func (c *client) sever() {
	c.conn.Lock()
	if c.phase == phaseOver {
		c.conn.Unlock()
		return
	}
	if proposed := c.phase == phaseProposed || c.phase == phaseExchange; proposed || c.phase == phaseFresh {
		c.conn.Unlock()
		if proposed {
			c.with(func(ba *conn.Batch) { c.dismiss(mqtt.ServerUnavailable, ba) })
		}
		return
	}
	tell := c.phase == phaseOnline && c.version == mqtt.V5 && c.conn.OutLen() == 0
	c.phase, c.ended = phaseOver, true
	c.why = "its node's incarnation has ended"
	c.stash = nil
	if c.sess.Clean() {
		reassign, lost := c.sess.Leftover()
		twice := func(e session.Shared) bool { // whoever sent it may have found another member: nobody may get it twice
			return e.Pick == 0 && e.QoS == 2
		}
		kept := slices.DeleteFunc(slices.Clone(reassign), twice)
		c.drop(fsm.ReasonSessionEnded, lost+len(reassign)-len(kept))
		c.b.orphans.leftBy(kept)
	}
	c.unsubscribeAll(false)
	c.abandonIntake()
	ba := getBatch()
	if tell {
		c.sayDisconnect(mqtt.UseAnotherServer, ba)
		c.finish(ba)
	}
	c.conn.Unlock()
	if tell {
		c.b.flusher.take(ba)
	} else {
		c.conn.Abort()
	}
	putBatch(ba)
}

// sendAway asks the client to go to another node.
func (c *client) sendAway() {
	c.with(func(ba *conn.Batch) {
		if c.phase == phaseFresh {
			return
		}
		c.dismiss(mqtt.UseAnotherServer, ba)
	})
}
