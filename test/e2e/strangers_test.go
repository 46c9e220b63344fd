package e2e

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// 200 strangers send garbage, half a CONNECT, or nothing. Clients beside them have every message, and
// when the strangers have gone the node holds nothing of them.
func testStrangers(t *testing.T, c *h.Cluster) {
	n := c.Node(1)
	ping, pong := clean(t, n, "ping", h.V5), clean(t, n, "pong", h.V311)
	ping.Subscribe(1, "pong")
	pong.Subscribe(1, "ping")
	play := func(p string) {
		t.Helper()
		publishAll(t, ping, "ping", 1, []string{p})
		pong.Receive(1)
		publishAll(t, pong, "pong", 1, pong.Got)
		ping.Receive(1)
		same(t, "a ping", ping.Got, []string{p})
		ping.Got, pong.Got = nil, nil
	}
	// Once for a moment, so that what the node keeps for good is there before it is measured.
	besiege(t, n, 200, 300*time.Millisecond, func() { play("warm") })
	await := func(what string, ok func() bool) { t.Helper(); h.Await(t, what, ok) }
	await("the strangers are gone", func() bool { return n.Metric("skein_connections") == 2 })
	goroutines, memory := n.Metric("go_goroutines"), n.Metric("process_resident_memory_bytes")

	rounds := 0
	besiege(t, n, 200, time.Duration(heavy(3, 60))*time.Second, func() { play("ping"); rounds++ })
	t.Logf("%d rounds of ping and pong beside the strangers", rounds)

	await("no connection is left", func() bool { return n.Metric("skein_connections") == 2 })
	await("no goroutine is left", func() bool { return n.Metric("go_goroutines") <= goroutines+5 })
	const bound = 24 << 20 // garbage of the connections that waits for collection
	after := n.Metric("process_resident_memory_bytes")
	t.Logf("resident: %.1f MiB before, %.1f after", memory/(1<<20), after/(1<<20))
	if after > memory+bound {
		t.Errorf("the node has grown by %.1f MiB", (after-memory)/(1<<20))
	}
	if s := n.Ready(); s != 200 {
		t.Errorf("/readyz: %d", s)
	}
	ping.Disconnect()
	pong.Disconnect()
}

// besiege lets strangers come and come again for a while, and calls beside all the time.
func besiege(t *testing.T, n *h.Node, count int, d time.Duration, beside func()) {
	t.Helper()
	end := time.Now().Add(d)
	var group sync.WaitGroup
	defer group.Wait()
	for i := range count {
		r := rand.New(rand.NewPCG(7, uint64(i)))
		group.Go(func() {
			for time.Now().Before(end) {
				if err := stranger(n.MQTT, r, i%3, end); err != nil {
					t.Errorf("the node takes no connection: %v", err)
					return
				}
			}
		})
	}
	for time.Now().Before(end) {
		beside()
	}
}

// stranger is one connection, which lasts until the node or the time ends it.
func stranger(address string, r *rand.Rand, kind int, end time.Time) error {
	conn, err := net.DialTimeout("tcp", address, h.Patience)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	switch kind {
	case 0:
		b := make([]byte, 1+r.IntN(300))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if r.IntN(2) == 0 {
			b[0] = 0x10
		}
		_, _ = conn.Write(b)
	case 1:
		b := h.Packet{Type: h.CONNECT, ClientID: "half", Clean: true}.Encode(h.V5)
		_, _ = conn.Write(b[:1+r.IntN(len(b)-1)])
	}
	_ = conn.SetReadDeadline(end)
	b := make([]byte, 64)
	for err == nil {
		_, err = conn.Read(b)
	}
	return nil
}
