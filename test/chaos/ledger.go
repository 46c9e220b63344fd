package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// ledger is what the messages of all rounds came to: due = delivered + missing, and what is missing is
// counted by a living node under a reason, or was in the hands of a node or connection that ended.
type ledger struct {
	due, delivered int // pairs of a message and who it was for: a session, or a shared group
	missing        int
	certain        int            // of those at QoS 0: a living node had it, and its subscriber was there all the time
	counted        map[string]int // what the nodes say that they did not deliver, by reason
	lost           int            // processes that ended without telling their last counts
}

func (l *ledger) add(o *ledger) {
	l.due += o.due
	l.delivered += o.delivered
	l.missing += o.missing
	l.certain += o.certain
	l.lost += o.lost
	for reason, n := range o.counted {
		l.counted[reason] += n
	}
}

func (l *ledger) total() (n int) {
	for _, c := range l.counted {
		n += c
	}
	return n
}

func (l *ledger) String() string {
	var reasons []string
	for _, r := range slices.Sorted(maps.Keys(l.counted)) {
		if n := l.counted[r]; n > 0 {
			reasons = append(reasons, fmt.Sprintf("%s %d", r, n))
		}
	}
	return fmt.Sprintf("%d due = %d delivered + %d not, %d of these without a node or a connection that ended; counted %d (%s); %d processes took their counts with them",
		l.due, l.delivered, l.missing, l.certain, l.total(), strings.Join(reasons, ", "), l.lost)
}

// Died says that a node's process has ended, and with it what it had not passed on and not told.
func (m *Model) Died(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaths[node] = m.now()
	m.round.lost++
}

// Whole says that all nodes serve and see each other.
func (m *Model) Whole() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.whole, m.quiet = m.now(), true
}

// Counted adds what nodes say that they did not deliver since they said so last.
func (m *Model) Counted(by map[string]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for reason, n := range by {
		m.round.counted[reason] += n
	}
}

// zeroReasons are those under which a message of QoS 0 can be counted whose subscriber was there all the time.
var zeroReasons = []string{"link", "slow_reader", "no_quorum", "offline", "too_large", "queue_full", "not_allowed"}

// Accounts are what all nodes together count for each client since they started.
func (m *Model) Accounts(by map[string]map[string]uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accounts = make(map[string]int)
	for client, reasons := range by {
		n := 0
		for _, reason := range zeroReasons {
			n += int(reasons[reason])
		}
		m.accounts[client], m.charged[client] = n-m.charged[client], n
	}
}

// covered tells whether what a subscriber lacks for sure is counted where it can be: at it, at who published it, or
// where nobody is named.
func (m *Model) covered(lacks map[*message]bool, who *party) bool {
	nameless := 0
	for _, reason := range zeroReasons {
		nameless += m.round.counted[reason]
	}
	for _, n := range m.accounts {
		nameless -= n
	}
	n := m.accounts[who.name] + max(0, nameless)
	publishers := make(map[*party]bool)
	for msg := range lacks {
		if !publishers[msg.from] {
			publishers[msg.from] = true
			n += m.accounts[msg.from.name]
		}
	}
	return len(lacks) <= n
}

// Parted says that a party's connection is over.
func (m *Model) Parted(p *party, conn uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.conn == conn {
		p.conn = 0
	}
	if stood := p.stood[conn]; stood != nil && stood.to == 0 {
		stood.to = m.now()
	}
}

// Expiring says that messages whose expiry has come were left for a session, and must be counted if sure.
func (m *Model) Expiring(n int, sure bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expiring += n
	if sure {
		m.expired += n
	}
}

// read tells whether the message's node had it for sure, and has lived on: it answered a later PUBLISH on the
// same connection, or that connection stands.
func (m *Model) read(msg *message) bool {
	c := msg.events[0].conn
	node := msg.from.at[c]
	return node != "" && node != balanced && !m.died(node, msg.sent) && (msg.from.conn == c || msg.from.proved[c] > msg.sent)
}

