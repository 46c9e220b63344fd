package main

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ledger is who said what, and who has heard it.
type ledger struct {
	connects, repeats atomic.Int64

	mu       sync.Mutex
	out      map[string]*sending        // by sender and n: everybody writes on one device
	bySeq    map[string]map[int]message // by reader and conversation, then by seq
	echoes   []time.Duration            // from the sender's send to its own echo: committed, written down and back
	hearings []time.Duration            // from send to the other side
	presence map[string]*presence
	faults   []string
}

type sending struct {
	at    time.Time
	heard map[string]int // reader -> how many different (conv, seq)
}

type presence struct {
	expected, observed bool
	since              time.Time // when expected changed
}

func newLedger() *ledger {
	return &ledger{out: make(map[string]*sending), bySeq: make(map[string]map[int]message), presence: make(map[string]*presence)}
}

func (l *ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) < 50 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

func key(sender string, n int) string { return fmt.Sprintf("%s %d", sender, n) }

func (l *ledger) sent(sender string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out[key(sender, n)] = &sending{at: time.Now(), heard: make(map[string]int)}
}

// arrived notes a message that reader has not had before.
func (l *ledger) arrived(reader string, m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	place := fmt.Sprintf("%s %d", reader, m.Conv)
	if l.bySeq[place] == nil {
		l.bySeq[place] = make(map[int]message)
	}
	l.bySeq[place][m.Seq] = m
	s := l.out[key(m.From, m.N)]
	if s == nil {
		return // the bot's
	}
	s.heard[reader]++
	took := time.Since(s.at)
	if reader == m.From {
		l.echoes = append(l.echoes, took)
	} else {
		l.hearings = append(l.hearings, took)
	}
}

// open is how many messages have not been heard by both sides.
func (l *ledger) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range l.out {
		if len(s.heard) < 2 {
			n++
		}
	}
	return n
}

func (l *ledger) expectPresence(user string, there bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.presence[user]
	if p == nil {
		p = &presence{}
		l.presence[user] = p
	}
	if p.expected != there {
		p.expected, p.since = there, time.Now()
	}
}

func (l *ledger) observePresence(user string, there bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.presence[user]; p != nil {
		p.observed = there
	}
}

// misplaced are people who have been shown wrongly for longer than the limit since they came or went.
func (l *ledger) misplaced(limit time.Duration) (who []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for user, p := range l.presence {
		if p.observed != p.expected && time.Since(p.since) > limit {
			who = append(who, user)
		}
	}
	slices.Sort(who)
	return who
}

// audit checks every message: heard once by both sides, in the order in which they were sent, and no
// number missing in any conversation.
func (l *ledger) audit() (lost, doubled, disordered, gaps int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for what, s := range l.out {
		if len(s.heard) < 2 {
			lost++
			if len(l.faults) < 50 {
				l.faults = append(l.faults, fmt.Sprintf("lost: %s, sent at %s, heard by %v", what, s.at.Format(time.TimeOnly), s.heard))
			}
		}
		for _, times := range s.heard {
			if times > 1 {
				doubled++
			}
		}
	}
	for _, bySeq := range l.bySeq {
		last := make(map[string]int)
		for seq := 1; seq <= len(bySeq); seq++ {
			m, ok := bySeq[seq]
			if !ok {
				gaps++
				break
			}
			if m.N < last[m.From] {
				disordered++
			}
			last[m.From] = m.N
		}
	}
	return lost, doubled, disordered, gaps
}

func percentile(of []time.Duration, p float64) time.Duration {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[min(len(of)-1, int(p*float64(len(of))))]
}
