package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// A node takes nothing from the links: what it is sent at QoS 0 is dropped beyond cluster.link_buffer,
// and counted.
func TestLinkBuffer(t *testing.T) {
	beside(t)
	const dropped = `skein_messages_dropped_total{reason="link"}`
	c := h.Start(t, 2, append([]string{"--set", "cluster.link_buffer=64KiB", "--set", "cluster.grace=60s"}, flags...)...)
	sub := clean(t, c.Node(2), "sub", h.V5)
	sub.Subscribe(0, "full")
	pub := clean(t, c.Node(1), "pub", h.V311)
	c.Node(2).Pause()
	body := strings.Repeat("x", 4096)
	h.Await(t, "drops are counted", func() bool {
		for range 100 {
			pub.MustSend(h.Packet{Type: h.PUBLISH, Topic: "full", Payload: body})
		}
		return c.Node(1).Metric(dropped) > 0
	})
	c.Node(2).Resume()
}

// one starts a node with settings, and hit tells how often a limit has been reached since.
func one(t *testing.T, settings ...string) (n *h.Node, hit func(key string) float64) {
	list := flags[:len(flags):len(flags)]
	for _, s := range settings {
		list = append(list, "--set", s)
	}
	n = h.Start(t, 1, list...).Node(1)
	return n, func(key string) float64 { return n.Metric(`skein_limit_hits_total{limit="` + key + `"}`) }
}

// counted fails unless metrics have these values.
func counted(t *testing.T, n *h.Node, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		h.Await(t, fmt.Sprintf("%s is %v", name, v), func() bool { return n.Metric(name) == v })
	}
}

func limit(key string) string { return `skein_limit_hits_total{limit="` + key + `"}` }

// The limits of connections: from one address, and how fast they come.
func TestLimitsOfConnections(t *testing.T) {
	beside(t)
	n, _ := one(t, "mqtt.max_connections_per_address=2")
	first, _ := n.MustConnect(h.V5, h.Packet{ClientID: "first", Clean: true})
	n.MustConnect(h.V311, h.Packet{ClientID: "second", Clean: true})
	third := n.MustDial(h.V5)
	if p := third.ExpectClosed(); p != nil {
		t.Errorf("a third connection from one address got %v", p)
	}
	counted(t, n, map[string]float64{limit("mqtt.max_connections_per_address"): 1, "skein_connections_refused_total": 1})
	first.Disconnect()
	counted(t, n, map[string]float64{"skein_connections": 1})
	n.MustConnect(h.V5, h.Packet{ClientID: "third", Clean: true})

	n, hit := one(t, "mqtt.max_connect_rate=3")
	seen := make(map[byte]byte) // by version
	h.Await(t, "each version is told", func() bool {
		for _, v := range []byte{h.V5, h.V311} {
			c, ack, err := n.Connect(v, h.Packet{ClientID: "a", Clean: true})
			if err != nil {
				t.Fatal(err)
			}
			if ack.Code != 0 {
				seen[v] = ack.Code
			}
			c.Close()
		}
		return len(seen) == 2
	})
	if seen[h.V5] != 0x9F || seen[h.V311] != 3 {
		t.Errorf("too many CONNECTs: %x", seen)
	}
	if got := n.Metric("skein_connections_refused_total"); got < 2 || hit("mqtt.max_connect_rate") != got {
		t.Errorf("%v were refused, %v for their rate", got, hit("mqtt.max_connect_rate"))
	}
}

