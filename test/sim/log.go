package sim

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

var errEnded = errors.New("sim: the incarnation has ended")

// window is how many batches of a node are under way at most.
const window = 2

// proposer numbers a node's commands and keeps them in batches until the log has passed them.
type proposer struct {
	mu      sync.Mutex
	self    fsm.NodeRef
	next    uint64
	base    uint64
	waiting []func(fsm.Result, error) // of the sequences from base on
	open    []command                 // not in a batch yet
	sealed  []batch                   // not passed
	sent    int                       // how many of them are under way
	bytes   int
}

type command struct {
	bytes    []byte
	interest string // of an Interest, what it is about
}

type batch struct {
	last  uint64
	bytes []byte
}

// propose takes a command; false: there is no incarnation.
func (p *proposer) propose(cmd *fsmpb.Command, done func(fsm.Result, error)) (uint64, bool) {
	b, err := cmd.MarshalVT() // now: it aliases the caller's memory
	if err != nil {
		panic(err)
	}
	c := command{bytes: b}
	if i := cmd.GetInterest(); i != nil {
		c.interest = i.Filter + "\x00" + i.Group
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.self.Incarnation == 0 {
		return 0, false
	}
	p.open = append(p.open, c)
	p.bytes += len(b)
	p.waiting = append(p.waiting, done)
	p.next++
	return p.next - 1, true
}

// begin starts over and returns who waited.
func (p *proposer) begin(self fsm.NodeRef) []func(fsm.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := p.waiting
	p.self, p.next, p.base, p.waiting = self, 1, 1, nil
	p.open, p.sealed, p.sent, p.bytes = nil, nil, 0, 0
	return waiting
}

// take is the next batch to send, at most limit commands; nil: there is none, or enough are under way.
func (p *proposer) take(limit int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent >= window {
		return nil
	}
	if p.sent == len(p.sealed) {
		if len(p.open) == 0 {
			return nil
		}
		p.seal(limit)
	}
	p.sent++
	return p.sealed[p.sent-1].bytes
}

// tagCommands stands before each command in a fsmpb.Batch: field 4, with a length.
const tagCommands = 4<<3 | 2

func (p *proposer) seal(limit int) {
	first := p.next - uint64(len(p.open))
	p.arrange(p.waiting[first-p.base:])
	n := min(limit, len(p.open))
	b, err := (&fsmpb.Batch{Origin: p.self.Node, Incarnation: p.self.Incarnation, First: first}).MarshalVT()
	if err != nil {
		panic(err)
	}
	for _, c := range p.open[:n] {
		b = binary.AppendUvarint(append(b, tagCommands), uint64(len(c.bytes)))
		b = append(b, c.bytes...)
	}
	p.sealed = append(p.sealed, batch{first + uint64(n) - 1, b})
	p.open = slices.Clone(p.open[n:])
}

// arrange gives neighbouring Interests an order of their own: a client that ends gives up its
// subscriptions in any order, and a seed would not replay exactly.
func (p *proposer) arrange(waiting []func(fsm.Result, error)) {
	for i := 1; i < len(p.open); i++ {
		for k := i; k > 0 && p.open[k].interest != "" && p.open[k-1].interest > p.open[k].interest; k-- {
			p.open[k], p.open[k-1] = p.open[k-1], p.open[k]
			waiting[k], waiting[k-1] = waiting[k-1], waiting[k]
		}
	}
}

// rewind has everything that the log has not passed sent again.
func (p *proposer) rewind() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = 0
}

func (p *proposer) gap(self fsm.NodeRef, sequence uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if self != p.self {
		return
	}
	for i := range p.sealed[:p.sent] {
		if p.sealed[i].last >= sequence {
			p.sent = i
			return
		}
	}
}

func (p *proposer) passed(self fsm.NodeRef, sequence uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for self == p.self && len(p.sealed) > 0 && p.sealed[0].last <= sequence {
		p.bytes -= len(p.sealed[0].bytes)
		p.sealed = p.sealed[1:]
		p.sent = max(0, p.sent-1)
	}
}

// result is the done of a command, once.
func (p *proposer) result(self fsm.NodeRef, sequence uint64) func(fsm.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if self != p.self || sequence < p.base || sequence-p.base >= uint64(len(p.waiting)) {
		return nil
	}
	done := p.waiting[sequence-p.base]
	p.waiting[sequence-p.base] = nil
	for len(p.waiting) > 0 && p.waiting[0] == nil {
		p.waiting, p.base = p.waiting[1:], p.base+1
	}
	return done
}

func (p *proposer) backlog() (commands, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting), max(0, p.bytes)
}
