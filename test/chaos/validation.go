package chaos

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Class is what a violation is one of.
type Class string

// The classes.
const (
	Loss      Class = "acknowledged message lost"
	Once      Class = "delivered more than once"
	Order     Class = "out of order"
	OneOwner  Class = "more than one owner"
	Presence  Class = "session present"
	Wills     Class = "will"
	Retain    Class = "retained"
	Shared    Class = "shared group"
	Expiry    Class = "session expiry"
	Unwanted  Class = "not subscribed"
	Integrity Class = "wrong content"
	Silence   Class = "dropped in silence"
	Protocol  Class = "protocol"
	Replicas  Class = "replicas differ"
	Process   Class = "process"
	Liveness  Class = "does not recover"
)

// Violation is a promise that did not hold.
type Violation struct {
	At      time.Duration
	Class   Class
	What    string
	History string
	Fault   string // what was being done
}

func (v Violation) String() string {
	s := fmt.Sprintf("%s  %s: %s (during %s)\n", clock(v.At), v.Class, v.What, v.Fault)
	return s + v.History
}

// violationsKept bounds what is kept in full.
const violationsKept = 25

// put adds a violation; history is asked for if it is kept. The caller holds the lock.
func (m *Model) put(c Class, what string, history func() string) {
	if len(m.broken) >= violationsKept {
		m.hushed++
		return
	}
	v := Violation{At: m.now(), Class: c, What: what, Fault: m.fault, History: history()}
	m.broken = append(m.broken, v)
	if m.onNote != nil {
		m.onNote("VIOLATION " + v.String())
	}
}

// violate adds a violation that concerns a message, or none. The caller holds the lock.
func (m *Model) violate(c Class, msg *message, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if msg == nil {
		m.put(c, what, func() string { return "" })
		return
	}
	m.put(c, fmt.Sprintf("message %s: %s", msg, what), func() string { return m.history(msg) })
}

// Violate adds a violation that concerns no message; who's connections, if not nil, are shown.
func (m *Model) Violate(c Class, who *party, format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(c, fmt.Sprintf(format, args...), func() string {
		from := m.now() - 10*time.Second
		return m.history(&message{stream: &stream{}, from: who, sent: from})
	})
}

// Violations are all so far.
func (m *Model) Violations() (kept []Violation, more int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.broken), m.hushed
}

// missing is a message that has not reached somebody whom it must reach.
type missing struct {
	msg   *message
	who   *party
	where string
}

// lacking lists what is missing; at most limit. The caller holds the lock.
func (m *Model) lacking(limit int) (out []missing) {
	for _, st := range m.ordered {
		groups := make(map[string][]*interest)
		var concerned []*session
		for _, s := range m.sessions {
			wants := false
			for _, i := range s.interests {
				if !st.matches(i.filter) {
					continue
				}
				if i.group == "" {
					wants = true
				} else if s.persistent {
					groups[i.group] = append(groups[i.group], i)
				}
			}
			if wants {
				concerned = append(concerned, s)
			}
		}
		for _, msg := range st.live {
			for _, s := range concerned {
				if s.lacks(msg) {
					out = append(out, missing{msg, s.who, s.who.name})
				}
			}
			for _, name := range slices.Sorted(maps.Keys(groups)) {
				if len(msg.members[name]) == 0 && slices.ContainsFunc(groups[name], func(i *interest) bool { return i.must(msg) }) {
					out = append(out, missing{msg: msg, where: "group " + name})
				}
			}
			if len(out) >= limit {
				return out
			}
		}
	}
	return out
}

// lacks tells whether the message had to reach the session and did not. A clean session that has
// ended may lack what came last.
func (s *session) lacks(msg *message) bool {
	v := s.seen[msg.stream]
	if v != nil && v.got[msg.seq].count > 0 {
		return false
	}
	if s.ended > 0 && (s.persistent || v == nil || msg.unordered || msg.seq > v.last) {
		return false
	}
	return slices.ContainsFunc(s.interests, func(i *interest) bool { return i.group == "" && i.must(msg) })
}

// Outstanding is how many messages are still to come, as far as it matters: at most 1000.
func (m *Model) Outstanding() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.lacking(1000))
}

// CloseRound is called when everything that had to come had time to. What is missing now is lost;
// then all messages are forgotten, and sessions that ended.
func (m *Model) CloseRound() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lacking(1 << 30) {
		c := Loss
		if l.msg.unordered {
			c = Wills
		}
		var more []*party
		if l.who != nil {
			more = []*party{l.who}
		}
		m.put(c, fmt.Sprintf("message %s did not reach %s", l.msg, l.where), func() string { return m.history(l.msg, more...) })
	}
	m.balance()
	for _, st := range m.ordered {
		for _, msg := range st.live {
			if !st.unordered && st.qos > 0 && msg.acked == 0 && !msg.maybe && !msg.fenced {
				m.stats.unacknowledged++
			}
		}
		st.done = st.last
		st.live = nil
	}
	m.sessions = slices.DeleteFunc(m.sessions, func(s *session) bool { return s.ended > 0 })
	for _, s := range m.sessions {
		for _, v := range s.seen {
			clear(v.got)
		}
		s.interests = slices.DeleteFunc(s.interests, func(i *interest) bool { return i.left > 0 })
	}
}

// RetainedAs judges what a new subscription got as the retained message of a topic, when nothing was
// on the way: the last acknowledged value, or one that was sent later.
func (m *Model) RetainedAs(reader, topic, payload string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var newest, oldest int
	var some *stream
	for _, st := range m.ordered {
		if st.topic == topic && st.retain {
			newest, oldest, some = st.last, st.lastAcked, st
		}
	}
	if some == nil || oldest == 0 && payload == "" {
		return
	}
	id, seq, ok := parsePayload(payload)
	if !ok || id != some.streamID || seq < oldest || seq > newest {
		m.violate(Retain, some.find(oldest), "%s got %.60q as the retained message of %s; the last acknowledged is number %d, the last sent %d",
			reader, payload, topic, oldest, newest)
	}
}

// RetainedTopics are the topics that somebody retained something on.
func (m *Model) RetainedTopics() (out []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, st := range m.ordered {
		if st.retain {
			out = append(out, st.topic)
		}
	}
	return out
}
