package broker_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// hits are how often a limit was reached on a node.
func hits(w *world, l broker.Limit) uint64 { return w.one.Broker.Stats().Limits[l] }

// TestSlowedDown: who publishes faster than it may is read at that pace, and loses nothing; its
// keepalive does not run out meanwhile.
func TestSlowedDown(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.MaxMessageRate, c.MaxQueuedMessages = 10, 0 }, func(w *world) {
		s := w.connect(w.one, clean("s"))
		s.subscribed("#:0")
		fast := clean("fast")
		fast.KeepAlive = 1
		p := w.connect(w.one, fast)
		var all []string
		for i := range 50 {
			payload := fmt.Sprintf("%02d", i)
			all = append(all, message("t", 0, payload))
			p.publish(0, "t", payload)
		}
		got := s.Got()
		if n := len(got); n < 10 || n > 20 {
			t.Errorf("%d came at once, with 10 a second", n)
		}
		for range 6 { // it is not read, but it keeps alive
			w.ms(1000)
			p.send(&mqtt.Pingreq{})
		}
		p.Got()
		got = append(got, s.Got()...)
		if !slices.Equal(got, all) {
			t.Errorf("got %d, want %d", len(got), len(all))
		}
		p.publish(1, "t", "still here")
		p.expect("PUBACK 1 00")
		if hits(w, broker.LimitMessageRate) == 0 {
			t.Error("it is not counted")
		}
	})
}

func TestRateDisconnects(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.MaxByteRate, c.RatePolicy = 1000, broker.RateDisconnect }, func(w *world) {
		p := w.connect(w.one, clean("p"))
		for range 3 {
			p.publish(0, "t", fmt.Sprintf("%0300d", 0))
		}
		p.expect()
		p.publish(0, "t", fmt.Sprintf("%0300d", 0))
		p.expect("DISCONNECT 96", "closed")
		if n := hits(w, broker.LimitByteRate); n != 1 {
			t.Errorf("counted %d times", n)
		}
	})
}

func TestConnectRate(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.MaxConnectRate = 3 }, func(w *world) {
		for i := range 3 {
			w.connect(w.one, clean(fmt.Sprint("c", i)))
		}
		w.dial(w.one, clean("d")).expect("CONNACK 9f", "closed")
		if n := hits(w, broker.LimitConnectRate); n != 1 {
			t.Errorf("counted %d times", n)
		}
		w.ms(1500)
		w.connect(w.one, clean("e"))
	})
}

func TestRetainedLimits(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.MaxRetainedMessages, c.MaxRetainedBytes = 2, 20 }, func(w *world) {
		p := w.connect(w.one, clean("p"))
		for _, c := range []struct{ topic, payload, want string }{
			{"a", "1", "10"}, {"b", "2", "10"}, {"c", "3", "97"}, {"a", "replaced", "10"}, {"a", "too large by far, by far", "97"}, {"b", "", "10"}, {"c", "3", "10"},
		} {
			p.retain(1, c.topic, c.payload)
			p.expect(fmt.Sprintf("PUBACK %d %s", p.id, c.want))
		}
		if m, b := hits(w, broker.LimitRetainedMessages), hits(w, broker.LimitRetainedBytes); m != 1 || b != 1 {
			t.Errorf("counted %d and %d times", m, b)
		}
		if w.State().RetainedCount() != 2 {
			t.Error("more than there may be are retained")
		}
	})
}

// TestMemoryPause: while memory is tight publishes wait, acknowledgements and what deletes retained messages do not, and
// nothing is lost.
func TestMemoryPause(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.MaxQueuedMessages = 0 }, func(w *world) {
		s := w.connect(w.one, clean("s"))
		s.subscribed("#:0")
		p, q := w.connect(w.one, clean("p")), w.connect(w.one, clean("q"))
		q.retain(1, "kept", "x")
		q.expect("PUBACK 1 00")
		s.expect(message("kept", 0, "x"))
		w.one.Broker.Tight(true)
		q.retain(1, "kept", "")
		q.expect("PUBACK 2 00")
		s.expect(message("kept", 0, ""))
		var want []string
		for i := range 50 {
			payload := fmt.Sprintf("%02d %03000d", i, 0)
			p.publish(1, "t", payload)
			want = append(want, message("t", 0, payload))
		}
		p.expect()
		s.expect()
		if n := hits(w, broker.LimitMemory); n != 1 { // the rest waits behind the first
			t.Errorf("counted %d times", n)
		}
		w.one.Broker.Tight(false)
		w.ms(300)
		if got := p.Got(); len(got) != 50 {
			t.Errorf("%d acknowledgements: %q", len(got), got)
		}
		if got := s.Got(); !slices.Equal(got, want) {
			t.Errorf("%d messages, want %d", len(got), len(want))
		}
	})
}

// TestMemoryRefuse: who can be told is told, who can't is closed, and QoS 0 is dropped and counted.
func TestMemoryRefuse(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.MemoryPolicy = broker.MemoryRefuse }, func(w *world) {
		s := w.connect(w.one, clean("s"))
		s.subscribed("#:2")
		p := w.connect(w.one, clean("p"))
		o := &client{Conn: w.Dial(w.one), w: w}
		o.Version = mqtt.V311
		o.Send(clean("old"))
		o.expect("CONNACK 00")
		w.one.Broker.Tight(true)
		for qos := byte(0); qos <= 2; qos++ {
			p.publish(qos, "t", "x")
		}
		p.expect("PUBACK 1 97", "PUBREC 2 97")
		o.publish(0, "t", "x")
		o.expect()
		o.publish(1, "t", "x")
		o.expect("closed")
		s.expect()
		if n := hits(w, broker.LimitMemory); n != 5 {
			t.Errorf("counted %d times", n)
		}
		if n := w.one.Broker.Stats().Dropped[fsm.ReasonNotAllowed]; n != 4 {
			t.Errorf("%d are counted as dropped", n)
		}
		w.one.Broker.Tight(false)
		p.publish(1, "t", "y")
		p.expect("PUBACK 3 00")
		s.expect(message("t", 1, "y"))
	})
}
