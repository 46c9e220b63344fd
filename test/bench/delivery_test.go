package bench

import (
	"fmt"
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// few is how many messages leave in one piece.
const few = 50

// flow is one publisher and those who receive from it.
type flow struct {
	publisher   *wire
	subscribers []*wire
	qos         byte
	packets     []byte
}

func newFlow(n *node, topic string, qos byte, subscribers int) *flow {
	f := &flow{publisher: n.dial("publisher"), qos: qos, packets: publishes(topic, qos, few)}
	for i := range subscribers {
		s := n.dial(fmt.Sprint("subscriber", i))
		s.subscribe(topic, qos)
		f.subscribers = append(f.subscribers, s)
	}
	return f
}

// turn sends and receives the few messages, to the last acknowledgement.
func (f *flow) turn() {
	f.publisher.send(f.packets)
	for _, s := range f.subscribers {
		s.want(mqtt.PUBLISH, few)
		if f.qos == 2 {
			s.want(mqtt.PUBREL, few)
		}
	}
	if f.qos > 0 {
		f.publisher.want(last(f.qos), few)
	}
}

// settled is turn until the node has also read what the subscribers acknowledged, or their windows
// fill up while another goroutine has the only processor.
func (f *flow) settled() {
	f.turn()
	for _, s := range f.subscribers {
		s.ping()
	}
}

// allocations is what fn allocates, in all goroutines, when everything that it needs is there. The
// collector would empty the pools, so it does not run meanwhile.
func allocations(t *testing.T, fn func()) float64 {
	t.Helper()
	if raceDetector {
		fn()
		t.Skip("the race detector's pools lose things on purpose")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for range 20 {
		fn()
	}
	return testing.AllocsPerRun(50, fn)
}

// A delivery on the link road allocates nothing.
func TestDeliveryAllocations(t *testing.T) {
	for qos := range byte(3) {
		for _, subscribers := range []int{1, 10} {
			n := newNode(t)
			f := newFlow(n, "a/b", qos, subscribers)
			if got := allocations(t, f.settled); got > 0 {
				t.Errorf("QoS %d, %d subscribers: %.1f allocations for %d messages", qos, subscribers, got, few)
			}
		}
	}
}

// Nor does one to another node.
func TestLinkAllocations(t *testing.T) {
	for qos := range byte(3) {
		n := newNode(t, "b")
		f := newFlow(n, "far/a", qos, 1)
		if got := allocations(t, f.settled); got > 0 {
			t.Errorf("QoS %d: %.1f allocations for %d messages", qos, got, few)
		}
		if n.frames < few {
			t.Fatalf("%d frames", n.frames)
		}
	}
}

// Nor one from another node.
func TestArrivalAllocations(t *testing.T) {
	for qos := range byte(3) {
		n := newNode(t, "b")
		s := n.dial("subscriber")
		s.subscribe("a/b", qos)
		from := fsm.NodeRef{Node: "b", Incarnation: n.self.Incarnation + 1}
		f := &clusterpb.Frame{ClientID: "far", Topic: "a/b", Payload: make([]byte, 100), QoS: qos, Plain: true}
		got := allocations(t, func() {
			for range few {
				if code := n.broker.Deliver(from, f); code != clusterpb.LinkTaken {
					t.Fatal(code)
				}
			}
			s.want(mqtt.PUBLISH, few)
			if qos == 2 {
				s.want(mqtt.PUBREL, few)
			}
			s.ping() // as in settled
		})
		if got > 0 {
			t.Errorf("QoS %d: %.1f allocations for %d messages", qos, got, few)
		}
	}
}

// BenchmarkDelivery is a message from its publisher to its subscribers: the time of one delivery.
func BenchmarkDelivery(b *testing.B) {
	for qos := range byte(3) {
		for _, subscribers := range []int{1, 100} {
			b.Run(fmt.Sprintf("QoS%d/to%d", qos, subscribers), func(b *testing.B) {
				f := newFlow(newNode(b), "a/b", qos, subscribers)
				f.turn()
				b.ReportAllocs()
				b.ResetTimer()
				turns := 0
				for range (b.N + few*subscribers - 1) / (few * subscribers) {
					f.turn()
					turns++
				}
				b.ReportMetric(float64(turns*few*subscribers)/b.Elapsed().Seconds(), "deliveries/s")
			})
		}
	}
}
