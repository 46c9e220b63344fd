package e2e

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// abreast runs fn for 0 to count-1, so many at a time, and reports how many fail, and why the first do.
func abreast(t *testing.T, what string, count, at int, fn func(i int) error) {
	t.Helper()
	var (
		group  sync.WaitGroup
		failed atomic.Int64
	)
	slots := make(chan struct{}, at)
	for i := range count {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := fn(i); err != nil && failed.Add(1) <= 3 {
				t.Errorf("%s %d: %v", what, i, err)
			}
		})
	}
	group.Wait()
	if n := failed.Load(); n > 3 {
		t.Errorf("%s: %d of %d failed", what, n, count)
	}
}

// next takes the next packet, which must be of that type and with that code.
func next(c *h.Client, packetType, code byte) error {
	p, err := c.Next(h.Patience)
	if err != nil {
		return err
	}
	if p.Type != packetType || p.Code != code {
		return fmt.Errorf("unexpected %s", p)
	}
	return nil
}

// admitted connects and wants success.
func admitted(n *h.Node, v byte, p h.Packet) (*h.Client, error) {
	c, ack, err := n.Connect(v, p)
	if err == nil && ack.Code != 0 {
		err = fmt.Errorf("%s: %s", p.ClientID, ack)
	}
	return c, err
}

// Many clients are taken over on another node at once; each older connection hears why it ends.
func testCrowdTakenOver(t *testing.T, c *h.Cluster) {
	count := heavy(100, 1000)
	connect := func(i int) h.Packet {
		p := h.Packet{ClientID: fmt.Sprintf("crowd-%d", i), Clean: i%2 == 0}
		if !p.Clean {
			p.Props = []h.Property{{ID: h.SessionExpiry, Num: 60}}
		}
		return p
	}
	older := make([]*h.Client, count)
	newer := make([]*h.Client, count)
	abreast(t, "connect", count, 50, func(i int) (err error) {
		older[i], err = admitted(c.Nodes[i%3], h.V5, connect(i))
		return err
	})
	if t.Failed() {
		return
	}
	abreast(t, "take over", count, 50, func(i int) (err error) {
		newer[i], err = admitted(c.Nodes[(i+1)%3], h.V5, connect(i))
		return err
	})
	abreast(t, "taken over", count, 50, func(i int) error {
		if err := next(older[i], h.DISCONNECT, 0x8E); err != nil {
			return err
		}
		if p, err := older[i].Next(h.Patience); err == nil || errors.Is(err, h.ErrQuiet) {
			return fmt.Errorf("%s instead of the end of the connection", p)
		}
		older[i].Close()
		if newer[i] == nil {
			return errors.New("it has no newer connection")
		}
		if err := newer[i].Send(h.Packet{Type: h.PINGREQ}); err != nil {
			return err
		}
		defer newer[i].Disconnect()
		return next(newer[i], h.PINGRESP, 0)
	})
}

// Two clients that know nothing of each other fight for one id. Whoever has it gets the messages, and
// none is lost between them.
func testFight(t *testing.T, c *h.Cluster) {
	seed := stored(t, c.Node(1), "fight", h.V5)
	seed.Subscribe(1, "fight")
	stop := make(chan struct{})
	rivals := make([]*h.Session, 2)
	rounds := make([]int, len(rivals))
	var group sync.WaitGroup
	for i := range rivals {
		s := h.NewSession(t, "fight", h.V5)
		rivals[i] = s
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				client, ack, err := c.Nodes[i].Connect(s.Version, s.ConnectPacket())
				if err != nil || ack.Code != 0 {
					continue // the other one was faster
				}
				if !ack.SessionPresent {
					t.Error("the session is gone")
				}
				s.Client = client
				rounds[i]++
				for err == nil {
					select {
					case <-stop:
						err = errors.New("over")
					default:
						if err = s.Pump(func() bool { return true }); err == nil {
							err = pumpFor(s, quiet/3)
						}
					}
				}
				s.Close()
			}
		})
	}
	pub := clean(t, c.Node(3), "fight-pub", h.V5)
	var list []string
	for end := time.Now().Add(time.Duration(heavy(2, 15)) * time.Second); time.Now().Before(end); {
		p := fmt.Sprintf("%06d", len(list))
		list = append(list, p)
		publishAll(t, pub, "fight", 1, []string{p})
	}
	close(stop)
	group.Wait()
	last := h.NewSession(t, "fight", h.V5)
	last.Resume(c.Node(3))
	publishAll(t, pub, "fight", 1, []string{"over"})
	if err := last.Pump(func() bool { return len(last.Got) > 0 && last.Got[len(last.Got)-1] == "over" }); err != nil {
		t.Fatalf("after the fight: %v", err)
	}
	seen := make(map[string]bool)
	for _, s := range []*h.Session{seed, rivals[0], rivals[1], last} {
		for _, p := range s.Got {
			seen[p] = true
		}
	}
	missing := 0
	for _, p := range list {
		if !seen[p] {
			missing++
		}
	}
	t.Logf("%d messages, %v connections", len(list), rounds)
	if missing > 0 {
		t.Errorf("%d of %d messages reached nobody", missing, len(list))
	}
	last.Disconnect()
	pub.Disconnect()
}

