package broker_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// order runs something that waits for the log.
func order(w *world, fn func()) {
	var group sync.WaitGroup
	group.Go(fn)
	w.Settle()
	w.Run()
	group.Wait()
}

func TestOperatorsOrders(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		s := w.connect(w.two, persistent("s"))
		s.subscribed("t:1")
		order(w, func() {
			if matched, err := w.one.Broker.Publish(context.Background(), "t", []byte("x"), 1, false); !matched || err != nil {
				t.Errorf("matched %v, %v", matched, err)
			}
		})
		s.expect(message("t", 1, "x"))
		if w.one.Broker.Disconnect("s") || !w.two.Broker.Disconnect("s") {
			t.Error("the wrong node has disconnected it")
		}
		s.expect("DISCONNECT 98", "closed")
		s = w.connect(w.two, persistent("s"))
		s.Got()
		order(w, func() {
			if err := w.one.Broker.DeleteSession(context.Background(), "s"); err != nil {
				t.Error(err)
			}
		})
		s.expect("DISCONNECT 98", "closed")
		order(w, func() {
			if err := w.one.Broker.DeleteSession(context.Background(), "s"); err != broker.ErrUnknownClient {
				t.Errorf("a second deletion says %v", err)
			}
		})
	})
}

func TestOperatorsReads(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		c := w.connect(w.one, clean("c"))
		c.subscribed("t/#:1")
		c.publish(1, "t/1", "x")
		n := 0
		w.one.Broker.Clients(func(i broker.ClientInfo) bool {
			if n++; i.ID != "c" || i.Persistent || i.Subscriptions != 1 || i.Inflight != 1 || i.MessagesIn != 1 || i.MessagesOut != 1 {
				t.Errorf("%+v", i)
			}
			return true
		})
		w.one.Broker.CleanSubscriptions(func(id string, s fsm.Subscription) bool {
			if n++; id != "c" || s.Filter != "t/#" {
				t.Errorf("%s: %+v", id, s)
			}
			return true
		})
		s := w.one.Broker.Stats()
		if n != 2 || s.Received != [3]uint64{0, 1} || s.Sent != [3]uint64{0, 1} || s.Connects != 1 || s.Subscriptions != 1 {
			t.Errorf("%d rows, %+v", n, s)
		}
	})
}

func TestSysTopics(t *testing.T) {
	cluster(t, 2, func(c *broker.Config) { c.SysInterval = time.Second }, func(w *world) {
		k, s := w.connect(w.one, clean("k")), w.connect(w.one, persistent("s"))
		for _, c := range []*client{k, s} {
			c.subscribe("$SYS/broker/clients/connected:1", "$SYS/broker/node:0")
			got := c.Got()
			mustHold(w.T, got, message("$SYS/broker/node", 0, c.Node().ID, "retain"))
		}
		w.ms(1500)
		mustHold(w.T, k.Got(), message("$SYS/broker/clients/connected", 0, "2"))
		mustHold(w.T, s.Got(), message("$SYS/broker/clients/connected", 0, "2"))
		if w.State().RetainedCount() != 0 {
			t.Error("they are in the log")
		}
		w.ms(2500)
		if got := k.Got(); len(got) != 0 {
			t.Errorf("nothing has changed, and there comes %q", got)
		}
	})
}

func TestKeepalive(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.MaxKeepalive = 10 }, func(w *world) {
		p := clean("c")
		p.KeepAlive = 4
		c := w.connect(w.one, p)
		w.ms(5000)
		c.send(&mqtt.Pingreq{})
		w.ms(5000)
		c.expect("PINGRESP")
		w.ms(2000)
		c.expect("DISCONNECT 8d", "closed")
		silent := w.connect(w.one, clean("silent")) // it is told 10 seconds
		w.ms(16_000)
		silent.expect("DISCONNECT 8d", "closed")
		if n := w.one.Broker.Stats().Timeouts; n != 2 {
			t.Errorf("%d time-outs are counted, want 2", n)
		}
	})
}
