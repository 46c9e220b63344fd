package link

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

func pair(t testing.TB, cfg Config) (*world, *node, *node) {
	w := newWorld(t, cfg, "a", "b")
	return w, w.nodes["a"], w.nodes["b"]
}

func TestFramesArriveInOrder(t *testing.T) {
	_, a, b := pair(t, Config{})
	const total = 5000
	l := newLedger()
	for i := range total {
		if !a.Send(b.ref, frame(i, byte(i%3)), entry{l, i}) {
			t.Fatalf("frame %d was dropped", i)
		}
	}
	eventually(t, "all frames are delivered", func() bool {
		return len(b.payloads(0))+len(b.payloads(1))+len(b.payloads(2)) == total
	})
	for qos := range byte(3) {
		var want []string
		for i := int(qos); i < total; i += 3 {
			want = append(want, fmt.Sprint(i))
		}
		if !slices.Equal(b.payloads(qos), want) {
			t.Errorf("QoS %d: not in order", qos)
		}
	}
	acknowledged := total / 3 * 2
	eventually(t, "all are acknowledged", func() bool { return l.count(clusterpb.LinkTaken) >= acknowledged })
}

// Each node sends to each other node while connections are cut after a random number of bytes.
func TestExactlyOnceAcrossCuts(t *testing.T) {
	w := newWorld(t, Config{}, "a", "b", "c")
	var seed sync.Mutex
	r := rand.New(rand.NewPCG(11, 12))
	for _, n := range w.nodes {
		n.proxy.limit(func() int {
			seed.Lock()
			defer seed.Unlock()
			return 5000 + r.IntN(100000)
		})
	}
	const total = 3000
	ledgers := make(map[[2]string]*ledger)
	var wg sync.WaitGroup
	for _, from := range w.nodes {
		for _, to := range w.nodes {
			if from == to {
				continue
			}
			l := newLedger()
			ledgers[[2]string{from.ref.Node, to.ref.Node}] = l
			wg.Go(func() {
				for i := range total {
					f := frame(i, byte(1+i%2))
					f.Payload = append(f.Payload, bytes.Repeat([]byte{'.'}, 50)...)
					from.Send(to.ref, f, entry{l, i})
					if i%500 == 0 {
						if !poll(func() bool { return l.count(clusterpb.LinkTaken) > i-900 }) {
							t.Error("the link does not keep up")
							return
						}
					}
				}
			})
		}
	}
	wg.Wait()
	for pair, l := range ledgers {
		eventually(t, fmt.Sprint(pair, ": all acknowledged"), func() bool { return l.count(clusterpb.LinkTaken) == total })
		l.once(t, total)
	}
	for _, to := range w.nodes {
		got := make(map[string][]string)
		for _, d := range to.got {
			got[d.from.Node] = append(got[d.from.Node], string(bytes.TrimRight([]byte(d.payload), ".")))
		}
		for from, list := range got {
			if !slices.Equal(list, numbers(0, total)) {
				t.Errorf("%s to %s: %d frames, not each once in order", from, to.ref.Node, len(list))
			}
		}
	}
}

// What is not delivered at QoS 0 is counted, once.
func TestLostQoS0IsCounted(t *testing.T) {
	_, a, b := pair(t, Config{})
	b.proxy.limit(func() int { return 20000 })
	const total = 20000
	refused := 0
	settled := func() int { return len(b.payloads(0)) + int(a.dropped[fsm.ReasonLink].Load()) }
	for i := range total {
		if !a.Send(b.ref, frame(i, 0), nil) {
			refused++
		}
		if i%1000 == 999 { // some get through
			before := settled()
			eventually(t, "the link moves", func() bool { return settled() > before || settled()+refused == i+1 })
		}
	}
	b.proxy.limit(nil)
	b.proxy.cutAll()
	eventually(t, "the sums reconcile", func() bool {
		return settled()+refused == total
	})
	if a.dropped[fsm.ReasonLink].Load() == 0 {
		t.Error("nothing was lost, so nothing was tried")
	}
}

