package chaos

import (
	"time"
)

// session is a session in the eyes of its client: a persistent one for all its connections, a clean
// one for a single connection. The model's lock guards all of it.
type session struct {
	who        *party
	persistent bool
	conn       uint32 // the newest connection
	ended      time.Duration
	interests  []*interest
	seen       map[*stream]*seen
}

// interest is one subscription, from SUBSCRIBE to UNSUBACK. Times are 0 until they are there.
type interest struct {
	filter  string
	group   string
	qos     byte
	asked   time.Duration // SUBSCRIBE sent
	granted time.Duration // SUBACK came
	leaving time.Duration // UNSUBSCRIBE sent
	left    time.Duration // UNSUBACK came
}

// seen is what of a stream reached a session.
type seen struct {
	last     int // the highest number
	lastConn uint32
	got      map[int]receipt
}

// receipt is one message at one session.
type receipt struct {
	at    time.Duration
	conn  uint32
	count int
	who   *session
}

// Open is a new session.
func (m *Model) Open(p *party, persistent bool) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &session{who: p, persistent: persistent, seen: make(map[*stream]*seen)}
	m.sessions = append(m.sessions, s)
	return s
}

// Connected says which connection the session goes on with.
func (m *Model) Connected(s *session, conn uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.conn = conn
	s.who.conn = conn
	if s.who.stood == nil {
		s.who.stood = make(map[uint32]*span)
	}
	s.who.stood[conn] = &span{from: m.now()}
}

// End says that a clean session's connection, or a persistent session, is over.
func (m *Model) End(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.ended == 0 {
		s.ended = m.now()
	}
}

// Ask is a SUBSCRIBE that is about to leave. A second one for the same filter is the same interest.
func (m *Model) Ask(s *session, filter, group string, qos byte) *interest {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range s.interests {
		if i.filter == filter && i.group == group && i.leaving == 0 {
			return i
		}
	}
	i := &interest{filter: filter, group: group, qos: qos, asked: m.now()}
	s.interests = append(s.interests, i)
	return i
}

// Granted is its SUBACK.
func (m *Model) Granted(i *interest) { m.stamp(&i.granted) }

// Leaving is an UNSUBSCRIBE that is about to leave.
func (m *Model) Leaving(i *interest) { m.stamp(&i.leaving) }

// Left is its UNSUBACK.
func (m *Model) Left(i *interest) { m.stamp(&i.left) }

func (m *Model) stamp(t *time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if *t == 0 {
		*t = m.now()
	}
}

// may tells whether a message may be delivered because of the interest.
func (i *interest) may(msg *message) bool {
	return msg.matches(i.filter) && (i.left == 0 || msg.sent < i.left)
}

// must tells whether it has to be: the broker took it over, it was sent after SUBACK, and it was
// taken over before the client wanted to leave.
func (i *interest) must(msg *message) bool {
	return msg.acked > 0 && !msg.maybe && !msg.fenced && msg.qos > 0 && i.qos > 0 &&
		i.granted > 0 && i.granted < msg.sent && (i.leaving == 0 || msg.acked < i.leaving) && msg.matches(i.filter)
}

func (s *session) of(st *stream) *seen {
	v := s.seen[st]
	if v == nil {
		v = &seen{got: make(map[int]receipt)}
		s.seen[st] = v
	}
	return v
}
