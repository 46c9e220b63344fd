package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// A session is queued for while it is away, its node dies, and another node has all of it.
func testOffline(t *testing.T, c *h.Cluster) {
	list := payloads(heavy(400, 1000))
	sub := stored(t, c.Node(1), "offline", h.V5)
	sub.Subscribe(2, "offline/1", "offline/2")
	sub.Disconnect()
	pub := clean(t, c.Node(2), "offline-pub", h.V5)
	publishAll(t, pub, "offline/1", 1, list)
	publishAll(t, pub, "offline/2", 2, list)
	pub.Disconnect()
	c.Node(1).Kill()
	sub.Resume(c.Node(3))
	sub.Receive(2 * len(list))
	sub.Quiet(quiet)
	same(t, "QoS 1 then QoS 2", sub.Got, append(list[:len(list):len(list)], list...))
	sub.Disconnect()
}

// The same while the leader dies in the middle: what was acknowledged is there.
func testLeaderKilled(t *testing.T, c *h.Cluster) {
	leader := c.Leader()
	at := c.Follower()
	list := payloads(heavy(500, 5000))
	for qos := byte(1); qos <= 2; qos++ {
		topic := fmt.Sprintf("leader/%d", qos)
		sub := stored(t, at, fmt.Sprintf("leader-sub%d", qos), h.V311)
		sub.Subscribe(qos, topic)
		sub.Disconnect()
	}
	pub := stored(t, at, "leader-pub", h.V311)
	for i, p := range list {
		if i == len(list)/2 {
			leader.Kill()
		}
		for qos := byte(1); qos <= 2; qos++ {
			if err := pub.Publish(fmt.Sprintf("leader/%d", qos), p, qos); err != nil {
				pub.Resume(at) // the node may have let its clients go while there was no leader
			}
		}
	}
	for pub.Flush() != nil {
		pub.Resume(at)
	}
	for qos := byte(1); qos <= 2; qos++ {
		sub := h.NewSession(t, fmt.Sprintf("leader-sub%d", qos), h.V311)
		sub.Resume(at)
		sub.Receive(len(list))
		sub.Quiet(quiet)
		got := sub.Got
		if qos == 1 {
			got = firsts(got)
		}
		same(t, fmt.Sprintf("QoS %d", qos), got, list)
		sub.Disconnect()
	}
	pub.Disconnect()
}

// Wills of a killed node's clients come once, after their delay; those of clients that moved away
// or said goodbye never do.
func testWills(t *testing.T, c *h.Cluster) {
	victim := c.Follower()
	other := c.Follower(victim)
	watch := clean(t, other, "will-watch", h.V5)
	watch.Subscribe(1, "will/#")
	will := func(id string, delay uint32) *h.Session {
		s := h.NewSession(t, id, h.V5)
		s.Will = &h.Will{Topic: "will/" + id, Payload: id, QoS: 1}
		if delay > 0 {
			s.Will.Props = []h.Property{{ID: h.WillDelay, Num: delay}}
		}
		s.Connect(victim)
		return s
	}
	will("at-once", 0)
	will("later", 4)
	moved := will("moved", 3)
	left := will("left", 0)
	left.MustSend(h.Packet{Type: h.DISCONNECT})
	left.ExpectClosed()
	// What the node proposes later is committed later: the goodbye is in the log after this.
	publishAll(t, moved, "elsewhere", 2, []string{"x"})
	victim.Kill()
	killed := time.Now()
	moved.Will = nil
	moved.Resume(other)
	watch.Receive(1)
	watch.Receive(2)
	if d := time.Since(killed); d < 4*time.Second {
		t.Errorf("a will with a delay of 4 s came after %v", d)
	}
	watch.Quiet(time.Second)
	same(t, "wills", watch.Got, []string{"at-once", "later"})
	watch.Disconnect()
	moved.Disconnect()
}

// A node that was stopped and comes back must not acknowledge what waited in its sockets.
func testZombie(t *testing.T, c *h.Cluster) {
	zombie := c.Follower()
	other := c.Follower(zombie)
	watch := clean(t, other, "zombie-watch", h.V5)
	watch.Subscribe(1, "zombie")
	old := stored(t, zombie, "zombie", h.V5)
	fresh := clean(t, zombie, "zombie-clean", h.V5)
	zombie.Pause()
	for _, s := range []*h.Session{old, fresh} {
		s.MustSend(h.Packet{Type: h.PUBLISH, Topic: "zombie", Payload: "from the grave", QoS: 1, ID: 1})
	}
	newer := h.NewSession(t, "zombie", h.V5)
	newer.Resume(other)
	publishAll(t, newer, "zombie", 1, []string{"alive"})
	c.Await("the verdict", func() bool {
		for _, m := range c.Members() {
			if m.GetId() == zombie.ID {
				return m.GetState() == "down"
			}
		}
		return false
	})
	zombie.Resume()
	unacknowledged(t, old, "a dead incarnation")
	unacknowledged(t, fresh, "a dead incarnation")
	watch.Quiet(quiet)
	same(t, "what was delivered", watch.Got, []string{"alive"})
	zombie.WaitReady()
	newer.Ping()
	newer.Disconnect()
	watch.Disconnect()
}

