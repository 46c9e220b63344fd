package lease

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// Holder is a node's side of its lease. All methods may be called from any goroutine; none blocks.
type Holder struct {
	cfg  Config
	node string

	deadline    atomic.Int64 // of the lease, on the clock; 0: none
	incarnation atomic.Uint64
	origin      atomic.Int64 // the leader's clock in ms minus this node's, once known
	known       atomic.Bool
	opened      atomic.Bool  // a stream to a leader: its first reply says what its clock is
	floor       atomic.Int64 // the last Now
	commit      atomic.Uint64
	applied     atomic.Uint64

	changed chan struct{} // holds one token: the lease was granted or ended
	urgent  chan struct{} // holds one token: somebody may wait for this node's report

	mu       sync.Mutex
	sequence uint64
	sent     []sentRequest // without an answer, oldest first
	lost     time.Duration // when the last lease ended, or the incarnation began
	mark     uint64
	waiting  barriers
	order    uint64
	reason   string // why the last request was refused
}

type sentRequest struct {
	sequence uint64
	at       time.Duration
}

// early is by how much Leased may say no before the lease ends, at most.
const early = 4 * slack

// maxSent bounds the requests that are remembered. An older one would grant nothing any more.
const maxSent = 16

// NewHolder makes the holder of a node, without an incarnation.
func NewHolder(cfg Config, node string) *Holder {
	h := &Holder{cfg: cfg.withDefaults(), node: node, changed: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
	h.lost = h.cfg.Clock()
	return h
}

// Begin starts asking for leases for an incarnation that this node has applied.
func (h *Holder) Begin(ref fsm.NodeRef) {
	h.mu.Lock()
	h.sent = nil
	h.deadline.Store(0)
	h.lost = h.cfg.Clock()
	h.incarnation.Store(ref.Incarnation)
	h.mu.Unlock()
	h.Report()
}

// End gives the lease up because the incarnation ended. What waits for a barrier is dropped.
func (h *Holder) End() {
	h.mu.Lock()
	now := h.cfg.Clock()
	if d := time.Duration(h.deadline.Load()); d > 0 {
		h.lost = min(d, now)
	}
	h.incarnation.Store(0)
	h.deadline.Store(0)
	h.sent, h.waiting = nil, nil
	h.mu.Unlock()
	h.notify()
}

// Leased tells whether the node holds a lease at this very instant. It is cheap, and says no a few ms
// early.
func (h *Holder) Leased() bool {
	d := h.deadline.Load()
	if d <= 0 {
		return false
	}
	_, latest := h.cfg.bounds()
	return int64(latest) < d
}

// State is Leased and, if there is no lease, for how long there was none.
func (h *Holder) State() (leased bool, lost time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.cfg.Clock()
	switch d := time.Duration(h.deadline.Load()); {
	case now < d:
		return true, 0
	case d > 0:
		return false, now - d
	}
	return false, now - h.lost
}

// left is how long the lease lasts still.
func (h *Holder) left() time.Duration { return time.Duration(h.deadline.Load()) - h.cfg.Clock() }

// Left is how long the lease lasts still; 0: there is none.
func (h *Holder) Left() time.Duration { return max(0, h.left()) }

// Changed holds a token after a lease was granted where there was none, or was given up. A lease
// that merely runs out does not say so.
func (h *Holder) Changed() <-chan struct{} { return h.changed }

// Reason is why the leader refused the last request; empty: it did not.
func (h *Holder) Reason() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reason
}

// Now estimates the leader's clock in ms, never later than it is and never going back; 0 before
// any leader was heard.
func (h *Holder) Now() int64 {
	if h.known.Load() {
		earliest, _ := h.cfg.bounds()
		raise(&h.floor, h.origin.Load()+earliest.Milliseconds())
	}
	return h.floor.Load()
}

// Commit is the newest commit index that a leader has told.
func (h *Holder) Commit() uint64 { return h.commit.Load() }

// Applied notes how far this node has applied the log.
func (h *Holder) Applied(index uint64) { h.applied.Store(index) }

