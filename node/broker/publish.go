package broker

import (
	"slices"
	"unsafe"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/node/session"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// publish is a PUBLISH on its way in. Its strings and slices alias the reader's buffer until keep.
type publish struct {
	topic     string
	payload   []byte
	props     []byte
	qos       byte
	retain    bool
	hasExpiry bool
	expiry    uint32 // seconds
	id        uint16
	slot      uint64 // of its acknowledgement, QoS 1 and 2
}

// keep copies what the reader's buffer holds.
func (p *publish) keep() *publish {
	k := *p
	k.topic = string([]byte(p.topic))
	k.payload, k.props = slices.Clone(p.payload), slices.Clone(p.props)
	return &k
}

func (p *publish) size() int { return len(p.topic) + len(p.payload) + len(p.props) + 64 }

// intake is what a client has sent and the broker does not take yet.
type intake struct {
	blocks  block
	held    *publish // the first of them, decoded
	bytes   []byte   // PUBLISH packets behind it, whole
	at      int      // those before it in bytes are taken
	goodbye []byte   // the DISCONNECT behind those
	full    bool     // nothing more is read

	present  bool   // Session Present, until CONNACK
	releases []byte // PUBRELs that wait for the lease
}

// take handles a PUBLISH packet, or keeps it if publishes are not taken now. Caller holds the lock.
func (c *client) take(first byte, body, raw []byte, ba *conn.Batch) error {
	in := &c.intake
	if in.blocks != 0 {
		in.bytes = append(in.bytes, raw...)
		if len(in.bytes)-in.at > c.b.maxIntake() {
			in.full = true
			c.held.Store(true)
			c.conn.Pause()
		}
		return nil
	}
	p, err := c.decode(first, body, ba)
	if err != nil || p == nil {
		return err
	}
	c.route(p, ba)
	return nil
}

// decode reads a PUBLISH and checks what this node allows. nil without an error: it is settled.
func (c *client) decode(first byte, body []byte, ba *conn.Batch) (*publish, error) {
	var m mqtt.Publish
	if err := m.Decode(c.version, first, body); err != nil {
		return nil, err
	}
	if err := m.FromClient(); err != nil {
		return nil, err
	}
	b := c.b
	switch {
	case m.QoS > b.cfg.MaxQoS: // [MQTT-3.2.2-11]
		b.reached(LimitQoS)
		return nil, &mqtt.Error{Code: mqtt.QoSNotSupported, Msg: "QoS is higher than Maximum QoS"}
	case m.Retain && !b.cfg.RetainAvailable: // [MQTT-3.2.2-14]
		b.reached(LimitRetain)
		return nil, &mqtt.Error{Code: mqtt.RetainNotSupported, Msg: "RETAIN where Retain Available is 0"}
	}
	repeat := m.QoS == 2 && c.sess.Accepted(m.PacketID) // the log knows it, and has to answer
	slot, verdict, err := c.sess.Publish(&m)
	if err != nil {
		return nil, b.tooMuch(err)
	}
	name := unsafe.String(unsafe.SliceData(m.Topic), len(m.Topic))
	if err := b.badTopic(b.cfg.topicLimits().ValidateName(name)); err != nil { // [MQTT-3.3.2-2]
		return nil, &mqtt.Error{Code: mqtt.TopicNameInvalid, Msg: err.Error()}
	}
	outside := c.outside(name)
	if name, err = c.whole(name); err != nil {
		return nil, &mqtt.Error{Code: mqtt.TopicNameInvalid, Msg: "below its listener's mount point: " + b.badTopic(err).Error()}
	}
	b.stats.received[m.QoS].Add(1)
	c.seen.messagesIn++
	if verdict == session.Repeat {
		c.conn.SetOut(c.sess.Flush(session.Pubrec, c.conn.Out()), ba)
		return nil, nil
	}
	p := &c.current
	*p = publish{
		topic: name, payload: m.Payload, props: m.Props, qos: m.QoS, retain: m.Retain,
		hasExpiry: m.HasExpiry, expiry: m.Expiry, id: m.PacketID, slot: slot,
	}
	allowed := repeat || !outside && !reserved(name) && c.mayPublish(name)
	c.traceReceived(p, allowed)
	if !allowed {
		c.drop(fsm.ReasonNotAllowed, 1)
		c.answer(p, mqtt.NotAuthorized, ba)
		return nil, nil
	}
	if !repeat && b.retainedFull(p) {
		c.drop(fsm.ReasonNotAllowed, 1)
		c.answer(p, mqtt.QuotaExceeded, ba)
		return nil, nil
	}
	if b.tight.Load() && !p.frees() && !repeat {
		return c.tightened(p, ba)
	}
	return p, nil
}

// answer settles a publish's acknowledgement. Caller holds the lock.
func (c *client) answer(p *publish, code mqtt.ReasonCode, ba *conn.Batch) {
	c.settled(p, code, false, ba)
}

// settled is answer for a publish that was delivered under a lease that was looked at in between.
func (c *client) settled(p *publish, code mqtt.ReasonCode, leased bool, ba *conn.Batch) {
	if p.qos == 0 {
		return
	}
	kind := session.Puback
	if p.qos == 2 {
		kind = session.Pubrec
	}
	c.complete(ba, completion{kind: kind, slot: p.slot, code: code, leased: leased})
}

// route sends a publish on its road, or keeps it when it can't go yet. Caller holds the lock, which
// is let go while others are delivered to.
//
// The route is read before the lease is looked at: a lease that is good afterwards says that this
// node had not been declared dead when it read, so no SUBACK that the route lacks can have left.
func (c *client) route(p *publish, ba *conn.Batch) {
	b := c.b
	if b.tight.Load() && b.cfg.MemoryPolicy == MemoryPause && !p.frees() {
		c.block(blockMemory, p)
		return
	}
	m, targets := b.routes.lookup(p.topic)
	r := &m.route
	if p.qos > 0 && !b.leased() {
		c.block(blockLease, p)
		return
	}
	if why := whyLog(r, p.qos, p.retain, !c.sess.Clean()); why != "" {
		if p.qos == 0 && len(c.loose) > 0 {
			c.fence()
		}
		if c.linked[p.qos] > 0 {
			c.block(blockOrder, p)
			return
		}
		c.traceRoad(p, roadLog, why)
		c.publishLog(p)
		return
	}
	c.traceRoad(p, roadLink, whyLink)
	c.publishLink(p, r, targets, ba)
}

// whyLog is why a publish takes the log road, for people; empty: it takes the link road.
func whyLog(r *fsm.Route, qos byte, retain, persistent bool) string {
	switch {
	case retain:
		return "it is retained"
	case qos > 0 && r.Persistent > 1:
		return "a persistent session subscribes to it at QoS 1 or 2"
	case qos == 2 && persistent:
		return "it is QoS 2 from a persistent session"
	case r.QueueQoS0:
		return "a persistent session that queues QoS 0 subscribes to it"
	}
	return ""
}

// block keeps a publish, and those behind it, for a reason. Caller holds the lock.
func (c *client) block(why block, p *publish) {
	c.intake.blocks |= why
	if p != nil {
		c.traceBlocked(p, why)
		c.intake.held = p.keep()
	}
}

// unblock lets publishes go on, from any goroutine.
func (c *client) unblock(why block) {
	c.with(func(ba *conn.Batch) { c.allow(why, ba) })
}

// allow is unblock with the lock held.
func (c *client) allow(why block, ba *conn.Batch) {
	in := &c.intake
	if in.blocks&why == 0 {
		return
	}
	in.blocks &^= why
	if in.blocks != 0 || c.phase != phaseOnline {
		return
	}
	in.blocks |= blockRouting // nobody else takes publishes meanwhile
	for in.blocks == blockRouting && c.phase == phaseOnline {
		if p := in.held; p != nil {
			in.held = nil
			c.route(p, ba)
			continue
		}
		if in.at == len(in.bytes) {
			break
		}
		first, body, n, err := mqtt.Split(in.bytes[in.at:], c.b.cfg.MaxPacketSize)
		in.at += n
		var p *publish
		if err == nil {
			p, err = c.decode(first, body, ba)
		}
		if err != nil {
			_ = c.fail(err, ba)
			return
		}
		if p != nil {
			c.route(p, ba)
		}
	}
	in.blocks &^= blockRouting
	if in.at == len(in.bytes) { // also when the connection ended meanwhile, see abandonIntake
		in.bytes = nil
	} else {
		in.bytes = append([]byte(nil), in.bytes[in.at:]...)
	}
	in.at = 0
	if len(in.bytes) > 0 || in.held != nil || c.phase != phaseOnline {
		if in.blocks == 0 && c.phase == phaseOnline { // what blocked it has gone meanwhile
			in.blocks |= blockOrder
			c.allow(blockOrder, ba)
		}
		return
	}
	if g := in.goodbye; g != nil {
		in.goodbye = nil
		first, body, _, err := mqtt.Split(g, 0)
		if err == nil {
			_ = c.goodbye(first, body, ba)
		}
		return
	}
	if in.full {
		in.full = false
		c.readOn()
	}
}

// publishLog proposes a publish. Caller holds the lock.
func (c *client) publishLog(p *publish) {
	b := c.b
	cmd := &fsmpb.Publish{
		ClientId: c.info.id, Epoch: uint64(c.epoch), Topic: p.topic, Payload: p.payload, Props: p.props,
		Qos: uint32(p.qos), Retain: p.retain, HasExpiry: p.hasExpiry, Expiry: p.expiry,
	}
	if p.qos == 2 && !c.sess.Clean() {
		cmd.PacketId = uint32(p.id)
	}
	size, qos, slot := p.size(), p.qos, p.slot
	follow := c.traceCommit(p)
	c.pending += size
	b.stats.published[roadLog].Add(1)
	sequence := b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: cmd}}, func(r fsm.Result, err error) {
		switch {
		case err == nil:
			follow.committed(r)
			c.published(publish{qos: qos, slot: slot}, size, r.Code)
		case qos == 0: // the incarnation has ended first. At QoS 1 and 2 the client has no acknowledgement
			c.drop(fsm.ReasonNoQuorum, 1)
		}
	})
	if sequence != 0 {
		c.last[qos] = sequence
	}
	c.throttle()
}

