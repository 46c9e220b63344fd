package e2e

import (
	"fmt"
	"slices"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// TestThreeNodes runs on one cluster, healed between its parts.
func TestThreeNodes(t *testing.T) {
	beside(t)
	c := h.Start(t, 3, flags...)
	parts(t, c, []part{
		{"order", testOrder},
		{"barrier", testBarrier},
		{"takeover", testTakeover},
		{"wills", testWills},
		{"offline", testOffline},
		{"leader killed", testLeaderKilled},
		{"holder killed", testHolderKilled},
		{"cut points", testCutPoints},
		{"zombie", testZombie},
		{"minority", testMinority},
		{"retained", testRetained},
		{"membership", testMembership},
	})
}

type part struct {
	name string
	test func(*testing.T, *h.Cluster)
}

// parts runs tests on one cluster, healed between them.
func parts(t *testing.T, c *h.Cluster, list []part) {
	for _, p := range list {
		t.Run(p.name, func(t *testing.T) {
			c.In(t)
			p.test(t, c)
		})
	}
}

// Subscribed on one node, published on another: each message once, in order.
func testOrder(t *testing.T, c *h.Cluster) {
	whole := payloads(heavy(300, 10000))
	for _, v := range []byte{h.V31, h.V311, h.V5} {
		for qos := range byte(3) {
			for _, persistent := range []bool{false, true} {
				list := whole
				if v == h.V31 {
					list = list[:len(list)/10]
				}
				name := fmt.Sprintf("order-%d-%d-%v", v, qos, persistent)
				connect := clean
				if persistent {
					connect = stored
				}
				sub := connect(t, c.Node(1), name[:min(len(name), 20)]+"s", v)
				sub.Subscribe(qos, name)
				pub := clean(t, c.Node(3), name[:min(len(name), 20)]+"p", v)
				pub.Window = 100
				publishAll(t, pub, name, qos, list)
				sub.Receive(len(list))
				same(t, name, sub.Got, list)
				pub.Disconnect()
				sub.MustSend(h.Packet{Type: h.UNSUBSCRIBE, ID: 5, Filters: []h.Filter{{Name: name}}})
				sub.Await(h.UNSUBACK)
				sub.Disconnect()
			}
		}
	}
}

// After SUBACK nothing that any node accepts is missed.
func testBarrier(t *testing.T, c *h.Cluster) {
	pubs := []*h.Session{clean(t, c.Node(2), "barrier-2", h.V5), clean(t, c.Node(3), "barrier-3", h.V5)}
	for i := range heavy(100, 1000) {
		connect := clean
		if i%2 == 1 {
			connect = stored
		}
		topic := fmt.Sprintf("barrier/%d", i)
		sub := connect(t, c.Node(1), fmt.Sprintf("barrier-sub%d", i), h.V5)
		sub.Subscribe(1, topic)
		for _, pub := range pubs {
			publishAll(t, pub, topic, 1, []string{pub.ID})
		}
		sub.Receive(len(pubs))
		slices.Sort(sub.Got)
		same(t, topic, sub.Got, []string{"barrier-2", "barrier-3"})
		sub.MustSend(h.Packet{Type: h.DISCONNECT, Props: []h.Property{{ID: h.SessionExpiry, Num: 0}}})
		sub.Close()
	}
}

// One client id on two nodes: the newer connection wins and the older one is told.
func testTakeover(t *testing.T, c *h.Cluster) {
	for _, persistent := range []bool{false, true} {
		for _, v := range []byte{h.V311, h.V5} {
			id := fmt.Sprintf("taken-%v-%d", persistent, v)
			connect := clean
			if persistent {
				connect = stored
			}
			older := connect(t, c.Node(1), id, v)
			newer := connect(t, c.Node(2), id, v)
			p := older.ExpectClosed()
			if v == h.V5 && (p == nil || p.Code != 0x8E) {
				t.Errorf("%s: %v instead of DISCONNECT 0x8E", id, p)
			}
			newer.Ping()
			newer.Disconnect()
		}
	}
}

// Retained messages are everywhere, survive the death of all nodes, and go when they are removed.
func testRetained(t *testing.T, c *h.Cluster) {
	pub := clean(t, c.Node(1), "ret-pub", h.V5)
	retain := func(on *h.Session, topic, payload string) {
		on.MustSend(h.Packet{Type: h.PUBLISH, Topic: topic, Payload: payload, QoS: 1, ID: 77, Retain: true})
		on.Await(h.PUBACK)
	}
	find := func(id, filter string, want ...string) {
		t.Helper()
		for i, n := range c.Nodes {
			h.Await(t, fmt.Sprintf("%s has %d messages for %s", n.ID, len(want), filter), func() bool {
				s := clean(t, n, fmt.Sprintf("%s-%d", id, i), h.V5)
				defer s.Disconnect()
				s.Subscribe(1, filter)
				s.Quiet(quiet / 3)
				slices.Sort(s.Got)
				return slices.Equal(s.Got, want)
			})
		}
	}
	retain(pub, "ret/a", "one")
	retain(pub, "ret/b", "two")
	find("ret1", "ret/+", "one", "two")
	pub.Close()
	c.Each((*h.Node).Kill)
	c.Heal()
	find("ret2", "ret/+", "one", "two")
	pub = clean(t, c.Node(2), "ret-pub", h.V311)
	retain(pub, "ret/a", "")
	find("ret3", "ret/+", "two")
	pub.Disconnect()
}
