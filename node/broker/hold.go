package broker

import (
	"container/heap"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// holds keeps messages of the link road back until the log has passed what their connection published
// before them on the log road: the order of a publisher's messages holds across the roads.
type holds struct {
	b     *Broker
	mu    sync.RWMutex
	nodes map[fsm.NodeRef]*hold
}

// hold is what is kept of one node's incarnation. Its mutex is held while messages are released, so
// that none of the same connection overtakes them.
type hold struct {
	done   atomic.Uint64 // passed, once everything is released
	mu     sync.Mutex
	passed uint64 // every command of the incarnation up to here is applied
	ended  bool   // what is missing can't come any more
	queue  heldQueue
	order  uint64
}

// held is a message that waits.
type held struct {
	after uint64
	order uint64
	m     *fsm.Message
	epoch uint64
	plain bool
	picks []clusterpb.SharedPick
}

type heldQueue []held

func (q heldQueue) Len() int { return len(q) }
func (q heldQueue) Less(i, j int) bool {
	return q[i].after < q[j].after || q[i].after == q[j].after && q[i].order < q[j].order
}
func (q heldQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *heldQueue) Push(x any)   { *q = append(*q, x.(held)) }
func (q *heldQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = held{}
	*q = old[:len(old)-1]
	return x
}

func (h *holds) init(b *Broker) { h.b, h.nodes = b, make(map[fsm.NodeRef]*hold) }

func (h *holds) get(ref fsm.NodeRef) *hold {
	h.mu.RLock()
	n := h.nodes[ref]
	h.mu.RUnlock()
	if n != nil {
		return n
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if n = h.nodes[ref]; n == nil {
		n = &hold{}
		h.nodes[ref] = n
	}
	return n
}

// begin reads how far the log has carried each node's commands: a snapshot does not tell. Nobody is
// connected yet, so nothing can be overtaken.
func (h *holds) begin() {
	for _, m := range h.b.state.Members() {
		ref := fsm.NodeRef{Node: m.ID, Incarnation: m.Incarnation}
		if next := h.b.state.NextSequence(ref); next > 0 {
			h.pass(ref, next-1)
		}
	}
}

// reset drops what was kept for the clients of an incarnation that has ended.
func (h *holds) reset() {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, n := range h.nodes {
		n.mu.Lock()
		n.queue = nil
		n.mu.Unlock()
	}
}

// passed tells whether the log has passed a command of this node.
func (h *holds) passed(ref fsm.NodeRef, sequence uint64) bool {
	return h.get(ref).done.Load() >= sequence
}

// pass hears how far the log has carried a node's commands and releases what waited for that. On the
// applying goroutine, before the next entry.
func (h *holds) pass(ref fsm.NodeRef, sequence uint64) {
	n := h.get(ref)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.passed = max(n.passed, sequence)
	if len(n.queue) > 0 {
		h.release(n)
	}
	n.done.Store(n.passed)
}

func (h *holds) release(n *hold) {
	ba := getBatch()
	defer putBatch(ba)
	defer h.b.flusher.take(ba)
	for len(n.queue) > 0 && n.queue[0].after <= n.passed {
		d := heap.Pop(&n.queue).(held)
		m := newMessage(d.m)
		m.epoch = d.epoch
		var targets []target
		if d.plain {
			_, targets = h.b.routes.lookup(m.topic)
		}
		h.b.deliverHere(m, targets, d.picks, ba)
		m.free()
	}
}

// end hears the verdict on a node: what waits for commands that were never applied is dropped. Its
// publishers were not told that it arrived: their earlier message was not, either.
func (h *holds) end(ref fsm.NodeRef) {
	n := h.get(ref) // it stays: what the log has relayed may come later still
	h.mu.Lock()
	for old := range h.nodes {
		if old.Node == ref.Node && old.Incarnation < ref.Incarnation {
			delete(h.nodes, old)
		}
	}
	h.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = true
	h.b.stats.drop("", fsm.ReasonNoQuorum, len(n.queue))
	n.queue = nil
}

// local takes a message of this node's own publisher that must wait for the log.
func (h *holds) local(self fsm.NodeRef, after uint64, m *message, picks []clusterpb.SharedPick) {
	ba := getBatch()
	h.take(self, after, m, true, picks, ba)
	h.b.flusher.take(ba)
	putBatch(ba)
}

// take delivers a message of a node, or keeps it until the log has passed after.
func (h *holds) take(from fsm.NodeRef, after uint64, m *message, plain bool, picks []clusterpb.SharedPick, ba *conn.Batch) {
	n := h.get(from)
	n.mu.Lock()
	if after <= n.passed {
		n.mu.Unlock()
		var targets []target
		if plain {
			_, targets = h.b.routes.lookup(m.topic)
		}
		h.b.deliverHere(m, targets, picks, ba)
		return
	}
	defer n.mu.Unlock()
	if n.ended {
		h.b.stats.drop(m.publisher, fsm.ReasonNoQuorum, 1)
		return
	}
	n.order++
	heap.Push(&n.queue, held{after, n.order, m.keep(), m.epoch, plain, clonePicks(picks)})
}

func clonePicks(picks []clusterpb.SharedPick) []clusterpb.SharedPick {
	out := slices.Clone(picks)
	for i := range out {
		out[i].Filter, out[i].Group = strings.Clone(out[i].Filter), strings.Clone(out[i].Group)
	}
	return out
}

// Deliver takes a frame of another node's link. It is one of the cluster's handler calls.
func (b *Broker) Deliver(from fsm.NodeRef, f *clusterpb.Frame) clusterpb.LinkCode {
	m := messages.Get().(*message)
	m.topic, m.payload, m.props, m.publisher, m.epoch, m.qos = f.Topic, f.Payload, f.Props, f.ClientID, f.Epoch, f.QoS
	if f.Expiry > 0 {
		m.now = b.cluster.Now()
		m.expires = m.now + f.Expiry
	}
	b.traceArrived(from.Node, m, f)
	ba := getBatch()
	code := b.take(from, f, m, ba)
	m.free()
	b.flusher.take(ba)
	putBatch(ba)
	return code
}

func (b *Broker) take(from fsm.NodeRef, f *clusterpb.Frame, m *message, ba *conn.Batch) clusterpb.LinkCode {
	if f.After != 0 && !b.holds.passed(from, f.After) { // a group without a member is found another one from here, later
		b.holds.take(from, f.After, m, f.Plain, f.Shared, ba)
		return clusterpb.LinkTaken
	}
	if f.Plain {
		_, targets := b.routes.lookup(m.topic)
		if len(targets) == 0 {
			b.stats.drop(m.publisher, fsm.ReasonOffline, 1) // who subscribed has gone meanwhile
		}
		b.deliver(m, targets, ba)
	}
	code := clusterpb.LinkTaken
	for _, s := range f.Shared {
		if !b.pick(m, s.Filter, s.Group, 0, false, ba) {
			if f.QoS == 0 {
				b.stats.drop(m.publisher, fsm.ReasonNoMember, 1)
			}
			code = clusterpb.LinkNoMember
		}
	}
	return code
}

// Repick finds another member for a frame that came through the log and found none here. It must
// not block, and keeps nothing of f.
func (b *Broker) Repick(f *clusterpb.Frame) {
	if len(f.Shared) == 0 {
		return
	}
	m := messages.Get().(*message)
	m.topic, m.payload, m.props, m.publisher, m.qos = f.Topic, f.Payload, f.Props, f.ClientID, f.QoS
	if f.Expiry > 0 {
		m.expires = b.cluster.Now() + f.Expiry
	}
	kept := m.keep()
	m.free()
	for _, s := range clonePicks(f.Shared) {
		b.orphans.add(orphan{kept, s.Filter, s.Group, true})
	}
}
