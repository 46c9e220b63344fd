package broker

import (
	"encoding/binary"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/node/session"
	"github.com/skein-mqtt/skein/node/trace"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// deliver gives a message to all targets and tells how many there were. No lock may be held.
func (b *Broker) deliver(m *message, targets []target, ba *conn.Batch) {
	if m.expires != 0 && m.now == 0 {
		m.now = b.cluster.Now()
	}
	for i := range targets {
		t := &targets[i]
		g := &t.as
		if t.noLocal && t.c.info.id == m.publisher {
			if g = t.own; g == nil {
				continue
			}
		}
		if t.denied && !g.byLog(m) {
			t.c.lose(m, fsm.ReasonNotAllowed)
			continue
		}
		t.c.deliver(m, g, t.since, ba)
	}
}

// byLog tells whether a session has a message from the log, or is about to: not this way.
func (g *grant) byLog(m *message) bool {
	return g.persistent && (min(m.qos, g.qos) > 0 || m.index != 0)
}

// deliver gives the client a message of the link road, or one of the log's to a clean client.
func (c *client) deliver(m *message, g *grant, since *sub, ba *conn.Batch) {
	if g.byLog(m) {
		return
	}
	qos := min(m.qos, g.qos)
	c.conn.Lock()
	defer c.conn.Unlock()
	if m.index != 0 && m.index <= since.since.Load() {
		return // it was among the retained messages, or is not owed
	}
	c.give(m, qos, m.retain && g.asIs, g.ids, ba)
}

// give puts a message into the client's mailbox: the outbox if there is room, else the queue. Caller
// holds the lock.
func (c *client) give(m *message, qos byte, retain bool, ids []uint32, ba *conn.Batch) {
	switch {
	case c.phase == phaseOver:
		return // its subscriptions ended before this message
	case qos == 0:
		c.give0(m, retain, ids, ba)
		return
	}
	s := c.sess
	if c.ready(m) {
		if s.TooLarge(len(m.topic), ids, qos, m.expires != 0, len(m.props), len(m.payload)) {
			c.lose(m, fsm.ReasonTooLarge)
			return
		}
		if id, ok := s.Slot(qos); ok {
			c.write(m, qos, retain, ids, id, ba)
			return
		}
	}
	c.traceWaits(m)
	s.Enqueue(fsm.Entry{Message: m.keep(), QoS: qos, Retain: retain, IDs: ids})
	c.resumeWhenDrained()
	c.settle(ba)
}

// ready tells whether a message at QoS 1 or 2 may be written at once. Caller holds the lock.
func (c *client) ready(m *message) bool {
	if c.phase != phaseOnline || c.intake.blocks&blockDrain != 0 || c.conn.OutLen() >= outboxLimit {
		return false
	}
	if m.leased || c.b.leased() {
		return true
	}
	c.starved = true // perhaps nobody hears of a short lapse: the sweep sees to it
	return false
}

// write encodes a PUBLISH into the outbox. Caller holds the lock.
func (c *client) write(m *message, qos byte, retain bool, ids []uint32, id uint16, ba *conn.Batch) {
	c.b.stats.sent[qos].Add(1)
	c.seen.messagesOut++
	if t := c.b.traced(); t != nil {
		s := m.subject()
		t.Step(&s, trace.Sent, c.info.id, trace.Step{PacketID: id, Index: m.index, Detail: sentAt(qos)})
	}
	if len(ids) > 0 || c.sess.Unshared() {
		h := m.header(qos, retain)
		h.PacketID = id
		out := conn.Grow(c.conn.Out(), mqtt.PublishSize(c.version, h, len(m.topic), ids, len(m.props), len(m.payload))+8)
		c.conn.SetOut(c.sess.AppendPublish(out, h, m.topic, ids, m.props, m.payload), ba)
		return
	}
	packet, at := m.encoded(c.version, qos, retain)
	out := conn.Grow(c.conn.Out(), len(packet))
	start := len(out)
	out = append(out, packet...)
	if qos > 0 {
		binary.BigEndian.PutUint16(out[start+at:], id)
	}
	c.conn.SetOut(out, ba)
}

// give0 is give at QoS 0: nothing is owed, so what finds no room is dropped and counted.
func (c *client) give0(m *message, retain bool, ids []uint32, ba *conn.Batch) {
	switch {
	case c.phase != phaseOnline:
		c.lose(m, fsm.ReasonOffline)
	case c.sess.TooLarge(len(m.topic), ids, 0, m.expires != 0, len(m.props), len(m.payload)):
		c.lose(m, fsm.ReasonTooLarge)
	case c.zero.len() > 0: // retained messages are on their way: they come first
		if c.zero.bytes > c.b.cfg.MaxBufferedBytes {
			c.lose(m, fsm.ReasonSlowReader)
			return
		}
		c.zero.push(fsm.Entry{Message: m.keep(), Retain: retain, IDs: ids})
	case c.conn.OutLen() > c.b.cfg.MaxBufferedBytes:
		c.lose(m, fsm.ReasonSlowReader)
	default:
		c.write(m, 0, retain, ids, 0, ba)
	}
}

// zeroQueue are retained messages at QoS 0 on their way to a client, and what came behind them. They
// are the state's own messages, so a queue of them costs next to nothing.
type zeroQueue struct {
	list  []fsm.Entry
	head  int
	bytes int
}

func (q *zeroQueue) len() int { return len(q.list) - q.head }

func (q *zeroQueue) push(e fsm.Entry) {
	q.list = append(q.list, e)
	q.bytes += len(e.Message.Payload) + len(e.Message.Topic)
}

func (q *zeroQueue) pop() fsm.Entry {
	e := q.list[q.head]
	q.list[q.head] = fsm.Entry{}
	q.bytes -= len(e.Message.Payload) + len(e.Message.Topic)
	if q.head++; q.head == len(q.list) {
		*q = zeroQueue{}
	}
	return e
}

// clear empties the queue and tells how many were in it.
func (q *zeroQueue) clear() int {
	n := q.len()
	*q = zeroQueue{}
	return n
}

// pushZero sends from the zero queue while the outbox has room. Caller holds the lock.
func (c *client) pushZero(ba *conn.Batch) {
	if c.zero.len() == 0 {
		return
	}
	now := c.b.cluster.Now()
	for c.zero.len() > 0 {
		if c.conn.OutLen() > outboxLimit {
			c.conn.NotifyDrained()
			return
		}
		e := c.zero.pop()
		m := e.Message
		if m.Expires != 0 && m.Expires <= now {
			c.drop(fsm.ReasonExpired, 1)
			c.traceLost(&e, fsm.ReasonExpired)
			continue
		}
		if !c.mayReceive(m.Topic) {
			c.drop(fsm.ReasonNotAllowed, 1)
			c.traceLost(&e, fsm.ReasonNotAllowed)
			continue
		}
		if c.sess.TooLarge(len(m.Topic), e.IDs, 0, m.Expires != 0, len(m.Props), len(m.Payload)) {
			c.drop(fsm.ReasonTooLarge, 1)
			c.traceLost(&e, fsm.ReasonTooLarge)
			continue
		}
		h := mqtt.PublishHeader{Retain: e.Retain}
		if m.Expires != 0 {
			h.HasExpiry, h.Expiry = true, session.SecondsLeft(m.Expires, now)
		}
		out := conn.Grow(c.conn.Out(), mqtt.PublishSize(c.version, h, len(m.Topic), e.IDs, len(m.Props), len(m.Payload))+8)
		c.conn.SetOut(c.sess.AppendPublish(out, h, m.Topic, e.IDs, m.Props, m.Payload), ba)
		c.traceSent(&e, 0)
		c.b.stats.sent[0].Add(1)
		c.seen.messagesOut++
	}
}

// pick gives a message to one member of a shared group on this node; false: there is none. If there are
// only such as may not have it, it is dropped: handed back, it would come again and again. clean: to a
// clean client only, as the log asks.
func (b *Broker) pick(m *message, filter, name string, id uint64, clean bool, ba *conn.Batch) bool {
	if m.expires != 0 && m.now == 0 {
		m.now = b.cluster.Now()
	}
	var denied *client
	for _, s := range b.local.members(filter, name) {
		qos := min(m.qos, s.QoS)
		switch {
		case s.persistent && (clean || qos > 0):
		case !s.c.mayReceive(m.topic):
			denied = s.c
		case s.c.share(m, s, qos, id, ba):
			return true
		}
	}
	if denied == nil {
		return false
	}
	denied.lose(m, fsm.ReasonNotAllowed)
	b.lazy.confirm(picked(id))
	return true
}

// share is give for a member of a shared group; false when the client is gone.
func (c *client) share(m *message, s *sub, qos byte, id uint64, ba *conn.Batch) bool {
	c.conn.Lock()
	defer c.conn.Unlock()
	if c.phase == phaseOver {
		return false
	}
	retain := m.retain && s.RetainAsPublished
	if qos == 0 {
		c.give0(m, retain, s.ids, ba)
		c.b.lazy.confirm(picked(id))
		return true
	}
	if m.expires != 0 && m.expires <= m.now {
		c.lose(m, fsm.ReasonExpired)
		c.b.lazy.confirm(picked(id))
		return true
	}
	e := session.Shared{
		Entry: fsm.Entry{Message: m.keep(), QoS: qos, Retain: retain, IDs: s.ids, Filter: s.Filter, Group: s.Group},
		Pick:  id,
	}
	if qos == 2 && id != 0 {
		c.claim(e, ba)
		return true
	}
	if c.ready(m) && !c.sess.TooLarge(len(m.topic), s.ids, qos, m.expires != 0, len(m.props), len(m.payload)) {
		if packet, ok := c.sess.Slot(qos); ok {
			c.sess.KeepShared(e)
			c.write(m, qos, retain, s.ids, packet, ba)
			return true
		}
	}
	c.sess.EnqueueShared(e)
	c.resumeWhenDrained()
	c.settle(ba)
	return true
}

// claim tells the log that this client may have a message at QoS 2 that was assigned, before it is sent:
// from then on nobody else gets it, also if this node dies [MQTT-4.8.2-5]. Caller holds the lock.
func (c *client) claim(e session.Shared, ba *conn.Batch) {
	if !c.sess.EnqueueClaimed(e) {
		c.settle(ba)
		return
	}
	done := &fsmpb.SharedDone{Claimed: picked(e.Pick)}
	c.b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_SharedDone{SharedDone: done}}, func(_ fsm.Result, err error) {
		if err == nil {
			c.claimed()
		}
	})
}

// claimed hears that the next message is this client's. If the session has ended meanwhile, it went back
// to the log. On the applying goroutine.
func (c *client) claimed() {
	c.conn.Lock()
	defer c.conn.Unlock()
	if c.phase != phaseOver {
		c.sess.Claimed()
		c.push(c.b.applying)
	}
}

func picked(id uint64) []uint64 {
	if id == 0 {
		return nil
	}
	return []uint64{id}
}
