package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// patience is how long a transcript waits for what it says.
const patience = 20 * time.Second

// answerPatience is how long an action waits for its answer.
const answerPatience = 15 * time.Second

// script runs one file.
type script struct {
	t     testing.TB
	file  string
	at    string // position in the file
	nodes []*h.Node
	fence *fence

	current  string             // the case that runs
	conns    []*connection      // of this case, in the order of their names' first use
	sessions map[string]bool    // client ids that may have left a session
	retained map[string]bool    // topics that may have left a message
	names    map[string]*h.Node // where a name connects
	counters map[string]float64 // of all nodes together, as the case began
	counted  []string           // those to be shown
}

func newScript(t testing.TB, file string, nodes []*h.Node) *script {
	s := &script{t: t, file: file, nodes: nodes}
	s.fence = newFence(t, file, nodes)
	return s
}

// connection is a client of a transcript: at most one connection under a name at a time.
type connection struct {
	name    string
	version byte
	client  *h.Client
	events  []event
	pings   []bool // PINGREQs without an answer: true for those of the fence
	online  bool   // CONNACK said success
	partial bool   // a part of a packet was sent
	closed  bool   // by the node
	left    bool   // by us
	all     bool   // show all of CONNACK
}

type event struct {
	packet  h.Packet
	version byte   // of the connection that it came on
	text    string // not a packet
}

// begin ends the case before and starts one.
func (s *script) begin(name string) {
	s.t.Helper()
	s.end()
	s.current = name
	s.names = make(map[string]*h.Node)
	s.counters = make(map[string]float64)
	if alone(s.file) { // else others count at the same time
		for _, n := range s.nodes {
			for name, v := range counters(n) {
				s.counters[name] += v
			}
		}
	}
}

// counters are a node's metrics that begin with skein_, by name and labels without quotes.
func counters(n *h.Node) map[string]float64 {
	all := make(map[string]float64)
	for line := range strings.Lines(n.Metrics()) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		name, ours := strings.CutPrefix(name, "skein_")
		if v, err := strconv.ParseFloat(value, 64); ok && ours && err == nil {
			all[strings.ReplaceAll(name, `"`, "")] = v
		}
	}
	return all
}

// end puts everything back: no connection, no session, no retained message is left of a case, and
// nothing came that it does not show.
func (s *script) end() {
	s.t.Helper()
	s.pull()
	if late := s.take(); late != "" {
		s.t.Fatalf("%s: after the end of the case %s there came:\n%s", s.at, s.current, late)
	}
	for _, c := range s.conns {
		if c.online && !c.closed && !c.left {
			_ = c.client.Send(h.Packet{Type: h.DISCONNECT})
		}
	}
	for _, c := range s.conns {
		if c.client == nil {
			continue
		}
		if c.online && !c.left {
			for !c.closed {
				if !c.next(patience) {
					s.t.Fatalf("%s: %s is not closed after DISCONNECT", s.at, c.name)
				}
			}
		}
		c.client.Close()
	}
	s.fence.wipe(s.t, s.sessions, s.retained)
	s.conns, s.sessions, s.retained = nil, make(map[string]bool), make(map[string]bool)
}

// connection finds the client of that name, which must be there.
func (s *script) connection(name string) *connection {
	for _, c := range s.conns {
		if c.name == name && c.client != nil {
			return c
		}
	}
	s.t.Fatalf("%s: %s is not connected", s.at, name)
	return nil
}

// open opens a connection for a name, on its node.
func (s *script) open(name string, version byte, at uint64) *connection {
	node := s.names[name]
	switch {
	case at > 0:
		node = s.nodes[(int(at)-1)%len(s.nodes)]
	case node == nil:
		node = s.nodes[len(s.names)%len(s.nodes)]
	}
	s.names[name] = node
	client, err := node.Dial(version)
	if err != nil {
		s.t.Fatalf("%s: %s: %v", s.at, name, err)
	}
	i := slices.IndexFunc(s.conns, func(c *connection) bool { return c.name == name })
	if i < 0 {
		s.conns = append(s.conns, &connection{name: name})
		i = len(s.conns) - 1
	}
	c := s.conns[i]
	if c.client != nil {
		for c.next(0) {
		}
		c.client.Close()
	}
	*c = connection{name: name, version: version, client: client, events: c.events}
	return c
}

