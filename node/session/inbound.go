package session

import "github.com/skein-mqtt/skein/proto/mqtt"

// inbound tracks what the client has in flight towards us.
type inbound struct {
	count   int // of our Receive Maximum in use on this connection
	ids     map[uint16]inState
	aliases map[uint16][]byte
}

type inState uint8

const (
	inPending inState = iota + 1 // PUBLISH came, PUBREC has not left
	inKnown                      // PUBREC left
	inEarlier                    // as inKnown, but uses no quota: an earlier connection's, or before 5.0
)

func (in *inbound) restore(id uint16) { in.put(id, inEarlier) }

func (in *inbound) put(id uint16, s inState) {
	if in.ids == nil {
		in.ids = make(map[uint16]inState)
	}
	in.ids[id] = s
}

// Verdict says what becomes of a PUBLISH.
type Verdict uint8

// Verdicts.
const (
	Route  Verdict = iota // route it; at QoS >= 1 complete its slot then
	Repeat                // a clean session's QoS 2 repeat: acknowledged already, do not route
)

// Accepted tells whether the log has a QoS 2 message under this packet id already: whatever comes under it is a repeat.
// Of one that is pending it is not known: it may have been refused.
func (s *Session) Accepted(id uint16) bool {
	if !s.cfg.Persistent {
		return false
	}
	st := s.in.ids[id]
	return st == inKnown || st == inEarlier
}

// Publish checks a PUBLISH of the client and opens the slot of its acknowledgement. The topic
// alias is resolved into p.Topic. A persistent session's QoS 2 repeats are judged by the log, which
// answers them like the first.
func (s *Session) Publish(p *mqtt.Publish) (slot uint64, v Verdict, err error) {
	if err := s.resolveAlias(p); err != nil {
		return 0, 0, err
	}
	in := &s.in
	switch p.QoS {
	case 0:
		return 0, Route, nil
	case 1:
		if s.overMaximum() {
			return 0, 0, errReceiveMaximum
		}
		in.count++
		return s.queue(Puback).open(p.PacketID), Route, nil
	}
	state := in.ids[p.PacketID]
	if state == 0 && s.overMaximum() {
		return 0, 0, errReceiveMaximum
	}
	slot = s.queue(Pubrec).open(p.PacketID)
	if state != 0 && !s.cfg.Persistent {
		s.queue(Pubrec).done(slot, 0, nil)
		return slot, Repeat, nil
	}
	if state == 0 || state == inEarlier {
		in.count++
		in.put(p.PacketID, inPending)
	}
	return slot, Route, nil
}

// overMaximum: a v5 client knows our Receive Maximum and must keep it [MQTT-3.3.4-7]; older ones
// are slowed down by their caller instead (see Busy).
func (s *Session) overMaximum() bool {
	return s.cfg.Version == mqtt.V5 && s.in.count >= s.cfg.ReceiveMax
}

// Busy is true while as much as our Receive Maximum is under way: a client that can't be told
// about it has no more PUBLISHes taken. A QoS 2 message counts for it only until PUBREC: its PUBREL may
// come behind PUBLISHes that are not taken, or never.
func (s *Session) Busy() bool { return s.cfg.Version != mqtt.V5 && s.in.count >= s.cfg.ReceiveMax }

var (
	errReceiveMaximum = &mqtt.Error{Code: mqtt.ReceiveMaximumExceeded, Msg: "more QoS 1 and 2 messages in flight than Receive Maximum allows"}
	errAlias          = &mqtt.Error{Code: mqtt.TopicAliasInvalid, Msg: "topic alias is out of range or unknown"}
)

