package link

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

const (
	// pieceSize is how much one message carries: small enough that a slow network shows signs of
	// life within a stall, large enough that the cost of a message disappears.
	pieceSize = 32 << 10
	// aheadSize is how much is encoded ahead of the writer; more frames wait packed.
	aheadSize = 1 << 20
	// arenaSize is the unit in which memory for packed frames is taken.
	arenaSize = 64 << 10
)

// link is the way to one incarnation of a peer.
type link struct {
	l        *Links
	self, to fsm.NodeRef
	ctx      context.Context
	cancel   context.CancelFunc
	wake     chan struct{} // holds one token: there is something for the writer
	began    time.Time

	congested atomic.Bool

	mu        sync.Mutex
	closed    bool
	connected bool      // a stream stands and its receiver has answered
	downSince time.Time // while not connected
	cut       context.CancelFunc
	heard     time.Time // when the receiver last spoke

	// pending is what the writer sends next. While nothing is connected it is the beginning of the
	// next stream: QoS 0 waits there a short while.
	enc      clusterpb.LinkEncoder
	pending  []byte
	spare    []byte
	loose    int // bytes of QoS 0 in pending or being written
	writing  int // of these, being written
	pending0 int // QoS 0 frames in pending
	sent0    uint64
	lost0    uint64 // of sent0, given up and counted

	// kept are the frames of QoS 1 and 2 without an acknowledgement: consecutive sequences up to
	// last. Those before next were given to the current stream.
	kept      []record
	keptBytes int
	last      uint64
	next      uint64
	arena     []byte

	stall *time.Timer // made when first needed
	armed bool
	relay relayState
}

// record is a frame of QoS 1 or 2 until it is acknowledged.
type record struct {
	clusterpb.Packed
	at   time.Duration // since the link began
	done clusterpb.LinkDone
	code clusterpb.LinkCode // once it is known
}

func newLink(l *Links, self, to fsm.NodeRef) *link {
	k := &link{l: l, self: self, to: to, wake: make(chan struct{}, 1), began: time.Now(), next: 1}
	k.relay.wake = make(chan struct{}, 1)
	k.downSince = k.began
	k.ctx, k.cancel = context.WithCancel(l.ctx)
	return k
}

// send0 queues a frame of QoS 0.
func (k *link) send0(f *clusterpb.Frame) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.unacked() > k.l.cfg.MaxUnacked {
		return false
	}
	if !k.connected && time.Since(k.downSince) > k.l.cfg.StallAfter {
		return false
	}
	before := len(k.pending)
	k.pending = k.enc.Append(k.pending, f)
	k.loose += len(k.pending) - before
	k.pending0++
	k.sent0++
	k.judge()
	if before == 0 {
		k.signal()
	}
	return true
}

// send queues a frame of QoS 1 or 2; false when the peer's incarnation or the node's own has ended.
func (k *link) send(f *clusterpb.Frame, done clusterpb.LinkDone) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	k.last++
	if need := clusterpb.ContentSize(f); need > cap(k.arena)-len(k.arena) {
		k.arena = make([]byte, 0, max(arenaSize, need))
	}
	var r record
	r.Packed, k.arena = clusterpb.Pack(k.arena, f)
	r.Sequence, r.at, r.done = k.last, time.Since(k.began), done
	k.kept = append(k.kept, r)
	k.keptBytes += r.Size()
	k.judge()
	switch {
	case k.relay.on:
		k.signalRelay()
	case k.connected:
		before := len(k.pending)
		if k.next == k.last && before < aheadSize {
			k.encode()
		}
		if before == 0 {
			k.signal()
		}
	}
	k.watch()
	return true
}

// encode puts the frame that is next on the stream into pending.
func (k *link) encode() {
	r := &k.kept[k.next-k.kept[0].Sequence]
	k.pending = k.enc.AppendPacked(k.pending, &r.Packed, k.left(r))
	k.next++
}

// left is how long the frame has until it expires: an expired one still goes, so that it is dropped
// and counted where the client is.
func (k *link) left(r *record) int64 {
	if r.Expiry <= 0 {
		return 0
	}
	return max(r.Expiry-(time.Since(k.began)-r.at).Milliseconds(), 1)
}

func (k *link) unacked() int { return k.keptBytes + k.loose }

// judge raises the flag that makes publishers pause. Lowering it is for relieve.
func (k *link) judge() {
	if k.unacked() > k.l.cfg.MaxUnacked {
		k.congested.Store(true)
	}
}

// relieved lowers the flag, well below the bound so that it doesn't flap. The caller calls OnRelief
// after it has unlocked, when this says so.
func (k *link) relieved() bool {
	return k.congested.Load() && (k.closed || k.unacked() <= k.l.cfg.MaxUnacked/2) && k.congested.CompareAndSwap(true, false)
}

func (k *link) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// take is what the writer sends next, nil when there is nothing. written gives it back.
func (k *link) take() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.connected {
		return nil
	}
	for !k.relay.on && k.next <= k.last && len(k.pending) < aheadSize {
		k.encode()
	}
	if len(k.pending) == 0 {
		return nil
	}
	b := k.pending
	k.pending, k.spare = k.spare[:0], nil
	k.writing, k.pending0 = k.loose, 0
	return b
}

func (k *link) written(b []byte) {
	k.mu.Lock()
	if cap(b) <= 2*aheadSize {
		k.spare = b[:0]
	}
	k.loose -= k.writing
	k.writing = 0
	relief := k.relieved()
	k.mu.Unlock()
	if relief {
		k.l.cfg.OnRelief(k.to.Node)
	}
}

// acknowledge releases the frames up to a sequence. false: the receiver names one that was never
// sent, and can't be trusted.
func (k *link) acknowledge(ack *clusterpb.LinkAck) bool {
	k.mu.Lock()
	if ack.Sequence > k.last {
		k.mu.Unlock()
		return false
	}
	k.heard = time.Now()
	for _, s := range ack.Returned {
		if n := len(k.kept); n > 0 && s >= k.kept[0].Sequence && s <= k.kept[n-1].Sequence {
			k.kept[s-k.kept[0].Sequence].code = clusterpb.LinkNoMember
		}
	}
	k.release(ack.Sequence)
	return true
}

// release ends the frames up to a sequence. Called with mu held, which it unlocks.
func (k *link) release(upTo uint64) {
	n := 0
	if len(k.kept) > 0 && upTo >= k.kept[0].Sequence {
		n = min(int(upTo-k.kept[0].Sequence)+1, len(k.kept))
	}
	for i := range k.kept[:n] {
		k.keptBytes -= k.kept[i].Size()
	}
	ended := k.kept[:n:n]
	k.kept = k.kept[n:]
	if len(k.kept) == 0 {
		k.kept = nil
	}
	k.next = max(k.next, upTo+1)
	relief := k.relieved()
	k.mu.Unlock()
	for i := range ended {
		ended[i].done.LinkDone(k.to.Node, ended[i].code)
		ended[i] = record{}
	}
	if relief {
		k.l.cfg.OnRelief(k.to.Node)
	}
}

// close ends the link and releases everything with LinkGone.
func (k *link) close() {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return
	}
	k.closed, k.connected = true, false
	k.cancel()
	if k.stall != nil {
		k.stall.Stop()
	}
	k.pending, k.spare, k.arena, k.loose, k.writing = nil, nil, nil, 0, 0
	for i := range k.kept {
		k.kept[i].code = clusterpb.LinkGone
	}
	k.release(k.last)
}