func TestGoneReleases(t *testing.T) {
	_, a, b := pair(t, Config{})
	b.leased.Store(false)
	old := b.ref
	l := newLedger()
	for i := range 10 {
		a.Send(old, frame(i, 1), entry{l, i})
	}
	b.become(9) // restarted, and a has not applied it
	a.w.mu.Lock()
	a.w.live["b"] = old
	a.w.mu.Unlock()
	b.Reset()
	b.leased.Store(true)
	eventually(t, "all are released", func() bool { return l.count(clusterpb.LinkGone) == 10 })
	a.Send(old, frame(10, 2), entry{l, 10})
	l.once(t, 11)
	if a.Send(old, frame(11, 0), nil) {
		t.Error("QoS 0 to an ended incarnation was accepted")
	}
	if got := b.payloads(1); len(got) > 0 {
		t.Errorf("a new incarnation was given %v", got)
	}
	a.w.mu.Lock()
	a.w.live["b"] = b.ref
	a.w.mu.Unlock()
	a.PeerDown(old)
	a.Send(b.ref, frame(12, 1), entry{l, 12})
	eventually(t, "the new incarnation gets its own", func() bool { return slices.Equal(b.payloads(1), []string{"12"}) })
}

func TestPeerDown(t *testing.T) {
	w, a, b := pair(t, Config{})
	l := newLedger()
	a.Send(b.ref, frame(0, 1), entry{l, 0})
	eventually(t, "the link stands", func() bool { return l.count(clusterpb.LinkTaken) == 1 })
	b.leased.Store(false)
	for i := 1; i < 100; i++ {
		a.Send(b.ref, frame(i, 1), entry{l, i})
	}
	// The verdict on a: b must not take what a still sends, although it has a lease again.
	b.PeerDown(a.ref)
	b.leased.Store(true)
	// The verdict on b releases a's frames.
	w.down(b.ref)
	eventually(t, "all are released", func() bool { return l.count(clusterpb.LinkGone) == 99 })
	l.once(t, 100)
	a.Send(b.ref, frame(100, 1), entry{l, 100})
	l.once(t, 101)
	if got := b.payloads(1); !slices.Equal(got, []string{"0"}) {
		t.Errorf("got %v after the verdict", got)
	}
}

