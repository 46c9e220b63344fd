package e2e

import (
	"fmt"
	"slices"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// mounts are a node's listeners: two with a mount point, and one that shows everything.
type mounts struct {
	t             *testing.T
	node          *h.Node
	one, two, all *h.Node
}

func startMounts(t *testing.T) *mounts {
	t.Helper()
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", h.FreePort(t)) }
	one, two := address(), address()
	n := h.Start(t, 1, append(flags[:len(flags):len(flags)],
		"--listen", "tcp://"+one+"?mount_point=site/one/", "--listen", "tcp://"+two+"?mount_point=site/two")...).Node(1)
	return &mounts{t, n, h.At(t, one, n.HTTP), h.At(t, two, n.HTTP), n}
}

// heard are the topics of the messages that came, until a mark that is published last.
func (m *mounts) heard(c *h.Client, mark string) (topics []string) {
	m.t.Helper()
	for {
		p := c.Await(h.PUBLISH)
		if p.QoS == 1 {
			c.MustSend(h.Packet{Type: h.PUBACK, ID: p.ID})
		}
		if p.Payload == mark {
			return topics
		}
		topics = append(topics, p.Topic)
	}
}

func (m *mounts) code(c *h.Client, topic string) byte {
	m.t.Helper()
	c.MustSend(h.Packet{Type: h.PUBLISH, Topic: topic, Payload: "x", QoS: 1, ID: 9})
	return c.Await(h.PUBACK).Code
}

// TestMountPoint: a listener's clients see what is below its mount point, under their own names for it, and nothing else.
func TestMountPoint(t *testing.T) {
	beside(t)
	m := startMounts(t)
	for _, v := range []byte{h.V31, h.V311, h.V5} {
		t.Run(version(v), func(t *testing.T) {
			m := &mounts{t, m.node, m.one, m.two, m.all}
			join := func(n *h.Node, id string, p h.Packet, filters ...string) *h.Client {
				p.ClientID, p.Clean = id+version(v), true
				c, _ := n.MustConnect(v, p)
				if len(filters) > 0 {
					c.Subscribe(1, filters...)
				}
				return c
			}
			aliases := h.Packet{}
			if v == h.V5 {
				aliases.Props = []h.Property{{ID: h.TopicAliasMax, Num: 10}}
			}
			own, all, other := join(m.one, "own", h.Packet{}, "#"), join(m.all, "all", h.Packet{}, "site/#"), join(m.two, "other", h.Packet{}, "#")
			short := join(m.one, "short", aliases, "a/+", "mark")
			pub := join(m.one, "pub", h.Packet{Will: &h.Will{Topic: "will", Payload: "w", QoS: 1}})
			outside := join(m.all, "outside", h.Packet{})
			for i, p := range []struct {
				from  *h.Client
				topic string
			}{{pub, "a/b"}, {pub, "a/b"}, {outside, "a/b"}, {outside, "site/one"}, {outside, "site/one/"}, {outside, "site/one/$a"}, {outside, "site/one/a/c"}} {
				p.from.MustSend(h.Packet{Type: h.PUBLISH, Topic: p.topic, Payload: "x", QoS: byte(i % 2), ID: 1})
				p.from.Ping()
			}
			pub.Close() // its will is published
			h.Await(t, "the will", func() bool {
				p, err := all.Next(h.Patience)
				if err == nil && p.QoS == 1 {
					all.MustSend(h.Packet{Type: h.PUBACK, ID: p.ID})
				}
				return err == nil && p.Topic == "site/one/will"
			})
			for _, site := range []string{"one", "two"} {
				outside.MustSend(h.Packet{Type: h.PUBLISH, Topic: "site/" + site + "/mark", Payload: "end", QoS: 1, ID: 2})
			}
			same(t, "below one", m.heard(own, "end"), []string{"a/b", "a/b", "a/c", "will"})
			same(t, "below two", m.heard(other, "end"), nil)
			want := []string{"a/b", "a/b", "a/c"}
			if v == h.V5 { // the second time it is an alias
				want[1] = ""
			}
			same(t, "a filter below one", m.heard(short, "end"), want)

			// Retained, $SYS, $share, UNSUBSCRIBE.
			outside.MustSend(h.Packet{Type: h.PUBLISH, Topic: "site/one/kept", Payload: "kept", Retain: true, QoS: 1, ID: 3})
			outside.Await(h.PUBACK)
			late := join(m.one, "late", h.Packet{}, "kept")
			if p := late.Await(h.PUBLISH); p.Topic != "kept" || !p.Retain {
				t.Errorf("retained: %s", p)
			}
			late.MustSend(h.Packet{Type: h.UNSUBSCRIBE, ID: 5, Filters: []h.Filter{{Name: "kept"}}})
			late.Await(h.UNSUBACK)
			refused := byte(0x80)
			if v == h.V5 {
				refused = 0x87
			}
			late.MustSend(h.Packet{Type: h.SUBSCRIBE, ID: 6, Filters: []h.Filter{{Name: "$SYS/#"}, {Name: "$share/g/$SYS/#"}, {Name: "$share/g/s/#", Options: 1}}})
			if ack := late.Await(h.SUBACK); !slices.Equal(ack.Codes, []byte{refused, refused, 1}) {
				t.Errorf("SUBACK %x", ack.Codes)
			}
			peer := join(m.all, "peer", h.Packet{}, "$share/g/site/one/s/#") // of the same group
			for range 20 {
				outside.MustSend(h.Packet{Type: h.PUBLISH, Topic: "site/one/s/1", Payload: "x"})
			}
			outside.MustSend(h.Packet{Type: h.PUBLISH, Topic: "site/one/kept", Payload: "changed", Retain: true, QoS: 1, ID: 4})
			outside.Await(h.PUBACK)
			for range 10 {
				if a, b := late.Await(h.PUBLISH), peer.Await(h.PUBLISH); a.Topic != "s/1" || b.Topic != "site/one/s/1" {
					t.Errorf("a group's message: %s, %s", a, b)
				}
			}
			late.Ping()
			late.ExpectNothing(quiet)
			for _, topic := range []string{"$SYS/x", "$x"} {
				if code := m.code(late, topic); v == h.V5 && code != 0x87 {
					t.Errorf("publish to %s: %#02x", topic, code)
				}
			}
			if _, ack, err := m.one.Connect(v, h.Packet{ClientID: "w" + version(v), Clean: true, Will: &h.Will{Topic: "$x"}}); err == nil && ack.Code == 0 {
				t.Error("a will in $")
			}
			outside.MustSend(h.Packet{Type: h.PUBLISH, Topic: "site/one/kept", Retain: true, QoS: 1, ID: 4})
			outside.Await(h.PUBACK)
			for _, c := range []*h.Client{own, all, other, short, late, peer, outside} {
				c.Close()
			}
		})
	}
}

// TestMountPointAndSession: a persistent session keeps what it has subscribed to when its next connection comes through another
// listener, which shows it what lies below its own mount point.
func TestMountPointAndSession(t *testing.T) {
	beside(t)
	m := startMounts(t)
	out := clean(t, m.all, "out", h.V5)
	s := stored(t, m.one, "s", h.V5)
	s.Subscribe(1, "q/#")
	s.Close()
	through := func(n *h.Node, payload string, want ...string) {
		t.Helper()
		publishAll(t, out, "site/one/q/1", 1, []string{payload})
		s.Resume(n)
		publishAll(t, out, "site/one/q/1", 1, []string{payload + " live"})
		for _, topic := range want {
			p := s.Await(h.PUBLISH)
			if p.Topic != topic {
				t.Errorf("%s instead of %s", p, topic)
			}
			s.MustSend(h.Packet{Type: h.PUBACK, ID: p.ID})
		}
		s.Ping()
		s.ExpectNothing(quiet)
		s.Close()
	}
	through(m.all, "everything", "site/one/q/1", "site/one/q/1")
	through(m.one, "its own", "q/1", "q/1")
	dropped := func() float64 { return m.node.Metric(`skein_messages_dropped_total{reason="not_allowed"}`) }
	before := dropped()
	through(m.two, "another's") // nothing
	h.Await(t, "two are counted", func() bool { return dropped() == before+2 })
	through(m.one, "its own again", "q/1", "q/1")
}
