package fsm

import (
	"crypto/sha256"
	"io"
)

// WriteTo writes the snapshot, once. Apply may go on meanwhile.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	version := byte(snapshotVersion)
	if s.table.empty() { // a binary that knows no users can read it
		version = 1
	}
	e := newEncoder(w, version)
	e.uint(s.applied)
	e.int(s.now)
	e.uint(s.lastID)
	e.uint(s.serial)
	e.uint(uint64(len(s.members)))
	for _, m := range s.members {
		e.member(m)
	}
	e.uint(uint64(len(s.lives)))
	for i := range s.lives {
		e.incarnation(&s.lives[i])
	}
	s.eachClient(func(c *clientCopy) {
		e.bool(true)
		e.client(c)
	})
	e.bool(false)
	s.eachGroup(func(filter, group string, turn uint64) {
		e.bool(true)
		e.str(filter)
		e.str(group)
		e.uint(turn)
	})
	e.bool(false)
	s.interest.Scan(func(row interestRow) bool {
		e.bool(true)
		e.uint(row.inc)
		e.str(row.filter)
		e.str(row.group)
		e.uint(uint64(row.count))
		return e.err == nil
	})
	e.bool(false)
	s.assigned.Scan(func(a assignment) bool {
		e.bool(true)
		e.uint(a.inc)
		e.uint(a.id)
		e.message(a.message)
		e.str(a.filter)
		e.str(a.group)
		e.bool(a.claimed)
		return e.err == nil
	})
	e.bool(false)
	s.parked.Scan(func(p parkedWill) bool {
		e.bool(true)
		e.uint(p.inc)
		e.uint(uint64(p.epoch))
		e.str(p.client)
		e.will(p.will)
		return e.err == nil
	})
	e.bool(false)
	s.retained.Scan(func(row retainedRow) bool {
		e.bool(true)
		e.message(row.message)
		e.key(row.expires)
		return e.err == nil
	})
	e.bool(false)
	if version > 1 {
		e.access(&s.table)
	}
	return e.close()
}

// Hash is a digest of the whole state: equal on replicas at the same index.
func (f *FSM) Hash() [32]byte {
	s := f.Snapshot()
	defer s.Release()
	return s.Hash()
}

// Hash is a digest of the state that the snapshot holds. It takes as long as writing it.
func (s *Snapshot) Hash() [32]byte {
	h := sha256.New()
	_, _ = s.WriteTo(h) // a hash takes everything
	return [32]byte(h.Sum(nil))
}

func (e *encoder) member(m *Member) {
	e.str(m.ID)
	e.bool(m.Live)
	e.uint(m.Incarnation)
	e.uint(m.Nonce)
	for _, s := range []string{m.StoreID, m.PeerAddr, m.MQTTAddr, m.AdminAddr, m.HTTPAddr, m.Version, m.DownReason} {
		e.str(s)
	}
	e.uint(uint64(m.Features))
	e.int(m.Since)
}

func (d *decoder) member() *Member {
	m := &Member{ID: d.str(), Live: d.bool(), Incarnation: d.uint(), Nonce: d.uint()}
	for _, s := range []*string{&m.StoreID, &m.PeerAddr, &m.MQTTAddr, &m.AdminAddr, &m.HTTPAddr, &m.Version, &m.DownReason} {
		*s = d.str()
	}
	m.Features = uint32(d.uint())
	m.Since = d.int()
	return m
}

func (e *encoder) incarnation(i *incarnationRow) {
	e.str(i.node)
	e.uint(i.number)
	e.uint(i.next)
	e.bool(i.live)
	e.int(i.endedAt)
	e.uint(uint64(len(i.relays)))
	for _, r := range i.relays {
		e.uint(r.target)
		e.uint(r.seq)
	}
}

func (d *decoder) incarnation() *incarnation {
	i := &incarnation{node: d.shared(), number: d.uint(), next: d.uint(), live: d.bool(), endedAt: d.int()}
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		i.relays = append(i.relays, relayMark{d.uint(), d.uint()})
	}
	return i
}

func (e *encoder) will(w *will) {
	e.bool(w != nil)
	if w == nil {
		return
	}
	e.str(w.topic)
	e.bytes(w.payload)
	e.bytes(w.props)
	e.uint(uint64(w.qos))
	e.bool(w.retain)
	e.bool(w.hasExpiry)
	e.uint(uint64(w.expiry))
	e.uint(uint64(w.delay))
}

