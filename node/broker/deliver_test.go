package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// reader is a client with a small socket, which it does not read until Got.
func (w *world) reader(p *mqtt.Connect) *client {
	c := &client{Conn: w.DialRoom(w.one, 1000), w: w}
	c.Send(p)
	c.expect("CONNACK 00")
	return c
}

// At QoS 0 a client that does not read loses messages, counted; nobody else does.
func TestSlowReader(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.MaxBufferedBytes = 8 << 10 }, func(w *world) {
		slow, quick, p := w.reader(clean("slow")), w.connect(w.one, clean("quick")), w.connect(w.one, clean("p"))
		slow.subscribed("t:0")
		quick.subscribed("t:0")
		const n = 50
		got := 0
		for i := range n {
			p.publish(0, "t", fmt.Sprint(i, strings.Repeat("x", 500)))
			got += len(quick.Got())
		}
		lost := w.one.Broker.Losses("slow")[fsm.ReasonSlowReader]
		if got != n || lost == 0 {
			t.Errorf("quick got %d of %d, slow lost %d", got, n, lost)
		}
		came := 0
		for range 100 {
			w.Run()
			came += len(slow.Got())
			w.Sleep(1)
		}
		for k := slow.drain(); k > 0; k = slow.drain() {
			came += k
		}
		if uint64(came)+lost != n {
			t.Errorf("slow got %d and lost %d of %d", came, lost, n)
		}
	})
}

// drain reads until nothing comes.
func (c *client) drain() (n int) {
	for {
		c.turn()
		k := len(c.Got())
		if k == 0 {
			return n
		}
		n += k
	}
}

// turn gives the node a turn to write what it has room for.
func (c *client) turn() { c.w.Run(); c.w.Settle() }

// At QoS 1 what waits for a slow reader waits in its queue, and goes on when it reads.
func TestOutboxGoesOn(t *testing.T) {
	for name, connect := range map[string]*mqtt.Connect{"persistent": persistent("s"), "clean": clean("s")} {
		t.Run(name, func(t *testing.T) {
			cluster(t, 1, func(c *broker.Config) { c.MaxInflight = 1000 }, func(w *world) {
				s, p := w.reader(connect), w.connect(w.one, clean("p"))
				s.subscribed("t:1")
				const n = 60
				for range n {
					p.publish(1, "t", strings.Repeat("x", 10<<10))
				}
				if got := len(p.Got()); got != n {
					t.Fatalf("%d of %d are acknowledged", got, n)
				}
				got := 0
				for range 2000 { // the socket takes 1,000 bytes at a time
					s.turn()
					if got += len(s.Got()); got == n {
						break
					}
				}
				if got != n {
					t.Errorf("%d of %d arrived", got, n)
				}
			})
		})
	}
}

func TestTooLarge(t *testing.T) {
	cluster(t, 1, nil, func(w *world) {
		p := w.connect(w.one, clean("p"))
		for _, c := range []*mqtt.Connect{persistent("s"), clean("k")} {
			c.HasMaxPacketSize, c.MaxPacketSize = true, 100
			s := w.connect(w.one, c)
			s.subscribed("t:1")
			big := strings.Repeat("x", 200)
			p.publish(0, "t", big)
			p.publish(1, "t", big)
			p.publish(1, "t", "small")
			w.ms(300)
			s.expect(message("t", 1, "small"))
			if n := w.one.Broker.Losses(c.ClientID)[fsm.ReasonTooLarge]; n != 2 {
				t.Errorf("%s: %d are too large, want 2", c.ClientID, n)
			}
			s.Cut()
			w.Run()
		}
	})
}

