package link

import (
	"slices"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

func TestUnreachablePeerIsServedThroughTheLog(t *testing.T) {
	_, a, b := pair(t, Config{StallAfter: 200 * time.Millisecond})
	l := newLedger()
	sent := 0
	send := func(n int) {
		for range n {
			a.Send(b.ref, frame(sent, 1), entry{l, sent})
			sent++
		}
	}
	settled := func() bool { return l.count(clusterpb.LinkTaken) == sent }
	send(100)
	eventually(t, "the link works", settled)
	for range 3 {
		release := b.proxy.hold()
		send(500)
		eventually(t, "the log carries the frames", settled)
		send(500) // no second stall has to pass
		eventually(t, "the log carries more", settled)
		release() // the stream that was held up delivers what was relayed already
		b.proxy.cutAll()
		send(500)
		eventually(t, "the link is open again", settled)
	}
	l.once(t, sent)
	eventually(t, "all are delivered", func() bool { return len(b.payloads(1)) >= sent })
	if !slices.Equal(b.payloads(1), numbers(0, sent)) {
		t.Error("not each once in order")
	}
}

// The log is slow: the link may not overtake what it still carries.
func TestLinkWaitsForWhatTheLogCarries(t *testing.T) {
	w, a, b := pair(t, Config{StallAfter: 100 * time.Millisecond})
	w.quorum(false)
	release := b.proxy.hold()
	l := newLedger()
	for i := range 100 {
		a.Send(b.ref, frame(i, 1), entry{l, i})
	}
	eventually(t, "the frames are proposed", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.queued) == 100
	})
	release()
	for i := 100; i < 200; i++ {
		a.Send(b.ref, frame(i, 1), entry{l, i})
	}
	eventually(t, "QoS 0 goes by the open link", func() bool {
		a.Send(b.ref, frame(0, 0), nil)
		return len(b.payloads(0)) > 0
	})
	if len(b.payloads(1)) > 0 && l.count(clusterpb.LinkTaken) == 0 {
		t.Error("delivered before the log")
	}
	w.quorum(true)
	eventually(t, "all are settled", func() bool { return l.count(clusterpb.LinkTaken) == 200 })
	l.once(t, 200)
	if !slices.Equal(b.payloads(1), numbers(0, 200)) {
		t.Error("not each once in order")
	}
}

func relayFrame(sequence uint64, payload string, shared bool) []byte {
	f := &clusterpb.Frame{ClientID: "c", Epoch: 1, Topic: "t", Payload: []byte(payload), QoS: 1}
	if shared {
		f.Shared = []clusterpb.SharedPick{{Filter: "t", Group: "g"}}
	}
	p, _ := clusterpb.Pack(nil, f)
	p.Sequence = sequence
	return p.AppendRelay(nil, 0)
}

func TestRelaysWaitForTheLease(t *testing.T) {
	_, a, b := pair(t, Config{})
	b.leased.Store(false)
	b.Relayed(a.ref, 1, relayFrame(1, "0", false))
	b.Relayed(a.ref, 2, relayFrame(2, "1", false))
	b.PeerDown(a.ref) // they were committed: the origin's end does not take them back
	if len(b.payloads(1)) > 0 {
		t.Fatal("delivered without a lease")
	}
	b.leased.Store(true)
	b.Relayed(a.ref, 3, relayFrame(3, "2", false))
	eventually(t, "they are delivered", func() bool { return len(b.payloads(1)) >= 2 })
}

func TestRelaysOfAnEndedIncarnationAreDiscarded(t *testing.T) {
	_, a, b := pair(t, Config{})
	b.leased.Store(false)
	b.Relayed(a.ref, 1, relayFrame(1, "0", false))
	b.become(9)
	b.Reset()
	b.leased.Store(true)
	l := newLedger()
	a.w.mu.Lock()
	ref := b.ref
	a.w.mu.Unlock()
	a.Send(ref, frame(1, 1), entry{l, 1})
	eventually(t, "its successor works", func() bool { return l.count(clusterpb.LinkTaken) == 1 })
	if got := b.payloads(1); !slices.Equal(got, []string{"1"}) {
		t.Errorf("got %v", got)
	}
}

func TestRelayWithoutMemberIsPickedAgain(t *testing.T) {
	_, a, b := pair(t, Config{})
	b.noMember = func(f *clusterpb.Frame) bool { return len(f.Shared) > 0 }
	b.Relayed(a.ref, 1, relayFrame(1, "x", true))
	b.Relayed(a.ref, 1, relayFrame(1, "x", true))
	b.Relayed(a.ref, 2, relayFrame(2, "y", false))
	b.Relayed(a.ref, 3, []byte{9})
	if !slices.Equal(b.repicked, []string{"x"}) || !slices.Equal(b.payloads(1), []string{"y"}) {
		t.Errorf("picked again %v, delivered %v", b.repicked, b.payloads(1))
	}
	if b.dropped[fsm.ReasonLink].Load() != 1 {
		t.Error("a frame that can't be read is not counted")
	}
}