// died tells whether a node's process has ended since.
func (m *Model) died(node string, since time.Duration) bool {
	at, ok := m.deaths[node]
	return ok && at >= since
}

// wholeAgo is how long before a message everybody has to know of its subscriber, while the cluster was
// whole: a node may serve that is behind the log by so much and no more.
const wholeAgo = 5 * time.Second

// wholeAfter is how long a connection stands at most whose node was given up by the others meanwhile.
const wholeAfter = 20 * time.Second

// reaches finds the connection because of which nothing but a count excuses that a message of QoS 0 has not reached
// the session, 0: there is none. It has stood since before the cluster was whole for the last time before the
// message, and long enough afterwards.
func (s *session) reaches(msg *message, i *interest) uint32 {
	if i.leaving > 0 || i.granted == 0 || i.granted+wholeAgo >= msg.whole {
		return 0
	}
	for conn, stood := range s.who.stood {
		if stood.from+wholeAgo < msg.whole && (stood.to == 0 || stood.to > msg.sent+wholeAfter) && (s.persistent || conn == s.conn) {
			return conn
		}
	}
	return 0
}

// balance closes the ledger of a round. The caller holds the lock.
func (m *Model) balance() {
	l := &m.round
	slack := m.expiring
	type frame struct { // what a node may count once, for all its sessions
		msg  *message
		node string
	}
	frames := make(map[frame]bool)
	lacks := make(map[*party]map[*message]bool)
	var first *message // of those that are certain
	for _, st := range m.ordered {
		for _, msg := range st.live {
			copies, fors := 0, 0
			for _, e := range msg.events {
				if e.kind == resent {
					copies++
				}
			}
			if msg.fenced {
				slack++
			}
			groups := make(map[string]bool) // whether a member got it
			for _, s := range m.sessions {
				i := s.interest(msg)
				if i == nil || s.ended > 0 && s.ended < msg.sent && !msg.unordered {
					continue
				}
				v := s.seen[st]
				got := v != nil && v.got[msg.seq].count > 0
				if !got && !msg.unordered && i.asked > msg.sent {
					if i.asked < msg.sent+patience {
						slack++ // it may have been on its way
					}
					continue
				}
				if got && !s.persistent && s.ended > 0 {
					slack++ // its acknowledgement may not have arrived
				}
				if i.group != "" {
					groups[i.group] = groups[i.group] || got
					continue
				}
				fors++
				l.due++
				switch {
				case got:
					l.delivered++
					continue
				case msg.qos == 0 && !msg.fenced && m.read(msg):
					if conn := s.reaches(msg, i); conn != 0 {
						l.certain++
						frames[frame{msg, s.who.at[conn]}] = true
						if lacks[s.who] == nil {
							lacks[s.who] = make(map[*message]bool)
						}
						lacks[s.who][msg] = true
						if first == nil {
							first = msg
						}
					}
				}
				l.missing++
			}
			for _, got := range groups {
				fors++
				l.due++
				if got {
					l.delivered++
				} else {
					l.missing++
				}
			}
			slack += copies * max(1, fors)
		}
	}
	if n := l.total(); len(frames) > n {
		m.violate(Silence, first, "%d messages of QoS 0 did not reach %d connected subscribers, and the nodes count %d: this is the first", len(frames), l.certain, n)
	} else if n > l.missing+slack {
		m.violate(Silence, nil, "the nodes count %d messages that they did not deliver (%s), and at most %d can be", n, l, l.missing+slack)
	}
	for who, list := range lacks {
		if l.lost == 0 && !m.covered(list, who) { // counts of a process that ended are in nobody's account
			m.violate(Silence, nil, "%d messages of QoS 0 did not reach %s, which was connected all the time, and nobody counts them", len(list), who.name)
		}
	}
	if n := l.counted["expired"]; n < m.expired && l.lost == 0 {
		m.violate(Silence, nil, "%d messages have expired, and the nodes count %d", m.expired, n)
	}
	m.stats.ledger.add(l)
	m.round = ledger{counted: make(map[string]int)}
	m.expiring, m.expired = 0, 0
}
