package sim

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/skein-mqtt/skein/cluster/link"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// Node is one node: a real state machine, broker and links, and what stands in for the rest. Its
// methods are steps: each does one thing and returns when nothing moves any more.
type Node struct {
	w      *World
	ID     string
	FSM    *fsm.FSM
	Broker *broker.Broker
	links  *link.Links
	stop   context.CancelFunc
	ran    sync.WaitGroup

	alive   bool
	applied int    // entries of the log
	nonce   uint64 // of the NodeUp that is awaited, or served
	ref     fsm.NodeRef
	begun   bool // ref is known and not served yet
	ending  bool // ref has ended: the broker has not been told
	spoken  bool // the broker has been told that the lease is gone

	proposer proposer
	self     atomic.Pointer[fsm.NodeRef]
	leased   atomic.Bool
	dead     atomic.Bool
	reached  atomic.Pointer[link.Links] // links, for other nodes' streams; nil: nobody answers

	mu       sync.Mutex
	mark     uint64
	barriers []barrier

	// What Run leaves alone.
	HoldLog, HoldApply, HoldMark bool
}

type barrier struct {
	index uint64
	done  func()
}

// Start starts a process with an empty state, or with the leader's snapshot.
func (n *Node) Start(snapshot bool) {
	n.FSM = fsm.New(n.ID)
	n.applied, n.ref, n.begun, n.ending, n.nonce = 0, fsm.NodeRef{}, false, false, 0
	n.mark, n.barriers = 0, nil
	if snapshot {
		n.restore()
	}
	cfg := n.w.config(n.ID)
	b, err := broker.New(cfg, n.FSM)
	if err != nil {
		n.w.T.Fatal(err)
	}
	n.Broker = b
	n.self.Store(&fsm.NodeRef{Node: n.ID})
	n.leased.Store(false)
	n.dead.Store(false)
	n.links = link.New(link.Config{
		MaxUnacked: n.w.opt.LinkBuffer, OnRelief: b.Relieved, Dropped: b.DroppedOnLink, Repick: b.Repick,
	}, n.FSM, host{n})
	b.Attach(side{n})
	n.reached.Store(n.links)
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	n.ran.Go(func() { _ = b.Run(ctx) })
	n.alive = true
	n.w.Settle()
}

func (n *Node) restore() {
	var b bytes.Buffer
	s := n.w.leader.Snapshot()
	defer s.Release()
	if _, err := s.WriteTo(&b); err != nil {
		n.w.T.Fatal(err)
	}
	if err := n.FSM.Restore(&b); err != nil {
		n.w.T.Fatal(err)
	}
	n.applied = len(n.w.log)
}

// Kill ends the process at once, with its connections and what was on its way to them.
func (n *Node) Kill() {
	if !n.alive {
		return
	}
	n.alive = false
	n.dead.Store(true)
	n.reached.Store(nil)
	for _, c := range n.w.conns {
		if c.node == n {
			c.cut()
		}
	}
	for _, s := range n.w.streamList() {
		if s.route.from == n.ID || s.route.to == n.ID {
			s.sever(errDown)
		}
	}
	n.close()
	n.w.Settle()
}

func (n *Node) close() {
	n.dead.Store(true)
	n.proposer.begin(fsm.NodeRef{})
	n.links.Close()
	n.Broker.Close()
	n.stop()
	n.ran.Wait()
}

// Alive tells whether the process runs.
func (n *Node) Alive() bool { return n.alive }

// Serving tells whether an incarnation is in service.
func (n *Node) Serving() bool { return n.alive && n.Self().Incarnation != 0 && !n.ending }

// Self is the serving incarnation.
func (n *Node) Self() fsm.NodeRef { return *n.self.Load() }

// Ref is the incarnation that the node has, in service or not.
func (n *Node) Ref() fsm.NodeRef { return n.ref }

// Behind is how many entries of the log the node has not applied.
func (n *Node) Behind() int { return len(n.w.log) - n.applied }

// Announce asks for an incarnation. False: there is one, or the node has to catch up first.
func (n *Node) Announce() bool {
	if !n.alive || n.nonce != 0 || n.ending || n.Behind() > 0 {
		return false
	}
	n.w.nonces++
	n.nonce = n.w.nonces
	n.w.appendSystem(&fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: n.ID, Nonce: n.nonce, PeerAddr: n.ID, Features: 1}}})
	return true
}

// Serve begins the incarnation that the node has applied, with its first lease.
func (n *Node) Serve() bool {
	if !n.alive || !n.begun || n.w.condemned[n.ref] {
		return false
	}
	n.begun = false
	n.proposer.begin(n.ref)
	n.leased.Store(true)
	ref := n.ref
	n.self.Store(&ref)
	n.Broker.Serving(ref)
	for _, m := range n.FSM.Members() {
		if m.Live && m.ID != n.ID {
			n.links.PeerUp(fsm.NodeRef{Node: m.ID, Incarnation: m.Incarnation})
		}
	}
	n.w.Settle()
	return true
}