func TestBounds(t *testing.T) {
	_, a, b := pair(t, Config{MaxUnacked: 64 << 10, StallAfter: time.Minute})
	b.leased.Store(false)
	l := newLedger()
	sent := 0
	for ; !a.Congested("b"); sent++ {
		if sent > 10000 {
			t.Fatal("never congested")
		}
		a.Send(b.ref, frame(sent, 1), entry{l, sent})
	}
	for range 100 { // above the bound, QoS 1 is still taken and QoS 0 is not
		a.Send(b.ref, frame(sent, 1), entry{l, sent})
		sent++
	}
	if a.Send(b.ref, frame(0, 0), nil) {
		t.Error("QoS 0 was taken above the bound")
	}
	b.leased.Store(true)
	eventually(t, "relief", func() bool { return !a.Congested("b") && a.relief.Load() == 1 })
	eventually(t, "all are settled", func() bool { return l.count(clusterpb.LinkTaken) == sent })
	eventually(t, "QoS 0 is taken again", func() bool { return a.Send(b.ref, frame(0, 0), nil) })
}

func TestVerdictRelieves(t *testing.T) {
	w, a, b := pair(t, Config{MaxUnacked: 1 << 10, StallAfter: time.Minute})
	b.leased.Store(false)
	l := newLedger()
	for i := range 1000 {
		a.Send(b.ref, frame(i, 1), entry{l, i})
	}
	if !a.Congested("b") {
		t.Fatal("not congested")
	}
	w.down(b.ref)
	if a.Congested("b") || a.relief.Load() != 1 {
		t.Error("publishers stay paused for a dead node")
	}
	l.once(t, 1000)
}

func TestQoS0DoesNotWaitLongForALink(t *testing.T) {
	_, a, b := pair(t, Config{StallAfter: 50 * time.Millisecond})
	defer b.proxy.hold()()
	if !a.Send(b.ref, frame(0, 0), nil) {
		t.Fatal("the first frame is dropped at once")
	}
	eventually(t, "a link that does not come up drops QoS 0", func() bool { return !a.Send(b.ref, frame(1, 0), nil) })
	b.proxy.cutAll()
	eventually(t, "what waited is counted", func() bool { return a.dropped[fsm.ReasonLink].Load() > 0 })
}

func TestSendingQoS0DoesNotAllocate(t *testing.T) {
	_, a, b := pair(t, Config{})
	f := frame(0, 0)
	f.Payload = make([]byte, 100)
	sent := 0
	send := func() {
		if a.Send(b.ref, f, nil) {
			sent++
		}
	}
	drained := func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.got) == sent
	}
	for range 10 { // grows both buffers
		for range 100 {
			send()
		}
		eventually(t, "the link drains", drained)
	}
	k := a.out.Load().byRef[b.ref]
	k.mu.Lock() // no writer: only what Send does is counted
	k.pending = make([]byte, 0, 1<<20)
	k.mu.Unlock()
	allocationFree(t, func() float64 { return testing.AllocsPerRun(500, send) })
}

// allocationFree wants a run without allocations; other goroutines may disturb some.
func allocationFree(t *testing.T, run func() float64) {
	t.Helper()
	best := run()
	for range 5 {
		best = min(best, run())
	}
	if best >= 1 {
		t.Errorf("%v allocations per frame", best)
	}
}

// TestRelayOfAnEarlierLife: the log of a node that comes back holds relays to its last incarnation, of
// peers that live still. They must not spoil what these send to the next one.
func TestRelayOfAnEarlierLife(t *testing.T) {
	w := newWorld(t, Config{}, "a", "b")
	a, b := w.nodes["a"], w.nodes["b"]
	relayed := make(chan struct{})
	w.relays <- func() {
		b.become(0) // not in service yet: it applies what it missed
		b.leased.Store(false)
		b.Relayed(a.ref, 3, packed(3, frame(99, 1)))
		b.become(7)
		b.Relayed(a.ref, 1, packed(1, frame(0, 1)))
		close(relayed)
	}
	<-relayed
	b.leased.Store(true)
	eventually(t, "the relay that waited for the lease arrives", func() bool { return slices.Equal(b.payloads(1), numbers(0, 1)) })
	l := newLedger()
	for i := 1; i < 3; i++ { // its link counts from 1: the first has come through the log
		a.Send(b.ref, frame(i, 1), entry{l, i})
	}
	eventually(t, "settled", func() bool { return l.count(clusterpb.LinkTaken) == 2 })
	if got := b.payloads(1); !slices.Equal(got, []string{"0", "2"}) {
		t.Errorf("got %q", got)
	}
}

// packed is a frame as a Relay carries it.
func packed(sequence uint64, f *clusterpb.Frame) []byte {
	p, _ := clusterpb.Pack(nil, f)
	p.Sequence = sequence
	return p.AppendRelay(nil, 0)
}