// published hears that a publish is in the log. On the applying goroutine.
func (c *client) published(p publish, size int, code fsm.Code) {
	ba := c.b.applying
	c.conn.Lock()
	defer c.conn.Unlock()
	c.pending -= size
	c.ahead = 0
	switch code {
	case fsm.OK, fsm.Duplicate:
		c.answer(&p, mqtt.Success, ba)
	case fsm.NoMatch:
		c.answer(&p, mqtt.NoMatchingSubscribers, ba)
	case fsm.Invalid:
		c.answer(&p, mqtt.ImplementationSpecificError, ba)
	case fsm.Stale: // it has been taken over
		c.drop(fsm.ReasonStale, 1)
	}
	c.relent(ba)
}

// Bounds of what one client, and all of them, may have on the way to the log.
const (
	maxPending = 4 << 20
	maxAhead   = 1 << 20
	maxBacklog = 64 << 20
)

// throttle stops taking publishes while too much is under way. Caller holds the lock.
func (c *client) throttle() {
	if c.pending > maxPending {
		c.intake.blocks |= blockLog
		c.b.stalls.Store(true)
	}
	if _, bytes := c.b.cluster.Backlog(); bytes > maxBacklog {
		c.intake.blocks |= blockLog
		c.b.stalls.Store(true)
	}
	if c.sess.Busy() {
		c.b.reached(LimitReceiveMaximum)
		c.intake.blocks |= blockBusy
	}
}

// relent takes publishes again when what was under way has arrived. Caller holds the lock.
func (c *client) relent(ba *conn.Batch) {
	if c.intake.blocks&blockLog != 0 && c.pending <= maxPending/2 {
		c.allow(blockLog, ba)
	}
	if c.intake.blocks&blockBusy != 0 && !c.sess.Busy() {
		c.allow(blockBusy, ba)
	}
	c.unchoke()
}

// abandonIntake counts what the client published at QoS 0 and is never taken: at QoS 1 and 2 it was
// not acknowledged, and the client sends it again. Caller holds the lock.
func (c *client) abandonIntake() {
	in := &c.intake
	n := 0
	if in.held != nil && in.held.qos == 0 {
		n++
	}
	for b := in.bytes[in.at:]; len(b) > 0; {
		first, _, size, err := mqtt.Split(b, 0)
		if err != nil || size == 0 {
			break
		}
		if first>>1&3 == 0 {
			n++
		}
		b = b[size:]
	}
	in.held, in.bytes, in.at = nil, nil, 0
	c.drop(fsm.ReasonNoQuorum, n)
}