// End tells the broker that the incarnation has ended.
func (n *Node) End() bool {
	if !n.alive || !n.ending {
		return false
	}
	ref := n.ref
	served := !n.begun
	for _, done := range n.proposer.begin(fsm.NodeRef{}) {
		if done != nil {
			done(fsm.Result{}, errEnded)
		}
	}
	if served {
		n.Broker.Ended(ref)
	}
	n.links.Reset()
	n.ending, n.begun, n.nonce, n.ref, n.spoken = false, false, 0, fsm.NodeRef{}, false
	n.w.Settle()
	return true
}

// LoseLease ends the lease. The broker hears of it with TellLease.
func (n *Node) LoseLease() bool {
	if !n.leased.Swap(false) {
		return false
	}
	n.w.Settle()
	return true
}

// GrantLease gives the lease back, unless there was a verdict.
func (n *Node) GrantLease() bool {
	if !n.Serving() || n.w.condemned[n.ref] || n.leased.Swap(true) {
		return false
	}
	n.w.Settle()
	return true
}

// TellLease has the broker hear how its lease stands, if that is news.
func (n *Node) TellLease() bool {
	leased := n.leased.Load()
	if !n.Serving() || leased != n.spoken {
		return false
	}
	n.spoken = !leased
	if leased {
		n.Broker.LeaseBack()
	} else {
		n.Broker.LeaseLost(false)
	}
	n.w.Settle()
	return true
}

// Submit has the node's next batch enter the log, with at most limit commands.
func (n *Node) Submit(limit int) bool {
	if !n.alive {
		return false
	}
	b := n.proposer.take(limit)
	if b == nil {
		return false
	}
	n.w.appendBatch(b)
	return true
}

// Lose has the node's next batch get lost on its way to the leader: the log will see a gap, or nothing.
func (n *Node) Lose(limit int) bool { return n.alive && n.proposer.take(limit) != nil }

// Resend has the node send everything again that the log has not passed, as after a lost leader.
func (n *Node) Resend() { n.proposer.rewind() }

// Apply applies the next entry.
func (n *Node) Apply() bool {
	if !n.alive || n.Behind() == 0 {
		return false
	}
	e := n.w.log[n.applied]
	n.applied++
	effects, err := n.FSM.Apply(uint64(n.applied), e.term, e.bytes)
	if err != nil {
		n.w.T.Fatal(err)
	}
	begin := 0
	for i := range effects {
		switch e := &effects[i]; e.Kind {
		case fsm.EffectResult:
			n.effects(effects[begin:i])
			begin = i + 1
			if done := n.proposer.result(e.Node, e.Sequence); done != nil {
				done(*e.Result, nil)
			}
		case fsm.EffectGap:
			n.effects(effects[begin:i])
			begin = i + 1
			n.proposer.gap(e.Node, e.Sequence)
		case fsm.EffectPassed:
			n.proposer.passed(e.Node, e.Sequence)
		}
	}
	n.effects(effects[begin:])
	n.w.Settle()
	return true
}

// effects does what cluster does with the effects of an entry, in the same order.
func (n *Node) effects(effects []fsm.Effect) {
	begin := 0
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case fsm.EffectNodeUp, fsm.EffectNodeDown, fsm.EffectRefused:
			if e.Kind != fsm.EffectNodeUp {
				n.over(e.Node)
			}
			n.Broker.Apply(effects[begin : i+1])
			begin = i + 1
			n.note(e)
		case fsm.EffectRelay:
			n.Broker.Apply(effects[begin:i])
			begin = i + 1
			n.links.Relayed(e.Node, e.Sequence, e.Frame)
		}
	}
	if begin < len(effects) {
		n.Broker.Apply(effects[begin:])
	}
}

func (n *Node) over(ref fsm.NodeRef) {
	if n.ref.Incarnation == 0 || n.ref != ref {
		return
	}
	n.self.Store(&fsm.NodeRef{Node: n.ID})
	n.leased.Store(false)
	n.mu.Lock()
	n.barriers = nil
	n.mu.Unlock()
	n.ending = true
}

func (n *Node) note(e *fsm.Effect) {
	own := e.Node.Node == n.ID
	switch {
	case e.Kind == fsm.EffectNodeUp && own:
		if inc, ok := n.FSM.Incarnation(n.ID, n.nonce); n.nonce != 0 && n.ref.Incarnation == 0 && ok && inc == e.Node.Incarnation {
			n.ref, n.begun = e.Node, true
		}
	case e.Kind == fsm.EffectNodeUp:
		n.links.PeerUp(e.Node)
	case e.Kind == fsm.EffectNodeDown && !own:
		n.links.PeerDown(e.Node)
	}
}

// Mark tells the node what every live incarnation has applied.
func (n *Node) Mark() bool {
	if !n.alive {
		return false
	}
	mark := n.w.Watermark()
	n.mu.Lock()
	n.mark = max(n.mark, mark)
	var ready []func()
	n.barriers = slices.DeleteFunc(n.barriers, func(b barrier) bool {
		if b.index <= n.mark {
			ready = append(ready, b.done)
		}
		return b.index <= n.mark
	})
	n.mu.Unlock()
	for _, done := range ready {
		done()
	}
	if len(ready) == 0 {
		return false
	}
	n.w.Settle()
	return true
}
