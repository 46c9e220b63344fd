package chaos

import (
	"fmt"

	"github.com/skein-mqtt/skein/test/harness"
)

// Deliver judges a PUBLISH that its client takes for a new message: at QoS 2 one whose packet id was
// free.
func (m *Model) Deliver(s *session, conn uint32, p harness.Packet) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	id, seq, ok := parsePayload(p.Payload)
	st := m.streams[id]
	if !ok || st == nil || seq < 1 || seq > st.last {
		m.violate(Integrity, nil, "%s got what nobody sent: %s", s.who.name, p)
		return
	}
	if p.Topic != id.topic {
		m.violate(Integrity, st.find(seq), "%s got it on topic %s", s.who.name, p.Topic)
	}
	msg := st.find(seq)
	m.stats.delivered[p.QoS]++
	if msg == nil {
		m.late(s, st, seq, p)
		return
	}
	if p.Retain {
		msg.events = append(msg.events, event{at: now, who: s.who, conn: conn, id: p.ID, kind: retained})
		return // judged by who asked for it
	}
	i := s.interest(msg)
	v := s.of(st)
	before := v.got[seq]
	k := delivered
	if before.count > 0 {
		k = repeated
	}
	msg.events = append(msg.events, event{at: now, who: s.who, conn: conn, id: p.ID, kind: k})
	v.got[seq] = receipt{at: now, conn: conn, count: before.count + 1, who: s}
	switch {
	case i == nil:
		m.violate(Unwanted, msg, "%s got it, and had no subscription for it when it was sent", s.who.name)
		return
	case p.QoS != min(id.qos, i.qos):
		m.violate(Integrity, msg, "%s got it at QoS %d, subscribed at QoS %d", s.who.name, p.QoS, i.qos)
	case msg.fenced && msg.unordered:
		m.violate(Wills, msg, "%s got the will of a client that came back in time", s.who.name)
	case msg.fenced && s.persistent && p.QoS > 0:
		m.violate(OneOwner, msg, "%s got what an old connection sent after the newer one's CONNACK", s.who.name)
	}
	if msg.early > 0 && now < msg.early {
		m.violate(Wills, msg, "%s got the will %v too early", s.who.name, msg.early-now)
	}
	m.once(s, msg, before, i, p, conn)
	switch {
	case i.group != "" && (msg.resent || !s.persistent):
		// What a dead node's clean members were given goes to others, late, and a copy of what was
		// published again may go to another member than the first one.
	case p.QoS == 1 && msg.resent && (i.granted == 0 || i.granted > msg.sent):
		// The first copy may have been before the subscription.
	default:
		m.inOrder(s, v, msg, before, p, conn)
	}
}

// interest is the session's subscription that lets a message through, a shared one only if there is
// no other.
func (s *session) interest(msg *message) *interest {
	var shared *interest
	for _, i := range s.interests {
		if i.may(msg) {
			if i.group == "" {
				return i
			}
			shared = i
		}
	}
	return shared
}

// once: QoS 2 exactly once, QoS 0 at most once, QoS 1 again only for a reason.
func (m *Model) once(s *session, msg *message, before receipt, i *interest, p harness.Packet, conn uint32) {
	if i.group != "" {
		m.shared(s, msg, i, p)
	}
	if before.count == 0 {
		return
	}
	switch p.QoS {
	case 2:
		m.violate(Once, msg, "%s got it %d times at QoS 2", s.who.name, before.count+1)
	case 0:
		m.violate(Once, msg, "%s got it %d times at QoS 0", s.who.name, before.count+1)
	case 1:
		m.stats.repeats++
		if before.conn == conn && !msg.resent {
			m.stats.unexplained++
		}
	}
}

// shared: a message at QoS 2 goes to one member of a group.
func (m *Model) shared(s *session, msg *message, i *interest, p harness.Packet) {
	if msg.members == nil {
		msg.members = make(map[string][]receipt)
	}
	others := msg.members[i.group]
	for _, o := range others {
		if o.who == s {
			return
		}
	}
	msg.members[i.group] = append(others, receipt{at: m.now(), who: s, count: 1})
	// A node that is given up may have delivered what goes to another member of clean ones then.
	if len(others) > 0 && p.QoS == 2 && (s.persistent || m.quiet && msg.whole == m.whole) {
		m.violate(Shared, msg, "%s got it at QoS 2, and so did %s of the same group", s.who.name, others[0].who.who.name)
	}
}

// inOrder: what comes for the first time has a higher number than all before it. QoS 0 is promised
// within a connection.
func (m *Model) inOrder(s *session, v *seen, msg *message, before receipt, p harness.Packet, conn uint32) {
	if before.count == 0 && !msg.unordered && msg.seq < v.last && (p.QoS > 0 || v.lastConn == conn) {
		m.put(Order, fmt.Sprintf("message %s: %s got it after number %d", msg, s.who.name, v.last), func() string {
			if first := msg.find(v.last); first != nil {
				return m.history(msg) + "  what came before, " + first.String() + ":\n" + m.history(first)
			}
			return m.history(msg)
		})
	}
	if msg.seq > v.last {
		v.last, v.lastConn = msg.seq, conn
	}
}

// late judges a message that was validated and forgotten: at QoS 1 it may come again. What nobody owed a session that
// was leaving may come for the first time, in order.
func (m *Model) late(s *session, st *stream, seq int, p harness.Packet) {
	v := s.of(st)
	switch {
	case p.Retain || st.unordered && p.QoS < 2:
	case !st.unordered && seq > v.last:
		v.last = seq
	case p.QoS == 1:
		m.stats.repeats++
	default:
		m.violate(Once, nil, "%s got %s|%d, which was complete in an earlier round, at QoS %d", s.who.name, st.streamID, seq, p.QoS)
	}
}

// Repeat is a PUBLISH whose packet id the client holds already.
func (m *Model) Repeat(s *session, h held, p harness.Packet, conn uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var msg *message
	id, seq, _ := parsePayload(p.Payload)
	if st := m.streams[id]; st != nil {
		msg = st.find(seq)
	}
	if h.id != id || h.seq != seq {
		m.violate(Once, msg, "%s takes it for a repeat of %s|%d: packet id %d was used again before PUBREL", s.who.name, h.id, h.seq, p.ID)
		return
	}
	m.stats.repeats++
	if msg != nil {
		msg.events = append(msg.events, event{at: m.now(), who: s.who, conn: conn, id: p.ID, kind: repeated})
	}
	if !p.Dup {
		m.violate(Protocol, msg, "%s got %s again without DUP", s.who.name, p)
	}
	if conn == h.conn {
		m.violate(Protocol, msg, "%s got %s again on the same connection", s.who.name, p)
	}
}
