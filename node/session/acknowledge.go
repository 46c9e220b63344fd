package session

import (
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Puback handles the client's PUBACK. It returns the entry's sequence number, 0 if the packet id
// means nothing (a repeat).
func (s *Session) Puback(id uint16) uint64 {
	o := &s.out
	seq, ok := o.find(id)
	if !ok || o.state(seq) != slotSent1 {
		return 0
	}
	o.inflight--
	s.settle(seq)
	o.set(seq, slotDone)
	return seq
}

// settle forgets a shared group's entry: the client has it.
func (s *Session) settle(seq uint64) {
	e, ok := s.shared[seq]
	if !ok {
		return
	}
	delete(s.shared, seq)
	s.settlePick(e.Pick)
}

func (s *Session) settlePick(pick uint64) {
	if pick != 0 {
		s.settled = append(s.settled, pick)
	}
}

// TakeSettled returns the assignments of shared groups (Shared.Pick) that the client has
// acknowledged since the last call: the log need not keep them any longer.
func (s *Session) TakeSettled() []uint64 {
	p := s.settled
	s.settled = nil
	return p
}

// Pubrec handles the client's PUBREC. A clean session answers with PUBREL at once; a persistent
// one has to commit it first: else a new owner would send the PUBLISH again, and the client, which
// may reuse the packet id only after PUBCOMP, would take it for a second message. commit is true
// when TakeReceived has something to give.
func (s *Session) Pubrec(id uint16, code mqtt.ReasonCode, dst []byte) (_ []byte, commit bool) {
	o := &s.out
	seq, ok := o.find(id)
	state := slotDone
	if ok {
		state = o.state(seq)
	}
	switch state {
	case slotSent2:
		s.settle(seq)     // also when it refuses: nobody else gets it [MQTT-4.8.2-6]
		if code >= 0x80 { // the packet id is free again [MQTT-4.3.3]
			o.inflight--
			o.set(seq, slotDone)
			return dst, false
		}
		if !s.cfg.Persistent {
			o.set(seq, slotReleased)
			return s.appendAck(dst, mqtt.PUBREL, id, 0), false
		}
		o.set(seq, slotReceived)
		s.received = addRange(s.received, seq)
		return dst, true
	case slotReceived, slotSettling: // a repeat, answered when it is committed
		return dst, false
	case slotReleased, slotEarlier:
		return s.appendAck(dst, mqtt.PUBREL, id, 0), false
	}
	if o.resends(id) { // it is for the PUBLISH of an earlier connection, which comes again
		return dst, false
	}
	return s.appendAck(dst, mqtt.PUBREL, id, mqtt.PacketIdentifierNotFound), false
}

// Pubcomp handles the client's PUBCOMP.
func (s *Session) Pubcomp(id uint16) uint64 {
	o := &s.out
	seq, ok := o.find(id)
	if !ok {
		return 0
	}
	switch o.state(seq) {
	case slotReleased:
		o.inflight--
	case slotEarlier:
	default:
		return 0
	}
	o.set(seq, slotDone)
	return seq
}

// TakeReceived returns what PUBREC came for since the last call, to be committed.
func (s *Session) TakeReceived() []fsm.Range {
	r := s.received
	s.received = nil
	return r
}

// Received appends the PUBRELs for ranges whose PUBREC is committed now.
func (s *Session) Received(ranges []fsm.Range, dst []byte) []byte {
	o := &s.out
	for _, r := range ranges {
		for seq := r.Lo; seq <= r.Hi; seq++ {
			switch o.state(seq) {
			case slotReceived:
				o.set(seq, slotReleased)
			case slotSettling:
				o.set(seq, slotEarlier)
			default:
				continue
			}
			dst = s.appendAck(dst, mqtt.PUBREL, fsm.PacketID(seq), 0)
		}
	}
	return dst
}

// Progress describes what is done, to be committed.
type Progress struct {
	Cursor uint64
	Done   []fsm.Range
}

// Dirty says whether there is a progress to propose, some time, and whether it is so much that it
// should be now.
func (s *Session) Dirty() (dirty, urgent bool) {
	o := &s.out
	n := o.cursor - o.proposed
	return n > 0 || s.fence.waits, n*2 >= uint64(s.cfg.Span)
}

// TakeProgress returns the cursor and what is done above it. The caller proposes it.
func (s *Session) TakeProgress() Progress {
	o := &s.out
	p := Progress{Cursor: o.cursor}
	o.proposed = o.cursor
	for seq := o.cursor + 1; seq <= o.top; seq++ {
		if o.state(seq) == slotDone {
			p.Done = addRange(p.Done, seq)
		}
	}
	return p
}

// Committed tells that a progress with this cursor is in the log: more may be sent. It is called for
// each, in the order in which they were proposed.
func (s *Session) Committed(cursor uint64) {
	s.out.committed = max(s.out.committed, cursor)
	s.fence.committed++
}

// Sent is the highest sequence number sent on this connection, 0 if none was.
func (s *Session) Sent() uint64 { return s.out.sent }

// Drops is how many entries TakeDrops would return.
func (s *Session) Drops() int { return len(s.drops) }

// Inflight and Queued are figures for people.
func (s *Session) Inflight() int { return s.out.inflight }

// Queued is how many entries wait to be sent.
func (s *Session) Queued() int { return s.out.queued() }

func addRange(r []fsm.Range, seq uint64) []fsm.Range {
	if n := len(r); n > 0 && r[n-1].Hi+1 == seq {
		r[n-1].Hi = seq
		return r
	}
	return append(r, fsm.Range{Lo: seq, Hi: seq})
}
