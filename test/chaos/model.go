package chaos

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Model is what the clients sent and were answered, and what must and may follow from it. All
// methods may be called by any goroutine and return at once.
type Model struct {
	now func() time.Duration // since the run began

	mu       sync.Mutex
	streams  map[streamID]*stream
	ordered  []*stream // as they came to be
	sessions []*session
	nodes    []note // what was done to nodes
	broken   []Violation
	hushed   int // violations beyond those that are kept
	stats    stats
	fault    string // what is being done now
	onNote   func(string)

	whole    time.Duration            // when all nodes were seen to serve and to see each other
	quiet    bool                     // nothing was done since
	deaths   map[string]time.Duration // when a node's process last ended
	round    ledger
	expiring int            // messages of this round that were left to expire
	expired  int            // of those, which must be counted
	accounts map[string]int // what the nodes counted for each client in this round
	charged  map[string]int // and since they started
}

// streamID is what order is promised for: a publisher, a topic, a QoS.
type streamID struct {
	publisher, topic string
	qos              byte
}

func (id streamID) String() string { return fmt.Sprintf("%s|%s|%d", id.publisher, id.topic, id.qos) }

// stream is the messages of one publisher on one topic at one QoS. Numbers begin at 1.
type stream struct {
	streamID
	retain    bool
	unordered bool // wills: each waits for its own end
	last      int
	done      int // all up to here were validated and forgotten
	live      []*message
	matching  map[string]bool // by filter: what topic matching said

	// Of the newest that was acknowledged, for retained topics.
	lastAcked int
}

// message is what one PUBLISH, or one will, carries.
type message struct {
	*stream
	seq     int
	from    *party
	sent    time.Duration // when the first PUBLISH left
	whole   time.Duration // when the cluster last was whole before
	acked   time.Duration // when the broker took it over; 0: it did not say so
	resent  bool
	fenced  bool          // nobody may take it over or get it any more
	maybe   bool          // it may be there or not, whatever was answered: nothing must follow
	early   time.Duration // a will that must not come before
	events  []event
	members map[string][]receipt // of shared groups: who got it
}

func (msg *message) String() string { return fmt.Sprintf("%s|%d", msg.streamID, msg.seq) }

// payload is what the message carries; size is how long it is at least.
func (msg *message) payload(size int) string {
	s := msg.String() + "|"
	return s + strings.Repeat("x", max(0, size-len(s)))
}

// parsePayload is the other way round.
func parsePayload(s string) (id streamID, seq int, ok bool) {
	f := strings.SplitN(s, "|", 5)
	if len(f) != 5 {
		return id, 0, false
	}
	qos, err := strconv.ParseUint(f[2], 10, 8)
	if err != nil {
		return id, 0, false
	}
	seq, err = strconv.Atoi(f[3])
	return streamID{f[0], f[1], byte(qos)}, seq, err == nil
}

// NewModel is a model of nothing. onNote, if not nil, is told what happens to nodes and clients.
func NewModel(onNote func(string)) *Model {
	began := time.Now()
	return &Model{
		now:     func() time.Duration { return time.Since(began) },
		streams: make(map[streamID]*stream), onNote: onNote, stats: newStats(), fault: calm,
		deaths: make(map[string]time.Duration), charged: make(map[string]int), round: ledger{counted: make(map[string]int)},
	}
}

// Node writes down what was done to a node or to the network.
func (m *Model) Node(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := note{at: m.now(), text: fmt.Sprintf(format, args...)}
	m.nodes = append(m.nodes, n)
	if m.onNote != nil {
		m.onNote(clock(n.at) + "  == " + n.text)
	}
}

// Note writes down what happened to a client's connection.
func (m *Model) Note(p *party, conn uint32, format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.add(note{at: m.now(), conn: conn, text: fmt.Sprintf(format, args...)})
}

// Place says which node a client's connection goes to.
func (m *Model) Place(p *party, conn uint32, node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.at == nil {
		p.at = make(map[uint32]string)
	}
	p.at[conn] = node
	p.add(note{at: m.now(), conn: conn, text: "CONNECT"})
}

// Send is a new message of a stream, at the moment before its PUBLISH leaves.
func (m *Model) Send(p *party, conn uint32, id streamID, retain bool) *message {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stream(id)
	s.retain = retain
	msg := m.next(s, p)
	msg.events = append(msg.events, event{at: msg.sent, who: p, conn: conn, kind: sent})
	m.stats.sent[id.qos]++
	return msg
}

// Will is a new message of a client's will, at the moment before its CONNECT leaves.
func (m *Model) Will(p *party, conn uint32, id streamID) *message {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stream(id)
	s.unordered = true
	msg := m.next(s, p)
	msg.events = append(msg.events, event{at: msg.sent, who: p, conn: conn, kind: sent})
	return msg
}

func (m *Model) stream(id streamID) *stream {
	s := m.streams[id]
	if s == nil {
		s = &stream{streamID: id, matching: make(map[string]bool)}
		m.streams[id] = s
		m.ordered = append(m.ordered, s)
	}
	return s
}

func (m *Model) next(s *stream, p *party) *message {
	s.last++
	msg := &message{stream: s, seq: s.last, from: p, sent: m.now(), whole: m.whole}
	s.live = append(s.live, msg)
	return msg
}

// find is the message with that number unless it was forgotten.
func (s *stream) find(seq int) *message {
	if i := seq - s.done - 1; i >= 0 && i < len(s.live) {
		return s.live[i]
	}
	return nil
}

// Mark adds an event to a message's history and draws the conclusions from it.
func (m *Model) Mark(msg *message, k kind, p *party, conn uint32, id uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	msg.events = append(msg.events, event{at: now, who: p, conn: conn, id: id, kind: k})
	switch k {
	case resent:
		msg.resent = true
		m.stats.resent++
	case acked, received:
		if msg.fenced {
			m.violate(OneOwner, msg, "an old connection got an acknowledgement for what it sent after the newer one's CONNACK")
		}
		p.prove(msg, conn)
		if msg.acked == 0 {
			msg.acked = now
			msg.lastAcked = max(msg.lastAcked, msg.seq)
			m.stats.acknowledged(now, msg.qos, now-msg.sent, m.fault)
		}
	case refused:
		msg.maybe = true
		m.stats.refused++
	case abandoned:
		msg.maybe = true
		m.stats.abandoned++
	case due:
		msg.acked = now
	case said:
		msg.maybe = true
	}
}

// Fence says that nobody may take this message over any more, nor deliver it.
func (m *Model) Fence(msg *message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	msg.fenced = true
}

// Maybe says that nothing follows from this message any more.
func (m *Model) Maybe(msg *message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	msg.maybe = true
}

// NotBefore says that a will must not come before so long from now.
func (m *Model) NotBefore(msg *message, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	msg.early = m.now() + d
}

// matches tells whether a filter matches the stream's topic.
func (s *stream) matches(filter string) bool {
	ok, known := s.matching[filter]
	if !known {
		ok = matchTopic(strings.Split(filter, "/"), strings.Split(s.topic, "/"))
		s.matching[filter] = ok
	}
	return ok
}

func matchTopic(filter, topic []string) bool {
	for i, f := range filter {
		switch {
		case f == "#":
			return true
		case i >= len(topic) || f != "+" && f != topic[i]:
			return false
		}
	}
	return len(filter) == len(topic)
}
