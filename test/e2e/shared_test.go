package e2e

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// member is a member of a shared group that works in a goroutine of its own.
type member struct {
	*h.Session
	stop chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	have []string // a copy of what the session got
}

func join(s *h.Session, n *h.Node, filter string, qos byte) *member {
	s.Connect(n)
	s.Subscribe(qos, filter)
	m := &member{Session: s}
	m.work()
	return m
}

// work handles what arrives until the connection ends or rest is called.
func (m *member) work() {
	m.stop = make(chan struct{})
	m.done.Go(func() {
		for {
			select {
			case <-m.stop:
				return
			default:
			}
			p, err := m.Next(quiet / 3)
			if errors.Is(err, h.ErrQuiet) {
				continue
			}
			if err == nil {
				err = m.Handle(p)
			}
			m.mu.Lock()
			m.have = slices.Clone(m.Got)
			m.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
}

// rest ends work.
func (m *member) rest() {
	close(m.stop)
	m.done.Wait()
}

// endAll ends the members' sessions for good.
func endAll(members []*member) {
	for _, m := range members {
		close(m.stop)
	}
	for _, m := range members {
		m.done.Wait()
		_ = m.Send(h.Packet{Type: h.DISCONNECT, Props: []h.Property{{ID: h.SessionExpiry, Num: 0}}})
		m.Close()
	}
}

// total are the messages of all members, sorted.
func total(members []*member) []string {
	var all []string
	for _, m := range members {
		m.mu.Lock()
		all = append(all, m.have...)
		m.mu.Unlock()
	}
	slices.Sort(all)
	return all
}

// settle waits until the members have the whole list between them, and a little longer.
func settle(t *testing.T, members []*member, list []string) {
	t.Helper()
	h.Await(t, "all messages reach a member", func() bool { return len(slices.Compact(total(members))) == len(list) })
	members[0].rest() // the others work on meanwhile
	members[0].Quiet(quiet / 3)
	members[0].work()
}

// Clean and persistent members on all nodes, on both roads: each message goes to one of them, and
// all get some.
func testShared(t *testing.T, c *h.Cluster) {
	for _, kind := range []string{"clean", "persistent", "mixed"} {
		for qos := range byte(3) {
			topic := fmt.Sprintf("shared/%s/%d", kind, qos)
			var members []*member
			for i, n := range c.Nodes {
				for _, connect := range []string{"clean", "persistent"} {
					if kind != "mixed" && kind != connect {
						continue
					}
					s := h.NewSession(t, fmt.Sprintf("%s-%s-%d", topic, connect, i), h.V5)
					s.Clean = connect == "clean"
					members = append(members, join(s, n, "$share/g/"+topic, qos))
				}
			}
			pub := clean(t, c.Node(1), topic+"-pub", h.V5)
			list := payloads(heavy(120, 1000))
			publishAll(t, pub, topic, qos, list)
			settle(t, members, list)
			same(t, topic, total(members), list)
			endAll(members)
			for _, m := range members {
				if len(m.Got) == 0 {
					t.Errorf("%s has no message", m.ID)
				}
			}
			pub.Disconnect()
		}
	}
}

// The node of a persistent member is killed while messages come; the member goes on elsewhere, later.
// Nothing is lost, and at QoS 2 no message comes to two members.
func testSharedKilled(t *testing.T, c *h.Cluster) {
	victim := c.Follower()
	var others []*h.Node
	for _, n := range c.Nodes {
		if n != victim {
			others = append(others, n)
		}
	}
	for qos := byte(1); qos <= 2; qos++ {
		topic := fmt.Sprintf("shared-killed/%d", qos)
		filter := "$share/g/" + topic
		session := func(name string) *h.Session { return h.NewSession(t, topic+"-"+name, h.V5) }
		cleanMember := session("clean")
		cleanMember.Clean = true
		members := []*member{
			join(session("victim"), victim, filter, qos), join(session("a"), others[0], filter, qos),
			join(session("b"), others[1], filter, qos), join(cleanMember, others[1], filter, qos),
		}
		pub := stored(t, others[0], topic+"-pub", h.V5)
		list := payloads(heavy(400, 1500))
		for i, p := range list {
			if i == len(list)/2 {
				victim.Kill()
			}
			if err := pub.Publish(topic, p, qos); err != nil {
				pub.Resume(others[0])
			}
		}
		for pub.Flush() != nil {
			pub.Resume(others[0])
		}
		members[0].rest()
		members[0].Resume(others[1])
		members[0].work()
		settle(t, members, list)
		got := total(members)
		if qos == 1 {
			got = slices.Compact(got)
		}
		same(t, topic, got, list)
		endAll(members)
		pub.Disconnect()
		c.Heal()
	}
}

// A member goes without having acknowledged anything: what it had at QoS 1 goes to the other one.
func testSharedHandedOn(t *testing.T, c *h.Cluster) {
	victim := c.Follower()
	other := c.Follower(victim)
	for _, x := range []struct {
		name         string
		clean, stays bool // the one that goes, the one that stays
		end          func(*h.Session)
	}{
		{"a clean member closes", true, true, func(s *h.Session) { s.Close() }},
		{"a clean member closes beside a persistent one", true, false, func(s *h.Session) { s.Close() }},
		{"a persistent member ends its session", false, false, func(s *h.Session) {
			s.MustSend(h.Packet{Type: h.DISCONNECT, Props: []h.Property{{ID: h.SessionExpiry, Num: 0}}})
		}},
		{"the node of a clean member dies", true, false, func(*h.Session) { victim.Kill() }},
	} {
		topic := "handed/" + x.name
		stays := h.NewSession(t, topic+"-stays", h.V5)
		stays.Clean = x.stays
		staying := join(stays, other, "$share/g/"+topic, 1)
		goes := h.NewSession(t, topic+"-goes", h.V5)
		goes.Clean = x.clean
		goes.Connect(victim)
		goes.Subscribe(1, "$share/g/"+topic)
		pub := clean(t, other, topic+"-pub", h.V5)
		list := payloads(40)
		publishAll(t, pub, topic, 1, list)
		goes.Await(h.PUBLISH)
		x.end(goes)
		settle(t, []*member{staying}, list)
		same(t, x.name, total([]*member{staying}), list)
		endAll([]*member{staying})
		pub.Disconnect()
	}
}
