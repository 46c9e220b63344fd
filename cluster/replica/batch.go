package replica

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

const (
	// batchCommands bounds a batch beside its bytes: the place of a command in its entry is a part of
	// ids, which have 20 bits for it.
	batchCommands = 1 << 16
	// tagCommands stands before each command in a fsmpb.Batch: field 4, with a length.
	tagCommands = 4<<3 | 2
)

// batch is a marshalled fsmpb.Batch. When it is sealed its bytes are fixed: it may be sent many times.
type batch struct {
	first uint64
	count int
	bytes []byte
	begun time.Time // its first command came
}

func (b *batch) last() uint64 { return b.first + uint64(b.count) - 1 }

// proposer numbers this node's commands, gathers them into batches, keeps these until the log has passed
// them, and knows who waits for what. It sends nothing: a sender takes batches from it.
type proposer struct {
	limit  int // bytes of a batch
	window int
	wake   chan struct{} // holds one token: there may be something to send

	mu   sync.Mutex
	self fsm.NodeRef // zero: there is no incarnation
	err  error       // why

	next    uint64                    // sequence of the next command
	waiting []func(fsm.Result, error) // of the sequences from base on; nil: has had its result
	base    uint64

	sealed []*batch // not passed yet, in order
	sent   int      // how many of them the sender has taken
	open   *batch   // takes commands; nil: none since the last was sealed
	size   int      // bytes in all of them
	usual  int      // bytes of the last that was sealed: the next may be as large

	batches, commands, through uint64 // how many were sealed, and how many batches have passed

	commits timing // from a batch's first command until it is applied here
}

func newProposer(limit, window int) *proposer {
	return &proposer{limit: limit, window: window, wake: make(chan struct{}, 1), err: ErrNoIncarnation}
}

// Propose hands cmd to the log and returns at once, with the sequence that cmd has in this incarnation. It
// never refuses, so that what must not be lost always has a place: Backlog tells when publishers should
// pause. done runs exactly once: on the applying goroutine with what cmd did, in the order of the log, or
// with an error in End. Without an incarnation it runs with the error before Propose returns, which is 0
// then. cmd is encoded before Propose returns and may be used again. done may be nil.
func (r *Replica) Propose(cmd *fsmpb.Command, done func(fsm.Result, error)) uint64 {
	if done == nil {
		done = func(fsm.Result, error) {}
	}
	seq, err := r.proposer.add(cmd, done)
	if err != nil {
		done(fsm.Result{}, err)
	}
	return seq
}

// Begin starts an incarnation: sequences count from 1. Its NodeUp has been applied here.
func (r *Replica) Begin(self fsm.NodeRef) {
	fail(r.proposer.begin(self, nil), fmt.Errorf("replica: %s began another incarnation", self.Node))
}

// End ends the incarnation: every command that has no result yet has its done called with err, in order,
// before End returns. The log may hold such a command or not.
func (r *Replica) End(err error) { fail(r.proposer.begin(fsm.NodeRef{}, err), err) }

// Backlog is what was proposed and not passed by the log yet.
func (r *Replica) Backlog() (commands, bytes int) {
	p := r.proposer
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting), p.size
}

func fail(waiting []func(fsm.Result, error), err error) {
	for _, done := range waiting {
		if done != nil {
			done(fsm.Result{}, err)
		}
	}
}

// begin starts over, with an incarnation or without, and returns who waited in the last.
func (p *proposer) begin(self fsm.NodeRef, err error) []func(fsm.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := p.waiting
	p.self, p.err = self, err
	p.next, p.base, p.waiting = 1, 1, nil
	p.sealed, p.sent, p.open, p.size = nil, 0, nil, 0
	p.rouse()
	return waiting
}

func (p *proposer) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *proposer) add(cmd *fsmpb.Command, done func(fsm.Result, error)) (uint64, error) {
	if cmd.GetOp() == nil {
		return 0, ErrCommand
	}
	size := cmd.SizeVT()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.self.Incarnation == 0 {
		return 0, p.err
	}
	whole := 1 + (bits.Len64(uint64(size)|1)+6)/7 + size // tag, length, command
	if b := p.open; b != nil && (len(b.bytes)+whole > p.limit || b.count == batchCommands) {
		p.seal()
	}
	if err := p.append(cmd, size); err != nil {
		return 0, err
	}
	seq := p.next
	p.next++
	p.waiting = append(p.waiting, done)
	p.rouse()
	return seq, nil
}

