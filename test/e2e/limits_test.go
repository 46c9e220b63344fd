package e2e

import (
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