// What a client may send in a second: it is slowed down, or sent away.
func TestLimitsOfRates(t *testing.T) {
	beside(t)
	for key, body := range map[string]string{"mqtt.max_message_rate": "x", "mqtt.max_byte_rate": strings.Repeat("x", 1000)} {
		limits := map[string]string{"mqtt.max_message_rate": "20", "mqtt.max_byte_rate": "20000"}
		n, hit := one(t, key+"="+limits[key])
		c, _ := n.MustConnect(h.V5, h.Packet{ClientID: "fast", Clean: true})
		for i := range uint16(50) {
			c.MustSend(h.Packet{Type: h.PUBLISH, Topic: "t", QoS: 1, ID: i + 1, Payload: body})
		}
		for i := range uint16(50) {
			if p := c.Expect(h.PUBACK); p.ID != i+1 {
				t.Errorf("%s: %v, want that of %d", key, p, i+1)
			}
		}
		if hit(key) == 0 {
			t.Errorf("%s is not counted", key)
		}

		n, hit = one(t, key+"="+limits[key], "mqtt.rate_policy=disconnect")
		c, _ = n.MustConnect(h.V5, h.Packet{ClientID: "fast", Clean: true})
		for range 200 {
			if c.Send(h.Packet{Type: h.PUBLISH, Topic: "t", Payload: body}) != nil {
				break
			}
		}
		if p := c.ExpectClosed(); p == nil || p.Type != h.DISCONNECT || p.Code != 0x96 {
			t.Errorf("%s: %v", key, p)
		}
		if hit(key) == 0 {
			t.Errorf("%s is not counted", key)
		}
	}
}

// What may be retained, by number and by size.
func TestLimitsOfRetained(t *testing.T) {
	beside(t)
	n, _ := one(t, "mqtt.max_retained_messages=2", "mqtt.max_retained_bytes=100")
	c, _ := n.MustConnect(h.V5, h.Packet{ClientID: "p", Clean: true})
	sub, _ := n.MustConnect(h.V5, h.Packet{ClientID: "s", Clean: true})
	sub.Subscribe(1, "#")
	for i, p := range []struct {
		topic, payload string
		qos, code      byte
	}{
		{"a", "1", 1, 0},
		{"b", "2", 2, 0},
		{"c", "3", 1, 0x97},
		{"c", "4", 2, 0x97},
		{"a", strings.Repeat("x", 200), 1, 0x97},
		{"a", "another", 1, 0},
		{"b", "", 1, 0},
		{"c", "5", 1, 0},
	} {
		id := uint16(i + 1)
		c.MustSend(h.Packet{Type: h.PUBLISH, Topic: p.topic, Payload: p.payload, QoS: p.qos, ID: id, Retain: true})
		answer := h.PUBACK
		if p.qos == 2 {
			answer = h.PUBREC
		}
		if got := c.Expect(answer); got.ID != id || got.Code != p.code {
			t.Errorf("%s at QoS %d: %v, want 0x%02x", p.topic, p.qos, got, p.code)
		}
		if p.code != 0 {
			continue // it is not passed on, which the next one shows
		}
		if got := sub.Expect(h.PUBLISH); got.Topic != p.topic || got.Payload != p.payload {
			t.Errorf("%v, want %s %q", got, p.topic, p.payload)
		}
	}
	counted(t, n, map[string]float64{
		limit("mqtt.max_retained_messages"): 2, limit("mqtt.max_retained_bytes"): 1,
		`skein_messages_dropped_total{reason="not_allowed"}`: 3, "skein_cluster_retained_messages": 2,
	})
}

// Who fails to log in too often is banned for a while.
func TestLimitOfFailures(t *testing.T) {
	beside(t)
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n, _ := one(t, "auth.password_file="+users, "auth.max_failures=3", "auth.failure_delay=1ms")
	for i, try := range []struct{ version, want byte }{
		{h.V5, 0x86}, {h.V311, 4}, {h.V5, 0x86}, // as often as it may
		{h.V5, 0x8A}, {h.V311, 5},
	} {
		_, ack, err := n.Connect(try.version, h.Packet{ClientID: "x", Clean: true, Username: "nobody", Password: "wrong"})
		if err != nil || ack.Code != try.want {
			t.Errorf("login %d, version %s: %v %v, want 0x%02x", i+1, version(try.version), ack, err, try.want)
		}
	}
	counted(t, n, map[string]float64{"skein_auth_banned_total": 2, "skein_auth_bans_total": 1})
}
