package broker_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// drain begins to drain the first node. done tells whether it is over, and with what.
func (w *world) drain(rate int, patience time.Duration) (done func() (bool, error)) {
	var mu sync.Mutex
	over, failed := false, error(nil)
	go func() {
		err := w.one.Broker.Drain(context.Background(), func() int { return rate }, patience)
		mu.Lock()
		defer mu.Unlock()
		over, failed = true, err
	}()
	return func() (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		return over, failed
	}
}

// A draining client gets nothing new, may acknowledge what it has, and is told to move once the log knows
// how far it came. Elsewhere nothing comes twice.
func TestDrain(t *testing.T) {
	cluster(t, 2, func(c *broker.Config) { c.ServerReference = "elsewhere" }, func(w *world) {
		s, p := w.connect(w.one, persistent("s")), w.connect(w.two, clean("p"))
		s.subscribed("t:2")
		p.publish(1, "t", "1")
		p.publish(2, "t", "2")
		s.expect(message("t", 1, "1"), message("t", 2, "2"))
		done := w.drain(0, time.Minute)
		w.ms(20)
		p.publish(1, "t", "3")
		s.expect()
		s.ack(mqtt.PUBACK, 1)
		s.ack(mqtt.PUBREC, 2)
		s.expect("PUBREL 2 00")
		w.one.HoldLog = true
		s.ack(mqtt.PUBCOMP, 2)
		w.ms(50)
		s.expect() // the log does not know yet
		w.one.HoldLog = false
		w.ms(50)
		s.expect("DISCONNECT 9c", "closed")
		s.Leave()
		w.ms(50)
		if over, err := done(); !over || err != nil {
			t.Errorf("drained %v, %v", over, err)
		}
		w.dial(w.two, persistent("s")).expect("CONNACK 00 present", message("t", 1, "3"))
		w.dial(w.one, clean("late")).expect("closed")
	})
}

// A publisher's last messages are answered before it is asked to move; those that come later are left to
// its next node.
func TestDrainOfAPublisher(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		w.connect(w.two, persistent("s")).subscribed("t:1")
		p := w.connect(w.one, persistent("p"))
		w.one.HoldLog = true
		p.publish(1, "t", "1")
		done := w.drain(0, time.Minute)
		w.ms(50)
		p.publish(1, "t", "2")
		p.expect()
		w.one.HoldLog = false
		w.ms(100)
		p.expect("PUBACK 1 00", "DISCONNECT 9c", "closed")
		p.Leave()
		w.ms(50)
		if over, _ := done(); !over {
			t.Error("it goes on")
		}
	})
}

// A client that neither acknowledges nor leaves has its time.
func TestDrainHasAnEnd(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		s, p := w.connect(w.one, persistent("s")), w.connect(w.two, clean("p"))
		s.subscribed("t:1")
		p.publish(1, "t", "1")
		done := w.drain(0, 2*time.Second)
		w.ms(1500)
		s.expect(message("t", 1, "1"))
		w.ms(2500)
		s.expect("DISCONNECT 9c", "closed")
		w.ms(1500)
		if over, _ := done(); !over {
			t.Error("it goes on")
		}
		w.dial(w.two, persistent("s")).expect("CONNACK 00 present", message("t", 1, "1", "dup"))
	})
}

func TestDrainRate(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		var list []*client
		for _, id := range []string{"a", "b", "c", "d"} {
			list = append(list, w.connect(w.one, clean(id)))
		}
		done := w.drain(2, time.Minute) // one each half second
		left := func() (n int) {
			list = slices.DeleteFunc(list, func(c *client) bool {
				if len(c.Got()) == 0 {
					return false
				}
				c.Leave()
				n++
				return true
			})
			return n
		}
		w.ms(100)
		if n := left(); n != 1 {
			t.Errorf("%d clients are asked to leave at first", n)
		}
		w.ms(1000)
		if n := left(); n != 2 {
			t.Errorf("%d clients are asked to leave in a second", n)
		}
		w.ms(1000)
		left()
		w.ms(100)
		if over, _ := done(); !over {
			t.Error("it goes on")
		}
	})
}