// The window is the smaller of the client's Receive Maximum and mqtt.max_inflight.
func TestWindow(t *testing.T) {
	for name, connect := range map[string]*mqtt.Connect{"persistent": persistent("s"), "clean": clean("s")} {
		t.Run(name, func(t *testing.T) {
			cluster(t, 1, nil, func(w *world) {
				connect.HasReceiveMaximum, connect.ReceiveMaximum = true, 2
				s, p := w.connect(w.one, connect), w.connect(w.one, clean("p"))
				s.subscribed("t:2")
				for i := range 4 {
					p.publish(byte(1+i%2), "t", fmt.Sprint(i))
				}
				s.expect(message("t", 1, "0"), message("t", 2, "1"))
				s.ack(mqtt.PUBACK, 1)
				s.expect(message("t", 1, "2"))
				s.ack(mqtt.PUBREC, 2)
				s.expect("PUBREL 2 00") // it counts until PUBCOMP
				s.ack(mqtt.PUBCOMP, 2)
				s.expect(message("t", 2, "3"))
			})
		})
	}
}

// PUBREL of a persistent session leaves when the log knows of the PUBREC.
func TestPubrelWaitsForTheLog(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		s, p := w.connect(w.one, persistent("s")), w.connect(w.two, clean("p"))
		s.subscribed("t:2")
		p.publish(2, "t", "x")
		s.expect(message("t", 2, "x"))
		w.one.HoldLog = true
		s.ack(mqtt.PUBREC, 1)
		s.expect()
		w.one.HoldLog = false
		s.expect("PUBREL 1 00")
		w.one.Kill()
		w.Verdict(w.one)
		again := w.dial(w.two, persistent("s"))
		again.expect("CONNACK 00 present", "PUBREL 1 00")
		again.ack(mqtt.PUBCOMP, 1)
		w.ms(300)
		if i, _ := w.State().Session("s"); i.Cursor != 1 || i.Queue != 0 {
			t.Errorf("the cursor is at %d with %d queued", i.Cursor, i.Queue)
		}
	})
}

// On another node after a death: DUP for what was possibly sent, in order, before anything new.
func TestResume(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		s, p := w.connect(w.one, persistent("s")), w.connect(w.two, clean("p"))
		s.subscribed("t:1")
		p.publish(1, "t", "1")
		p.publish(1, "t", "2")
		s.expect(message("t", 1, "1"), message("t", 1, "2"))
		s.ack(mqtt.PUBACK, 1)
		w.ms(300)
		w.one.Kill()
		w.Verdict(w.one)
		p.publish(1, "t", "3")
		again := w.dial(w.two, persistent("s"))
		again.expect("CONNACK 00 present", message("t", 1, "2", "dup"), message("t", 1, "3"))
	})
}

// After a goodbye nothing counts as sent that was not.
func TestResumeAfterGoodbye(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		c := persistent("s")
		c.HasReceiveMaximum, c.ReceiveMaximum = true, 1
		s, p := w.connect(w.one, c), w.connect(w.two, clean("p"))
		s.subscribed("t:1")
		p.publish(1, "t", "1")
		p.publish(1, "t", "2")
		s.expect(message("t", 1, "1"))
		s.send(&mqtt.Disconnect{})
		again := w.dial(w.two, persistent("s"))
		again.expect("CONNACK 00 present", message("t", 1, "1", "dup"), message("t", 1, "2"))
	})
}

func TestMessageExpiry(t *testing.T) {
	cluster(t, 2, nil, func(w *world) {
		s, p := w.connect(w.one, persistent("s")), w.connect(w.two, clean("p"))
		s.subscribed("t:1")
		s.send(&mqtt.Disconnect{})
		for _, seconds := range []uint32{1, 100} {
			m := p.publication(1, "t", fmt.Sprint(seconds))
			m.HasExpiry, m.Expiry = true, seconds
			p.send(m)
		}
		w.ms(2000)
		again := w.dial(w.two, persistent("s"))
		packets, _ := again.Receive()
		if m, ok := packets[len(packets)-1].(*mqtt.Publish); len(packets) != 2 || !ok || m.Expiry != 98 {
			t.Errorf("got %d packets, the last %+v", len(packets), packets[len(packets)-1])
		}
	})
}