// pumpFor handles what arrives for a while.
func pumpFor(s *h.Session, d time.Duration) error {
	p, err := s.Next(d)
	if errors.Is(err, h.ErrQuiet) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.Handle(p)
}

// Very many clients connect at once: all get in.
func testBurst(t *testing.T, c *h.Cluster) {
	count := heavy(500, 10000)
	clients := make([]*h.Client, count)
	begin := time.Now()
	abreast(t, "connect", count, 500, func(i int) error {
		p := h.Packet{ClientID: fmt.Sprintf("burst-%d", i), Clean: i%10 != 0, KeepAlive: 60}
		if !p.Clean {
			p.Props = []h.Property{{ID: h.SessionExpiry, Num: 30}}
		}
		var err error
		for deadline := time.Now().Add(h.Patience); time.Now().Before(deadline); { // a full backlog drops a SYN
			if clients[i], err = admitted(c.Nodes[i%3], h.V5, p); err == nil {
				return nil
			}
		}
		return err
	})
	t.Logf("%d clients after %v", count, time.Since(begin).Round(time.Millisecond))
	if t.Failed() {
		return
	}
	connected := 0.0
	c.Each(func(n *h.Node) { connected += n.Metric("skein_connections") })
	if int(connected) < count {
		t.Errorf("the nodes count %v connections, want %d", connected, count)
	}
	abreast(t, "ping", count, 50, func(i int) error {
		defer clients[i].Disconnect()
		if err := clients[i].Send(h.Packet{Type: h.PINGREQ}); err != nil {
			return err
		}
		return next(clients[i], h.PINGRESP, 0)
	})
}

// What becomes of the will of a connection that is taken over: it is sent, unless the session goes
// on before the will's delay has passed.
func testWillsTakenOver(t *testing.T, c *h.Cluster) {
	watch := clean(t, c.Node(3), "over-watch", h.V5)
	watch.Subscribe(1, "over/#")
	for _, x := range []struct {
		id    string
		v     byte
		delay uint32
		clean bool // the client that has the will
		fresh bool // the one that takes over starts clean
		want  bool
	}{
		{id: "v3", v: h.V311, want: true},
		{id: "v3-clean", v: h.V311, clean: true, fresh: true, want: true},
		{id: "at-once", v: h.V5, want: true},
		{id: "clean", v: h.V5, clean: true, fresh: true, want: true},
		{id: "goes-on", v: h.V5, delay: 2},
		{id: "starts-anew", v: h.V5, delay: 60, fresh: true, want: true},
	} {
		old := h.NewSession(t, "over-"+x.id, x.v)
		old.Clean = x.clean
		old.Will = &h.Will{Topic: "over/" + x.id, Payload: x.id, QoS: 1}
		if x.delay > 0 {
			old.Will.Props = []h.Property{{ID: h.WillDelay, Num: x.delay}}
		}
		old.Connect(c.Node(1))
		heir := h.NewSession(t, old.ID, x.v)
		heir.Clean = x.fresh
		heir.Connect(c.Node(2))
		old.ExpectClosed()
		if x.want {
			watch.Receive(1)
			same(t, x.id, watch.Got, []string{x.id})
			watch.Got = nil
		}
		heir.Disconnect()
	}
	watch.Quiet(2500 * time.Millisecond) // the delay of the one that went on
	same(t, "no other will", watch.Got, nil)
	watch.Disconnect()
}