// append encodes cmd into the open batch. Called with mu held.
func (p *proposer) append(cmd *fsmpb.Command, size int) error {
	b := p.open
	if b == nil {
		head, err := (&fsmpb.Batch{Origin: p.self.Node, Incarnation: p.self.Incarnation, First: p.next}).MarshalVT()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCommand, err)
		}
		b = &batch{first: p.next, begun: time.Now(), bytes: append(make([]byte, 0, max(p.usual, len(head)+16+size)), head...)}
	}
	at := len(b.bytes)
	buf := binary.AppendUvarint(append(b.bytes, tagCommands), uint64(size))
	begin := len(buf)
	buf = grow(buf, size)
	if _, err := cmd.MarshalToSizedBufferVT(buf[begin:]); err != nil {
		return fmt.Errorf("%w: %w", ErrCommand, err)
	}
	if p.open == nil {
		p.open, at = b, 0
	}
	p.size += len(buf) - at
	b.bytes = buf
	b.count++
	return nil
}

// grow makes b longer by n bytes, whose content does not matter.
func grow(b []byte, n int) []byte {
	if free := cap(b) - len(b); free < n {
		b = append(b[:cap(b)], make([]byte, n-free)...)[:len(b)]
	}
	return b[:len(b)+n]
}

// seal is called with mu held and a batch open.
func (p *proposer) seal() {
	p.sealed = append(p.sealed, p.open)
	p.usual = min(len(p.open.bytes), p.limit)
	p.batches++
	p.commands += uint64(p.open.count)
	p.open = nil
}

// take is the next batch to send, or nil: there is none, or enough are on their way. What is gathered
// while they are makes one batch.
func (p *proposer) take() *batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent >= p.window {
		return nil
	}
	if p.sent == len(p.sealed) {
		if p.open == nil {
			return nil
		}
		p.seal()
	}
	p.sent++
	return p.sealed[p.sent-1]
}

// rewind has everything sent again that the log has not passed.
func (p *proposer) rewind() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = 0
	p.rouse()
}

// progress is how many batches have passed, and whether some are under way.
func (p *proposer) progress() (passed uint64, under bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.through, p.sent > 0
}

// begun tells whether there is an incarnation.
func (p *proposer) begun() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.self.Incarnation != 0
}

// gap has the batch with that sequence and all later ones sent again: the log refused a batch because one
// before it was missing.
func (p *proposer) gap(self fsm.NodeRef, seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if self != p.self {
		return
	}
	for i, b := range p.sealed[:p.sent] {
		if b.last() >= seq {
			p.sent = i
			p.rouse()
			return
		}
	}
}

// passed forgets the batches up to a sequence: they are applied.
func (p *proposer) passed(self fsm.NodeRef, seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if self != p.self {
		return
	}
	n := 0
	for n < len(p.sealed) && p.sealed[n].last() <= seq {
		p.size -= len(p.sealed[n].bytes)
		p.commits.add(time.Since(p.sealed[n].begun))
		p.sealed[n] = nil
		n++
	}
	if n == 0 {
		return
	}
	p.through += uint64(n)
	p.sealed = p.sealed[n:]
	p.sent = max(p.sent-n, 0)
	p.rouse()
}

// result gives a command its result.
func (p *proposer) result(e *fsm.Effect) {
	if done := p.answer(e.Node, e.Sequence); done != nil {
		done(*e.Result, nil)
	}
}

// answer takes the done of a sequence, once. After a restore some that came before may never have one:
// End calls them.
func (p *proposer) answer(self fsm.NodeRef, seq uint64) func(fsm.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if self != p.self || seq < p.base || seq >= p.base+uint64(len(p.waiting)) {
		return nil
	}
	i := seq - p.base
	done := p.waiting[i]
	p.waiting[i] = nil
	if i == 0 {
		for len(p.waiting) > 0 && p.waiting[0] == nil {
			p.waiting, p.base = p.waiting[1:], p.base+1
		}
	}
	return done
}