func TestNoDeliveryWithoutLease(t *testing.T) {
	w, a, b := pair(t, Config{StallAfter: 300 * time.Millisecond})
	w.quorum(false) // a relay would show as a frame that never arrives
	b.leased.Store(false)
	l := newLedger()
	for i := range 100 {
		a.Send(b.ref, frame(i, 1), entry{l, i})
	}
	deadline := time.Now().Add(time.Second) // several stalls: b shows signs of life
	for time.Now().Before(deadline) {
		if len(b.payloads(1)) > 0 || l.count(clusterpb.LinkTaken) > 0 {
			t.Fatal("a node without a lease delivered or acknowledged")
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.mu.Lock()
	relays := len(w.queued)
	w.mu.Unlock()
	if relays > 0 {
		t.Errorf("%d frames were relayed to a node that can be reached", relays)
	}
	b.leased.Store(true)
	eventually(t, "all are acknowledged", func() bool { return l.count(clusterpb.LinkTaken) == 100 })
	if !slices.Equal(b.payloads(1), numbers(0, 100)) {
		t.Error("not each once in order")
	}
}

func TestReceiverBehindWaits(t *testing.T) {
	w, a, b := pair(t, Config{})
	// b has not applied a's NodeUp: hide it from b only.
	w.mu.Lock()
	delete(w.live, "a")
	w.mu.Unlock()
	l := newLedger()
	a.Send(b.ref, frame(0, 1), entry{l, 0})
	deadline := time.Now().Add(200 * time.Millisecond)
	for time.Now().Before(deadline) {
		if len(b.payloads(1)) > 0 {
			t.Fatal("an unknown origin was let in")
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.mu.Lock()
	w.live["a"] = a.ref
	w.mu.Unlock()
	eventually(t, "it is taken", func() bool { return l.count(clusterpb.LinkTaken) == 1 })
}

// The origin of a stale publish must not acknowledge it: it hears that it was not taken.
func TestStaleEpochIsDiscarded(t *testing.T) {
	w, a, b := pair(t, Config{})
	w.mu.Lock()
	w.epochs["c0"], w.epochs["c1"] = 8, 7
	w.mu.Unlock()
	l := newLedger()
	for i := range 3 {
		a.Send(b.ref, frame(i, 1), entry{l, i})
	}
	eventually(t, "all are settled", func() bool {
		return l.count(clusterpb.LinkTaken) == 2 && l.count(clusterpb.LinkNoMember) == 1
	})
	if got := b.payloads(1); !slices.Equal(got, []string{"1", "2"}) || b.dropped[fsm.ReasonStale].Load() != 1 {
		t.Errorf("got %v, %d counted", got, b.dropped[fsm.ReasonStale].Load())
	}
}

// A publisher moves from a to c. What it sends by way of c waits at b until b knows of the move, or
// what is still on its way from a would come after it.
func TestFrameAheadOfTheLogWaits(t *testing.T) {
	w := newWorld(t, Config{}, "a", "b", "c")
	a, b, c := w.nodes["a"], w.nodes["b"], w.nodes["c"]
	before, after := fsm.EpochAt(3, 1), fsm.EpochAt(5, 0)
	w.mu.Lock()
	w.applied, w.epochs["c0"] = 3, before
	w.mu.Unlock()
	l := newLedger()
	for qos := range byte(3) {
		f := frame(0, qos)
		f.Epoch = uint64(after)
		c.Send(b.ref, f, entry{l, int(qos)})
	}
	eventually(t, "b looks at the log again and again", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.looked > 3
	})
	b.mu.Lock()
	early := len(b.got)
	b.mu.Unlock()
	if early > 0 {
		t.Errorf("%d came before b knew of the publisher's connection", early)
	}
	w.mu.Lock()
	w.applied, w.epochs["c0"] = 5, after
	w.mu.Unlock()
	eventually(t, "they are taken", func() bool { return l.count(clusterpb.LinkTaken) == 2 })
	f := frame(3, 1)
	f.ClientID, f.Epoch = "c0", uint64(before)
	a.Send(b.ref, f, entry{l, 3})
	eventually(t, "the late one is stale", func() bool { return l.count(clusterpb.LinkNoMember) == 1 })
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.got) != 3 {
		t.Errorf("%d were delivered, want 3", len(b.got))
	}
}

func TestNoMemberIsReturned(t *testing.T) {
	_, a, b := pair(t, Config{})
	b.noMember = func(f *clusterpb.Frame) bool { return len(f.Shared) > 0 }
	l := newLedger()
	for i := range 100 {
		f := frame(i, 1)
		if i%10 == 0 {
			f.Shared = []clusterpb.SharedPick{{Filter: "t", Group: "g"}}
		}
		a.Send(b.ref, f, entry{l, i})
		if i == 50 {
			b.proxy.cutAll()
		}
	}
	eventually(t, "all are settled", func() bool {
		return l.count(clusterpb.LinkTaken) == 90 && l.count(clusterpb.LinkNoMember) == 10
	})
	l.once(t, 100)
}

func TestLargeFrames(t *testing.T) {
	_, a, b := pair(t, Config{StallAfter: 500 * time.Millisecond})
	l := newLedger()
	payload := bytes.Repeat([]byte("0123456789"), 2<<20)
	for i := range 3 {
		f := frame(i, byte(i))
		f.Payload = payload
		a.Send(b.ref, f, entry{l, i})
	}
	eventually(t, "they are acknowledged", func() bool { return l.count(clusterpb.LinkTaken) == 2 })
	for _, d := range b.got {
		if d.payload != string(payload) {
			t.Errorf("QoS %d: %d bytes", d.qos, len(d.payload))
		}
	}
}
