package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// kind of an event in a message's history.
type kind uint8

const (
	sent kind = iota
	resent
	acked
	received // PUBREC
	released // PUBREL
	completed
	refused
	abandoned
	delivered
	repeated
	retained // delivered as the retained message of a new subscription
	armed    // a will: CONNACK came
	due      // a will: its connection ended without a goodbye
	said     // a will: its connection ended with a goodbye
)

var kindNames = [...]string{
	"PUBLISH sent", "PUBLISH sent again", "PUBACK came", "PUBREC came", "PUBREL sent", "PUBCOMP came",
	"refused", "given up", "delivered", "delivered again", "delivered as retained", "will set: CONNACK came",
	"will due: the connection ended without DISCONNECT", "will dropped: DISCONNECT sent",
}

// event is one line of a message's history.
type event struct {
	at   time.Duration
	who  *party
	conn uint32
	id   uint16
	kind kind
}

// party is somebody that a history names: a client, and where its connections went.
type party struct {
	name  string
	notes []note            // oldest first; the model's lock guards them
	at    map[uint32]string // the node of each connection

	conn   uint32 // the one that stands; 0: none
	stood  map[uint32]*span
	proved map[uint32]time.Duration // by connection: what was sent before this, its node has read
}

// span is from a connection's CONNACK to its end; 0: it stands.
type span struct{ from, to time.Duration }

// prove is an answer to a message that was sent on the connection: its node has read all that was sent before it.
func (p *party) prove(msg *message, conn uint32) {
	for _, e := range msg.events {
		if e.conn == conn && (e.kind == sent || e.kind == resent) {
			if p.proved == nil {
				p.proved = make(map[uint32]time.Duration)
			}
			p.proved[conn] = max(p.proved[conn], e.at)
		}
	}
}

// place names a connection.
func (p *party) place(conn uint32) string {
	if node := p.at[conn]; node != "" {
		return fmt.Sprintf("%s #%d on %s", p.name, conn, node)
	}
	return fmt.Sprintf("%s #%d", p.name, conn)
}

// note is something that happened to a node or to a client's connections.
type note struct {
	at   time.Duration
	conn uint32
	text string
}

// notesKept bounds a client's notes: they are what a history shows around a message.
const notesKept = 4000

func (p *party) add(n note) {
	if len(p.notes) >= notesKept {
		p.notes = slices.Delete(p.notes, 0, notesKept/2)
	}
	p.notes = append(p.notes, n)
}

// margin is how much of the surroundings a history shows before and after a message's own events.
const margin = 3 * time.Second

// history is everything about a message: its own events, its clients' connections, and what was done
// to the nodes meanwhile. The caller holds the model's lock.
func (m *Model) history(msg *message, more ...*party) string {
	type line struct {
		at   time.Duration
		text string
	}
	var lines []line
	from, to := msg.sent, m.now()
	parties := slices.Clone(more)
	last := msg.sent
	for _, e := range msg.events {
		last = max(last, e.at)
		lines = append(lines, line{e.at, fmt.Sprintf("%s: %s (packet id %d)", e.who.place(e.conn), kindNames[e.kind], e.id)})
		if !slices.Contains(parties, e.who) && len(more) == 0 {
			parties = append(parties, e.who)
		}
	}
	if msg.from != nil && !slices.Contains(parties, msg.from) {
		parties = append(parties, msg.from)
	}
	to = min(to, last+4*margin)
	within := func(at time.Duration) bool { return at >= from-margin && at <= to }
	for _, p := range parties {
		for _, n := range p.notes {
			if within(n.at) {
				lines = append(lines, line{n.at, p.place(n.conn) + ": " + n.text})
			}
		}
	}
	for _, n := range m.nodes {
		if within(n.at) {
			lines = append(lines, line{n.at, "== " + n.text})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.at - b.at) })
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "    %s  %s\n", clock(l.at), l.text)
	}
	return b.String()
}

func clock(at time.Duration) string { return fmt.Sprintf("%9.3f", at.Seconds()) }
