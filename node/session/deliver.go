package session

import (
	"strings"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Slot takes a place in the window for a message of a clean session that is sent at once, from an
// encoding that the caller has. It returns false when the message has to wait (see Enqueue).
func (s *Session) Slot(qos byte) (id uint16, ok bool) {
	o := &s.out
	if o.queued() > 0 || o.inflight >= s.cfg.Window || o.top-o.cursor >= maxSpan {
		return 0, false
	}
	return fsm.PacketID(s.take(qos)), true
}

// maxSpan keeps packet ids unique: it is the number of them.
const maxSpan = 65535

func (s *Session) take(qos byte) uint64 {
	o := &s.out
	seq := o.top + 1
	o.sent = seq
	s.mark(seq, qos)
	return seq
}

func (s *Session) mark(seq uint64, qos byte) {
	o := &s.out
	switch qos {
	case 0:
		o.set(seq, slotDone)
		return
	case 1:
		o.set(seq, slotSent1)
	default:
		o.set(seq, slotSent2)
	}
	o.inflight++
}

// Enqueue puts an entry behind those that wait. A clean session's entry has no sequence number
// yet; a persistent one's has the log's, and one that was enqueued before is ignored. An entry
// for which there is no room is dropped and counted.
func (s *Session) Enqueue(e fsm.Entry) { s.enqueue(item{Entry: e}) }

// EnqueueShared is Enqueue for a clean session that is a member of a shared group. An entry that was
// dropped at once is in TakeDrops, and it is settled.
func (s *Session) EnqueueShared(e Shared) { s.enqueue(item{Entry: e.Entry, pick: e.Pick}) }

// EnqueueClaimed is EnqueueShared for an entry at QoS 2 that the log may still give to another member:
// it is sent once Claimed was called as often as EnqueueClaimed returned true. False: it was dropped.
func (s *Session) EnqueueClaimed(e Shared) bool {
	if !s.enqueue(item{Entry: e.Entry, pick: e.Pick, claim: s.claims.made + 1}) {
		return false
	}
	s.claims.made++
	return true
}

// Claimed tells that nobody else gets the next entry that EnqueueClaimed took. Pump may send it.
func (s *Session) Claimed() { s.claims.won++ }

func (s *Session) enqueue(e item) bool {
	o := &s.out
	if s.cfg.Persistent {
		last := max(o.sent, o.cursor)
		if n := len(o.waiting); n > o.head {
			last = o.waiting[n-1].Seq
		}
		if e.Seq <= last {
			return false
		}
	}
	if o.inflight >= s.cfg.Window {
		s.waits++
	}
	if s.cfg.Full == DropOldest {
		for s.full(e.Message) && s.dropOldest() {
		}
	}
	if s.full(e.Message) {
		if s.cfg.Full == Disconnect {
			s.overflow = true
			if s.cfg.Persistent { // the log keeps it
				return false
			}
		}
		s.drop(&e.Entry, fsm.ReasonQueueFull)
		s.settlePick(e.pick)
		if s.cfg.Persistent {
			o.pushDropped(e.Seq, s.fence.next())
		}
		return false
	}
	o.push(e)
	return true
}

// full tells whether m finds no room: as much waits already as may beyond the window, of which some
// may be free.
func (s *Session) full(m *fsm.Message) bool {
	o := &s.out
	return s.cfg.MaxQueued > 0 && o.live+o.inflight >= s.cfg.MaxQueued+s.cfg.Window ||
		s.cfg.MaxBytes > 0 && o.live > 0 && o.bytes+messageBytes(m) > s.cfg.MaxBytes
}

// dropOldest drops the first entry that waits and was never sent; false: there is none.
func (s *Session) dropOldest() bool {
	o := &s.out
	i := o.oldest()
	if i < 0 {
		return false
	}
	it := o.waiting[i]
	s.drop(&it.Entry, fsm.ReasonQueueFull)
	s.settlePick(it.pick)
	if s.cfg.Persistent {
		o.dropAt(i, s.fence.next())
	} else { // nothing is sent again on its connection: the first that waits is the oldest
		o.pop()
	}
	return true
}

func (s *Session) drop(e *fsm.Entry, r fsm.Reason) {
	s.drops = append(s.drops, Drop{Seq: e.Seq, Reason: r})
	if s.cfg.Lost != nil {
		s.cfg.Lost(e, r)
	}
}

// Pump appends PUBLISHes to dst while the window and the span allow and dst stays under limit
// bytes. now is the log's clock in ms.
func (s *Session) Pump(dst []byte, now int64, limit int) []byte {
	o := &s.out
	s.fence.waits = false
	for o.head < len(o.waiting) && len(dst) < limit {
		it := &o.waiting[o.head]
		if s.cfg.Persistent {
			s.skip(min(it.Seq-1, s.maySendTo())) // the log has settled these meanwhile
		}
		if it.Message == nil {
			s.skip(min(it.Seq, s.maySendTo()))
			if it.Seq > s.maySendTo() { // the rest when the cursor is committed
				break
			}
			s.fence.passed = max(s.fence.passed, it.take)
			o.pop()
			continue
		}
		if !s.maySend(it) {
			break
		}
		if r := s.undeliverable(&it.Entry, now); r != fsm.ReasonNone {
			s.abandon(it, r)
			o.pop()
			continue
		}
		if s.fence.closed() {
			s.fence.waits = true
			break
		}
		seq := it.Seq
		if s.cfg.Persistent {
			o.sent = seq
			s.mark(seq, it.QoS)
		} else if it.QoS > 0 {
			seq = s.take(it.QoS)
			if it.Group != "" {
				s.keep(seq, Shared{it.Entry, it.pick})
			}
		}
		dst = s.appendPublish(dst, &it.Entry, seq, it.dup, now)
		o.pop()
	}
	return dst
}

// abandon drops an entry instead of sending it. A QoS 2 entry that an earlier connection may have
// sent is finished, not forgotten, or its packet id would swallow a later message: it is
// committed as past PUBREC and goes on with PUBREL.
func (s *Session) abandon(it *item, r fsm.Reason) {
	s.drop(&it.Entry, r)
	s.settlePick(it.pick)
	if !s.cfg.Persistent {
		return
	}
	s.fence.passed = s.fence.next()
	if it.dup && it.QoS == 2 {
		s.out.sent = it.Seq
		s.out.set(it.Seq, slotSettling)
		s.received = addRange(s.received, it.Seq)
		return
	}
	s.skip(it.Seq)
}

// NeedsCommit is true when something waits for what TakeReceived or TakeDrops would give.
func (s *Session) NeedsCommit() bool {
	return len(s.received) > 0 || s.fence.waits && s.fence.taken < s.fence.passed
}

func (s *Session) maySend(it *item) bool {
	o := &s.out
	if it.QoS > 0 && o.inflight >= s.cfg.Window {
		return false
	}
	if s.cfg.Persistent {
		return it.Seq <= s.maySendTo()
	}
	return o.top-o.cursor < maxSpan && it.claim <= s.claims.won
}

// maySendTo is the highest number of a persistent session that may be sent or settled before a
// further cursor is committed.
func (s *Session) maySendTo() uint64 { return s.out.committed + uint64(s.cfg.Span) }

// skip settles every number up to seq that was neither sent nor is past PUBREC.
func (s *Session) skip(seq uint64) {
	o := &s.out
	for n := max(o.sent, o.cursor) + 1; n <= seq; n++ {
		if o.state(n) == slotUnsent {
			o.set(n, slotDone)
		}
	}
	o.sent = max(o.sent, seq)
}

func (s *Session) undeliverable(e *fsm.Entry, now int64) fsm.Reason {
	if e.Message.Expires != 0 && e.Message.Expires <= now {
		return fsm.ReasonExpired
	}
	if s.cfg.MaxPacket > 0 && s.TooLarge(len(e.Message.Topic), e.IDs, e.QoS, e.Message.Expires != 0, len(e.Message.Props), len(e.Message.Payload)) {
		return fsm.ReasonTooLarge
	}
	if s.cfg.Allowed != nil && !s.cfg.Allowed(e.Message.Topic) {
		return fsm.ReasonNotAllowed
	}
	return fsm.ReasonNone
}

// TooLarge says whether a PUBLISH of these sizes, the topic's with its mount point, exceeds the client's Maximum Packet Size
// [MQTT-3.1.2-24].
func (s *Session) TooLarge(topic int, ids []uint32, qos byte, expiry bool, props, payload int) bool {
	if s.cfg.MaxPacket == 0 {
		return false
	}
	topic -= len(s.cfg.Mount)
	h := mqtt.PublishHeader{QoS: qos, HasExpiry: expiry}
	return mqtt.PublishSize(s.cfg.Version, h, topic, ids, props, payload) > int(s.cfg.MaxPacket)
}

func (s *Session) appendPublish(dst []byte, e *fsm.Entry, seq uint64, dup bool, now int64) []byte {
	s.sent[e.QoS]++
	h := mqtt.PublishHeader{Dup: dup, QoS: e.QoS, Retain: e.Retain}
	if e.QoS > 0 {
		h.PacketID = fsm.PacketID(seq)
	}
	if s.cfg.Sent != nil {
		s.cfg.Sent(e, h.PacketID)
	}
	if e.Message.Expires != 0 {
		h.HasExpiry, h.Expiry = true, SecondsLeft(e.Message.Expires, now)
	}
	return s.AppendPublish(dst, h, e.Message.Topic, e.IDs, e.Message.Props, e.Message.Payload)
}

// SecondsLeft rounds what is left of a message's expiry up, to at least one second.
func SecondsLeft(expires, now int64) uint32 { return uint32(max(1, (expires-now+999)/1000)) }

// AppendPublish encodes one PUBLISH, without the mount point, and with a topic alias where the client allows them.
func (s *Session) AppendPublish(dst []byte, h mqtt.PublishHeader, topic string, ids []uint32, props, payload []byte) []byte {
	topic = strings.TrimPrefix(topic, s.cfg.Mount)
	if s.cfg.AliasOut > 0 {
		h.Alias, topic = s.alias(h, topic, ids, len(props), len(payload))
	}
	dst, _ = mqtt.AppendPublish(dst, s.cfg.Version, h, topic, ids, props, payload)
	return dst
}

// alias returns the alias to send, and the topic beside it. The first topics get the aliases. One
// that would make the packet too large for the client is left out.
func (s *Session) alias(h mqtt.PublishHeader, topic string, ids []uint32, props, payload int) (uint16, string) {
	alias, known := s.aliases[topic]
	beside := topic
	switch {
	case known:
		beside = ""
	case len(s.aliases) < int(s.cfg.AliasOut):
		alias = uint16(len(s.aliases) + 1)
	default:
		return 0, topic
	}
	h.Alias = alias
	if s.cfg.MaxPacket > 0 && mqtt.PublishSize(s.cfg.Version, h, len(beside), ids, props, payload) > int(s.cfg.MaxPacket) {
		return 0, topic
	}
	if !known {
		if s.aliases == nil {
			s.aliases = make(map[string]uint16)
		}
		s.aliases[strings.Clone(topic)] = alias // the caller's may be in memory that is used again
	}
	return alias, beside
}

// Unshared is true when PUBLISHes to this client can't share an encoding with other clients.
func (s *Session) Unshared() bool { return s.cfg.AliasOut > 0 || s.cfg.Mount != "" }

// keep holds a shared group's entry until it is acknowledged: if the session ends first, another
// member gets it [MQTT-4.8.2-5].
func (s *Session) keep(seq uint64, e Shared) {
	if s.shared == nil {
		s.shared = make(map[uint64]Shared)
	}
	s.shared[seq] = e
}

// KeepShared remembers the entry behind the packet id that Slot just gave.
func (s *Session) KeepShared(e Shared) { s.keep(s.out.sent, e) }

// TakeDrops returns what was dropped since the last call. The caller counts it; a persistent
// session commits it with the progress that it is about to propose.
func (s *Session) TakeDrops() []Drop {
	s.fence.taken++
	d := s.drops
	s.drops = nil
	return d
}

// Leftover returns, when a clean session ends, the entries of shared groups that another member
// may still get (QoS 1, and QoS 2 that was never sent) and how many others were lost. Assignments of
// the QoS 2 entries that were sent are settled.
func (s *Session) Leftover() (reassign []Shared, lost int) {
	o := &s.out
	for seq := o.cursor + 1; seq <= o.top; seq++ {
		e, ok := s.shared[seq]
		switch {
		case !ok:
		case o.state(seq) == slotSent1:
			reassign = append(reassign, e)
		default:
			s.settlePick(e.Pick)
		}
	}
	s.shared = nil
	for _, it := range o.waiting[o.head:] {
		switch {
		case it.Message == nil:
		case it.Group != "":
			reassign = append(reassign, Shared{it.Entry, it.pick})
		default:
			lost++
		}
	}
	return reassign, lost
}