// unacknowledged wants the connection to be closed without a PUBACK before.
func unacknowledged(t *testing.T, s *h.Session, who string) {
	t.Helper()
	for {
		p, err := s.Next(h.Patience)
		if errors.Is(err, h.ErrQuiet) {
			t.Errorf("%s: %s keeps the connection", s.ID, who)
		}
		if err != nil {
			return
		}
		if p.Type == h.PUBACK && p.Code < 0x80 {
			t.Errorf("%s: %s acknowledged a PUBLISH", s.ID, who)
		}
	}
}

// One of three: it takes nobody in, acknowledges nothing, says so, and recovers.
func testMinority(t *testing.T, c *h.Cluster) {
	last := c.Node(2)
	sub := stored(t, last, "minority-sub", h.V311)
	sub.Subscribe(1, "minority")
	pub := stored(t, last, "minority-pub", h.V5)
	publishAll(t, pub, "minority", 1, []string{"before"})
	c.Node(1).Kill()
	c.Node(3).Kill()
	// A persistent session matches: without a majority there is no PUBACK, lease or not.
	if err := pub.Publish("minority", "during", 1); err != nil {
		t.Fatal(err)
	}
	unacknowledged(t, pub, "a minority")
	last.WaitUnready()
	for v, want := range map[byte]byte{h.V311: 3, h.V5: 0x88} {
		_, ack, err := last.Connect(v, h.Packet{ClientID: fmt.Sprint("minority-", v), Clean: true})
		if err != nil || ack.Code != want {
			t.Errorf("CONNECT %s: %s %v, want %#02x", version(v), ack, err, want)
		}
	}
	if n := last.Metric("skein_connections_refused_total"); n < 2 {
		t.Errorf("skein_connections_refused_total is %v", n)
	}
	c.Heal()
	sub.Close()
	pub.Resume(last) // sends "during" again
	if err := pub.Flush(); err != nil {
		t.Fatal(err)
	}
	sub.Resume(c.Node(1))
	sub.Receive(2)
	sub.Quiet(quiet)
	same(t, "after recovery", firsts(sub.Got), []string{"before", "during"})
	sub.Disconnect()
	pub.Disconnect()
}

// A fourth node joins, serves, is drained and removed; a wiped one comes back as a new member.
func testMembership(t *testing.T, c *h.Cluster) {
	fourth := c.Add()
	sub := stored(t, fourth, "member-sub", h.V5)
	sub.Subscribe(1, "member")
	pub := clean(t, c.Node(1), "member-pub", h.V5)
	list := payloads(100)
	publishAll(t, pub, "member", 1, list)
	sub.Receive(len(list))
	same(t, "through the fourth node", sub.Got, list)
	drained := make(chan error, 1)
	go func() {
		out, err := fourth.Skein("drain", fourth.ID)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		drained <- err
	}()
	if p := sub.ExpectClosed(); p == nil || p.Code != 0x9C {
		t.Errorf("%v instead of DISCONNECT 0x9C", p)
	}
	if err := <-drained; err != nil {
		t.Fatalf("drain: %v", err)
	}
	publishAll(t, pub, "member", 1, []string{"moved"})
	sub.Got = nil
	sub.Resume(c.Node(2))
	sub.Receive(1)
	sub.Quiet(quiet)
	same(t, "after the drain", sub.Got, []string{"moved"})
	fourth.Stop()
	if out, err := c.Node(1).Skein("remove", "node", fourth.ID); err != nil {
		t.Fatalf("remove: %v: %s", err, out)
	}
	c.Forget(fourth)
	c.Await("the removed node is off the list", func() bool {
		for _, m := range c.Members() {
			if m.GetId() == fourth.ID {
				return false
			}
		}
		return true
	})
	sub.Disconnect()

	wiped := c.Node(3)
	wiped.Kill()
	wiped.Wipe()
	wiped.Start()
	wiped.WaitReady()
	sub.Got = nil
	sub.Resume(wiped)
	publishAll(t, pub, "member", 1, []string{"new disk"})
	sub.Receive(1)
	same(t, "through the wiped node", sub.Got, []string{"new disk"})
	sub.Disconnect()
	pub.Disconnect()
}
