package e2e

import (
	"fmt"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// The node that holds both ends of a QoS 2 stream is killed in the middle of it; both go on
// elsewhere, several times.
func testHolderKilled(t *testing.T, c *h.Cluster) {
	rounds := heavy(2, 4)
	each := heavy(200, 1500)
	list := payloads(each * rounds)
	at := c.Node(1)
	sub := stored(t, at, "holder-sub", h.V5)
	sub.Subscribe(2, "holder")
	pub := stored(t, at, "holder-pub", h.V5)
	for r := range rounds {
		next := c.Nodes[(r+1)%len(c.Nodes)]
		for i, p := range list[r*each : (r+1)*each] {
			if i == each/2 {
				at.Kill()
			}
			if err := pub.Publish("holder", p, 2); err != nil {
				pub.Resume(next)
				sub.Resume(next)
			}
		}
		if err := pub.Flush(); err != nil {
			t.Fatalf("round %d: %v", r, err)
		}
		sub.Receive((r + 1) * each)
		same(t, fmt.Sprintf("round %d", r), sub.Got, list[:(r+1)*each])
		c.Heal()
		at = next
	}
	sub.Quiet(quiet)
	same(t, "in all", sub.Got, list)
	sub.Disconnect()
	pub.Disconnect()
}
