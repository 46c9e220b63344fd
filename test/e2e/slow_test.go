package e2e

import (
	"errors"
	"strings"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

const dropsOfSlowReaders = `skein_messages_dropped_total{reason="slow_reader"}`

// A subscriber at QoS 0 stops reading. Others, on its node too, have every message; its node holds no
// more than its bounds allow; and what it does not get is counted.
func testSlowReader(t *testing.T, c *h.Cluster) {
	at := c.Node(2)
	slow := clean(t, at, "slow", h.V5)
	slow.Subscribe(0, "slow")
	brisk := clean(t, at, "brisk", h.V5)
	brisk.Subscribe(1, "slow")
	before, memory := at.Metric(dropsOfSlowReaders), at.Metric("process_resident_memory_bytes")
	slow.Deafen()

	pub := clean(t, c.Node(1), "slow-pub", h.V5)
	const size = 64 << 10
	body := strings.Repeat("x", size-5)
	count := heavy(40, 200) << 20 / size
	list := payloads(count)
	highest := memory
	for i, p := range list {
		if err := pub.Publish("slow", p+body, 1); err != nil {
			t.Fatal(err)
		}
		for len(brisk.Got) < i-64 { // it reads along, so that it is never the slow one
			brisk.Receive(len(brisk.Got) + 1)
		}
		if i%256 == 255 {
			highest = max(highest, at.Metric("process_resident_memory_bytes"))
		}
	}
	if err := pub.Flush(); err != nil {
		t.Fatal(err)
	}
	brisk.Receive(count)
	for i := range brisk.Got {
		brisk.Got[i] = brisk.Got[i][:5]
	}
	same(t, "the others", brisk.Got, list)
	const bound = 96 << 20 // max_buffered_bytes is 4 MiB; the rest is garbage that waits for collection
	t.Logf("resident: %.0f MiB before, %.0f at most", memory/(1<<20), highest/(1<<20))
	if highest > memory+bound {
		t.Errorf("the node grew by %.0f MiB", (highest-memory)/(1<<20))
	}

	slow.Listen()
	read := 0
	for {
		p, err := slow.Next(quiet)
		if errors.Is(err, h.ErrQuiet) {
			break
		}
		if err != nil {
			t.Fatalf("the slow one: %v", err)
		}
		if p.Type == h.PUBLISH {
			read++
		}
	}
	slow.Ping()
	dropped := at.Metric(dropsOfSlowReaders) - before
	t.Logf("of %d messages the slow one has %d, %v are counted as dropped", count, read, dropped)
	if dropped == 0 || read+int(dropped) != count {
		t.Errorf("of %d messages the slow one has %d, %v are counted as dropped", count, read, dropped)
	}
	slow.Disconnect()
	brisk.Disconnect()
	pub.Disconnect()
}