// Report makes the node tell soon how far it has applied the log: somebody may wait for it.
func (h *Holder) Report() { token(h.urgent) }

// Barrier runs done when every incarnation that is live in the log has applied index, perhaps
// before it returns; never, when this node's incarnation ends before.
func (h *Holder) Barrier(index uint64, done func()) {
	h.mu.Lock()
	if h.incarnation.Load() == 0 {
		h.mu.Unlock()
		return
	}
	if h.mark < index {
		h.order++
		heap.Push(&h.waiting, barrier{index, h.order, done})
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	done()
}

// request makes the next message to the leader.
func (h *Holder) request() *clusterpb.LeaseRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sequence++
	r := &clusterpb.LeaseRequest{
		Node: h.node, Incarnation: h.incarnation.Load(), Sequence: h.sequence,
		Applied: h.applied.Load(), Clock: h.cfg.Wall(),
	}
	if r.WantLease = r.Incarnation != 0; r.WantLease {
		if len(h.sent) == maxSent {
			h.sent = append(h.sent[:0], h.sent[1:]...)
		}
		h.sent = append(h.sent, sentRequest{h.sequence, h.cfg.Clock()})
	}
	return r
}

// take handles the leader's message.
func (h *Holder) take(r *clusterpb.LeaseReply) {
	if r.Clock != 0 {
		h.tell(r.Clock - h.cfg.Clock().Milliseconds())
	}
	raiseU(&h.commit, r.Commit)
	h.mu.Lock()
	fresh := h.granted(r)
	h.mark = max(h.mark, r.Watermark)
	var ready []func()
	for len(h.waiting) > 0 && h.waiting[0].index <= h.mark {
		ready = append(ready, heap.Pop(&h.waiting).(barrier).done)
	}
	h.mu.Unlock()
	if fresh {
		h.notify()
	}
	for _, done := range ready {
		done()
	}
}

// tell takes what a reply says of the leader's clock. The reply was made in the past, so this is never ahead
// of the leader, and behind it by what the reply took: of one leader's replies the fastest counts. It is
// forgotten slowly, though much faster than two clocks drift apart.
func (h *Holder) tell(origin int64) {
	if h.known.Load() && !h.opened.Swap(false) {
		origin = max(origin, h.origin.Load()-1)
	}
	h.origin.Store(origin)
	h.known.Store(true)
}

// granted tells whether a reply gave a lease where there was none.
func (h *Holder) granted(r *clusterpb.LeaseReply) bool {
	for i, s := range h.sent {
		if s.sequence != r.Sequence {
			continue
		}
		h.sent = append(h.sent[:0], h.sent[i+1:]...)
		h.reason = r.Reason
		until := s.at + h.cfg.Duration
		old, now := time.Duration(h.deadline.Load()), h.cfg.Clock()
		if !r.Granted || until <= old {
			return false
		}
		h.deadline.Store(int64(until))
		return old <= now+early && now < until // Leased may have said no already
	}
	return false
}

func (h *Holder) notify() { token(h.changed) }

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func raise(a *atomic.Int64, v int64) {
	for old := a.Load(); v > old && !a.CompareAndSwap(old, v); old = a.Load() {
	}
}

func raiseU(a *atomic.Uint64, v uint64) {
	for old := a.Load(); v > old && !a.CompareAndSwap(old, v); old = a.Load() {
	}
}

// barrier waits for the watermark.
type barrier struct {
	index uint64
	order uint64
	done  func()
}

type barriers []barrier

func (b barriers) Len() int { return len(b) }
func (b barriers) Less(i, j int) bool {
	return b[i].index < b[j].index || b[i].index == b[j].index && b[i].order < b[j].order
}
func (b barriers) Swap(i, j int) { b[i], b[j] = b[j], b[i] }
func (b *barriers) Push(x any)   { *b = append(*b, x.(barrier)) }
func (b *barriers) Pop() any {
	old := *b
	last := old[len(old)-1]
	old[len(old)-1] = barrier{}
	*b = old[:len(old)-1]
	return last
}

// Watermark is what every incarnation that is live in the log has applied, as far as leaders told.
func (h *Holder) Watermark() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mark
}