func (d *decoder) will() *will {
	if !d.bool() {
		return nil
	}
	return &will{
		topic: d.str(), payload: d.bytes(), props: d.bytes(), qos: byte(d.uint()), retain: d.bool(),
		hasExpiry: d.bool(), expiry: uint32(d.uint()), delay: uint32(d.uint()),
	}
}

func (e *encoder) client(c *clientCopy) {
	r := &c.row
	e.str(c.id)
	e.uint(uint64(r.epoch))
	var owner uint64
	if r.owner != nil {
		owner = r.owner.number
	}
	e.uint(owner)
	e.uint(uint64(r.protocol))
	e.uint(uint64(r.keepalive))
	e.str(r.username)
	e.str(r.address)
	e.str(r.listener)
	e.int(r.connected)
	e.int(r.offline)
	e.will(r.will)
	e.key(r.willAt)
	e.bool(c.sess != nil)
	if c.sess != nil {
		e.session(c.sess)
		e.uint(uint64(len(c.subs)))
		for i := range c.subs {
			e.subscription(&c.subs[i])
		}
	}
	e.more()
}

func (e *encoder) session(s *sessionRow) {
	e.int(s.created)
	e.uint(uint64(s.born))
	e.uint(uint64(s.expiry))
	e.key(s.expireAt)
	e.uint(uint64(s.limits.MaxQueue))
	e.uint(s.limits.MaxQueueBytes)
	e.uint(uint64(s.limits.Span))
	e.uint(s.limits.flags())
	e.uint(s.cursor)
	e.uint(s.last)
	e.uint(s.mark)
	e.bool(s.closed)
	e.ranges(s.done)
	e.ranges(s.received)
	e.uint(uint64(len(s.inbound)))
	for _, id := range s.inbound {
		e.uint(uint64(id))
	}
	e.uint(uint64(len(s.queue)))
	for i := range s.queue {
		e.entry(&s.queue[i])
	}
}

// What a snapshot says of Limits in one byte.
const (
	flagQueueQoS0 = 1 << iota
	flagDropOldest
)

func (l *Limits) flags() (n uint64) {
	if l.QueueQoS0 {
		n |= flagQueueQoS0
	}
	if l.DropOldest {
		n |= flagDropOldest
	}
	return n
}

func (d *decoder) session() *sessionRow {
	s := &sessionRow{created: d.int(), born: Epoch(d.uint()), expiry: uint32(d.uint()), expireAt: d.key()}
	s.limits = Limits{MaxQueue: uint32(d.uint()), MaxQueueBytes: d.uint(), Span: uint32(d.uint())}
	flags := d.uint()
	s.limits.QueueQoS0, s.limits.DropOldest = flags&flagQueueQoS0 != 0, flags&flagDropOldest != 0
	s.cursor, s.last, s.mark, s.closed = d.uint(), d.uint(), d.uint(), d.bool()
	s.done, s.received = d.ranges(), d.ranges()
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		s.inbound = append(s.inbound, uint16(d.uint()))
	}
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		if e := d.entry(); e.Message != nil {
			s.push(e)
		}
	}
	return s
}

func (e *encoder) entry(q *Entry) {
	e.uint(q.Seq)
	e.message(q.Message)
	e.uint(uint64(q.QoS))
	e.bool(q.Retain)
	e.uint(uint64(len(q.IDs)))
	for _, id := range q.IDs {
		e.uint(uint64(id))
	}
	e.str(q.Filter)
	e.str(q.Group)
}

func (d *decoder) entry() Entry {
	q := Entry{Seq: d.uint(), Message: d.message(), QoS: byte(d.uint()), Retain: d.bool()}
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		q.IDs = append(q.IDs, uint32(d.uint()))
	}
	q.Filter, q.Group = d.shared(), d.shared()
	return q
}

func (e *encoder) subscription(s *Subscription) {
	e.str(s.Filter)
	e.str(s.Group)
	e.uint(uint64(s.QoS))
	e.bool(s.NoLocal)
	e.bool(s.RetainAsPublished)
	e.uint(uint64(s.RetainHandling))
	e.uint(uint64(s.ID))
}

func (d *decoder) subscription() Subscription {
	return Subscription{
		Filter: d.shared(), Group: d.shared(), QoS: byte(d.uint()), NoLocal: d.bool(),
		RetainAsPublished: d.bool(), RetainHandling: byte(d.uint()), ID: uint32(d.uint()),
	}
}
