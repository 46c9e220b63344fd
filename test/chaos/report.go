package chaos

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// stats is what the report tells. The model's lock guards it.
type stats struct {
	sent, delivered              [3]int // by QoS
	acks                         [3]int
	resent, repeats, unexplained int
	refused, abandoned           int
	unacknowledged               int
	connects, lost               int
	willsDue, expiries           int
	retainedReads, fences        int
	cuts                         map[string]int
	faults                       map[string]int
	gaps                         map[string]time.Duration // longest time without an acknowledgement, by fault
	failovers                    map[string][]time.Duration
	latency                      map[string][]time.Duration // of acknowledgements at QoS 1 and 2, a sample
	lastAck                      time.Duration              // 0: nobody publishes
	ledger                       ledger
	messageExpiries              int
}

func newStats() stats {
	return stats{
		cuts: make(map[string]int), faults: make(map[string]int), gaps: make(map[string]time.Duration),
		failovers: make(map[string][]time.Duration), latency: make(map[string][]time.Duration),
		ledger: ledger{counted: make(map[string]int)},
	}
}

// samplesKept bounds the samples of a fault.
const samplesKept = 20000

func (s *stats) acknowledged(now time.Duration, qos byte, took time.Duration, fault string) {
	s.acks[qos]++
	if s.lastAck > 0 {
		s.gaps[fault] = max(s.gaps[fault], now-s.lastAck)
	}
	s.lastAck = now
	if l := s.latency[fault]; len(l) < samplesKept {
		s.latency[fault] = append(l, took)
	}
}

// count changes the statistics.
func (m *Model) count(change func(*stats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.stats)
}

// Publishing says whether publishers are at work: a gap without acknowledgements means nothing
// when they are not.
func (m *Model) Publishing(yes bool) {
	now := m.now()
	m.count(func(s *stats) {
		s.lastAck = 0
		if yes {
			s.lastAck = now
		}
	})
}

// calm is the name of what is done when nothing is.
const calm = "calm"

// Fault says what is being done from now on.
func (m *Model) Fault(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = name
	if name != calm {
		m.stats.faults[name]++
		m.quiet = false
	}
}

// reconnected is one failover: a connection was lost and the client is back after so long.
func (m *Model) reconnected(took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.stats.failovers[m.fault]; len(l) < samplesKept {
		m.stats.failovers[m.fault] = append(l, took)
	}
}

// Report writes what was done and what came of it.
func (m *Model) Report(w io.Writer, options *Options) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.stats
	fmt.Fprintf(w, "seed %d, %d nodes, %s\n", options.Seed, options.Nodes, m.now().Round(time.Second))
	fmt.Fprintf(w, "%-20s %9s %9s %9s\n", "messages", "QoS 0", "QoS 1", "QoS 2")
	row := func(name string, n [3]int) { fmt.Fprintf(w, "  %-18s %9d %9d %9d\n", name, n[0], n[1], n[2]) }
	row("published", s.sent)
	row("acknowledged", s.acks)
	row("delivered", s.delivered)
	fmt.Fprintf(w, "published again with DUP %d, delivered again %d (%d of them with neither end resumed), given up %d, refused %d, never acknowledged %d\n",
		s.resent, s.repeats, s.unexplained, s.abandoned, s.refused, s.unacknowledged)
	fmt.Fprintf(w, "connections %d, lost to faults %d; acknowledgements awaited on superseded connections %d, wills due %d, sessions watched expire %d, messages %d, retained values read %d\n",
		s.connects, s.lost, s.fences, s.willsDue, s.expiries, s.messageExpiries, s.retainedReads)
	fmt.Fprintf(w, "ledger: %s\n", &s.ledger)
	if len(s.cuts) > 0 {
		var list []string
		for _, name := range slices.Sorted(maps.Keys(s.cuts)) {
			list = append(list, fmt.Sprintf("%s %d", name, s.cuts[name]))
		}
		fmt.Fprintf(w, "connections cut by clients at: %s\n", strings.Join(list, ", "))
	}
	fmt.Fprintf(w, "%-16s %6s  %-28s  %-24s  %s\n", "fault", "times", "acknowledged after p50/max", "back after p50/max", "longest gap")
	for _, name := range append(slices.Sorted(maps.Keys(s.faults)), calm) {
		fmt.Fprintf(w, "  %-14s %6d  %-28s  %-24s  %s\n", name, s.faults[name],
			quantiles(s.latency[name]), quantiles(s.failovers[name]), s.gaps[name].Round(time.Millisecond))
	}
	if n := len(m.broken) + m.hushed; n > 0 {
		fmt.Fprintf(w, "VIOLATIONS: %d\n", n)
		return
	}
	fmt.Fprintln(w, "no violation")
}

func quantiles(list []time.Duration) string {
	if len(list) == 0 {
		return "-"
	}
	list = slices.Sorted(slices.Values(list))
	return fmt.Sprintf("%s / %s of %d", list[len(list)/2].Round(time.Millisecond), list[len(list)-1].Round(time.Millisecond), len(list))
}