func (s *Session) resolveAlias(p *mqtt.Publish) error {
	if p.TopicAlias == 0 {
		return nil
	}
	if p.TopicAlias > s.cfg.AliasIn {
		return errAlias
	}
	if len(p.Topic) > 0 {
		if s.in.aliases == nil {
			s.in.aliases = make(map[uint16][]byte)
		}
		if string(s.in.aliases[p.TopicAlias]) != string(p.Topic) {
			s.in.aliases[p.TopicAlias] = append([]byte(nil), p.Topic...)
		}
		return nil
	}
	topic, ok := s.in.aliases[p.TopicAlias]
	if !ok {
		return errAlias
	}
	p.Topic = topic
	return nil
}

// Pubrel handles the client's PUBREL: it opens the slot of the PUBCOMP. commit is true when the
// packet id must leave the log's set first (persistent sessions); else the slot is complete.
func (s *Session) Pubrel(id uint16) (slot uint64, commit bool) {
	slot = s.queue(Pubcomp).open(id)
	if s.cfg.Persistent {
		return slot, true
	}
	code := byte(0)
	if s.in.ids[id] == 0 {
		code = byte(mqtt.PacketIdentifierNotFound)
	}
	s.queue(Pubcomp).done(slot, code, nil)
	return slot, false
}

// AckKind names a queue of acknowledgements that leave in order.
type AckKind uint8

// The kinds.
const (
	Puback AckKind = iota
	Pubrec
	Pubcomp
	Suback
	Unsuback
	ackKinds
)

var ackTypes = [ackKinds]mqtt.Type{mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBCOMP, mqtt.SUBACK, mqtt.UNSUBACK}

// Open reserves the next place for a SUBACK or UNSUBACK.
func (s *Session) Open(k AckKind, id uint16) uint64 { return s.queue(k).open(id) }

// Complete settles a slot and appends every acknowledgement of its kind that may leave now.
func (s *Session) Complete(k AckKind, slot uint64, code mqtt.ReasonCode, codes []byte, dst []byte) []byte {
	s.queue(k).done(slot, byte(code), codes)
	return s.Flush(k, dst)
}

// Flush appends every acknowledgement of a kind that may leave.
func (s *Session) Flush(k AckKind, dst []byte) []byte {
	for {
		a, ok := s.queue(k).next()
		if !ok {
			return dst
		}
		switch k {
		case Puback:
			s.in.count--
		case Pubrec:
			s.settlePubrec(a)
		case Pubcomp:
			if st := s.in.ids[a.id]; st != 0 {
				if st != inEarlier {
					s.in.count--
				}
				delete(s.in.ids, a.id)
			}
		case Suback:
			dst = (&mqtt.Suback{PacketID: a.id, Codes: a.codes}).Append(dst, s.cfg.Version)
			continue
		case Unsuback:
			dst = (&mqtt.Unsuback{PacketID: a.id, Codes: a.codes}).Append(dst, s.cfg.Version)
			continue
		}
		dst = s.appendAck(dst, ackTypes[k], a.id, mqtt.ReasonCode(a.code))
	}
}

// settlePubrec: after a PUBREC with an error the packet id is free again [MQTT-4.3.3].
func (s *Session) settlePubrec(a ack) {
	switch {
	case a.code >= 0x80:
		if st := s.in.ids[a.id]; st != 0 {
			if st != inEarlier {
				s.in.count--
			}
			delete(s.in.ids, a.id)
		}
	case s.in.ids[a.id] == inPending && s.cfg.Version != mqtt.V5:
		s.in.count--
		s.in.put(a.id, inEarlier)
	case s.in.ids[a.id] == inPending:
		s.in.put(a.id, inKnown)
	}
}

func (s *Session) appendAck(dst []byte, t mqtt.Type, id uint16, code mqtt.ReasonCode) []byte {
	return (&mqtt.Ack{Type: t, PacketID: id, Code: code}).Append(dst, s.cfg.Version)
}

// Unanswered is true while an acknowledgement of something that the client sent is due.
func (s *Session) Unanswered() bool {
	if s.acks == nil {
		return false
	}
	for k := range s.acks {
		if s.acks[k].pending() > 0 {
			return true
		}
	}
	return false
}