// next takes one event; false: none came in time.
func (c *connection) next(d time.Duration) bool {
	if c.client == nil || c.closed || c.left {
		return false
	}
	p, err := c.client.Next(d)
	switch {
	case errors.Is(err, h.ErrQuiet):
		return false
	case err != nil:
		c.closed = true
		text := "closed"
		if strings.Contains(err.Error(), "malformed") {
			text = "got what is malformed: " + err.Error()
		}
		c.events = append(c.events, event{text: text})
		return true
	}
	switch {
	case p.Type == h.PINGRESP && len(c.pings) > 0:
		fence := c.pings[0]
		c.pings = c.pings[1:]
		if fence {
			return true
		}
	case p.Type == h.CONNACK && p.Code == 0:
		c.online = true
	}
	c.events = append(c.events, event{packet: p, version: c.version})
	return true
}

// await takes events until one is what is awaited or the connection has ended.
func (c *connection) await(match func(h.Packet) bool) error {
	seen := len(c.events)
	deadline := time.Now().Add(answerPatience)
	for {
		for ; seen < len(c.events); seen++ {
			if c.events[seen].text != "" || match(c.events[seen].packet) {
				return nil
			}
		}
		if c.closed || c.left {
			return nil
		}
		if !c.next(time.Until(deadline)) && time.Now().After(deadline) {
			return errors.New("no answer in time")
		}
	}
}

// pull takes what has come to any client.
func (s *script) pull() (any bool) {
	for _, c := range s.conns {
		for c.next(0) {
			any = true
		}
	}
	return any
}

// count of what has come and was not taken.
func (s *script) count() (n int) {
	for _, c := range s.conns {
		n += len(c.events)
	}
	return n
}

// show renders what has come, by client.
func (s *script) show() string {
	var b strings.Builder
	for _, c := range s.conns {
		list := slices.Clone(c.events)
		for from := 0; from < len(list); {
			to := from
			for to < len(list) && list[to].text == "" && rank(list[to].packet) >= 0 {
				to++
			}
			slices.SortStableFunc(list[from:to], func(a, b event) int { return rank(a.packet) - rank(b.packet) })
			from = to + 1
		}
		for _, e := range list {
			if e.text != "" {
				fmt.Fprintf(&b, "%s %s\n", c.name, e.text)
			} else {
				fmt.Fprintf(&b, "%s <- %s\n", c.name, render(e.packet, e.version, c.all))
			}
		}
	}
	for _, name := range s.counted {
		grown := -s.counters[name]
		for _, n := range s.nodes {
			grown += counters(n)[name]
		}
		fmt.Fprintf(&b, "%s +%v\n", name, grown)
	}
	return b.String()
}

// take is show, and forgets it.
func (s *script) take() string {
	out := s.show()
	for _, c := range s.conns {
		c.events = nil
	}
	s.counted = nil
	return out
}

// rewriteQuiet is how long nothing comes until what came is written down.
const rewriteQuiet = 250 * time.Millisecond

// settle returns what came of the lines before. Everything that they caused at once has arrived when
// the fence is passed; what takes longer (a closed connection, a will) is waited for if it is
// expected.
func (s *script) settle(expected string) string {
	s.t.Helper()
	s.barrier()
	if rewriting() {
		for last := time.Now(); time.Since(last) < rewriteQuiet; time.Sleep(time.Millisecond) {
			if s.pull() {
				last = time.Now()
			}
		}
	}
	lines := strings.Count(expected, "\n")
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s.pull()
		out := s.show()
		if out == "" {
			out = "nothing\n"
		}
		if out == expected || rewriting() || s.count() > lines || time.Now().After(deadline) {
			s.take()
			return out
		}
	}
}

// barrier returns when the nodes have read everything that was sent, and every client has what came
// of it at once.
func (s *script) barrier() {
	s.t.Helper()
	s.ping()
	s.fence.pass(s.t)
	s.ping()
}

// ping asks every client's node whether it has read everything.
func (s *script) ping() {
	s.t.Helper()
	for _, c := range s.conns {
		if c.online && !c.partial && !c.closed && !c.left {
			if c.client.Send(h.Packet{Type: h.PINGREQ}) == nil {
				c.pings = append(c.pings, true)
			}
		}
	}
	deadline := time.Now().Add(patience)
	for _, c := range s.conns {
		for slices.Contains(c.pings, true) && !c.closed && !c.left {
			if !c.next(time.Until(deadline)) && time.Now().After(deadline) {
				s.t.Fatalf("%s: %s: PINGREQ is not answered", s.at, c.name)
			}
		}
	}
}
