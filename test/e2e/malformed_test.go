package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// 10,000 connections break the protocol, each in one of many ways: instead of CONNECT, in it, or after it,
// some with a session, a will or a subscription. The node closes every one, and holds nothing of them.
func testMalformed(t *testing.T, c *h.Cluster) {
	n := c.Node(1)
	count := heavy(1000, 10_000)
	abreast(t, "malformed", count/10, 50, func(i int) error { return malformed(n.MQTT, i) }) // what is kept for good is there
	h.Await(t, "they are gone", func() bool { return n.Metric("skein_connections") == 0 })
	watched := []string{"go_goroutines", "process_open_fds", "process_resident_memory_bytes", "skein_cluster_clean_clients", "skein_cluster_interests"}
	before := make(map[string]float64)
	for _, name := range watched {
		before[name] = n.Metric(name)
	}
	refused := n.Metric("skein_protocol_errors_total") + n.Metric("skein_connections_refused_total")

	abreast(t, "malformed", count, 50, func(i int) error { return malformed(n.MQTT, i) })
	h.Await(t, "no connection is left", func() bool { return n.Metric("skein_connections") == 0 })
	if got := n.Metric("skein_protocol_errors_total") + n.Metric("skein_connections_refused_total") - refused; int(got) != count {
		t.Errorf("%v of %d are counted", got, count)
	}
	for name, slack := range map[string]float64{"go_goroutines": 5, "process_open_fds": 5, "skein_cluster_clean_clients": 0, "skein_cluster_interests": 0} {
		h.Await(t, "nothing is left in "+name, func() bool { return n.Metric(name) <= before[name]+slack })
	}
	const memory, bound = "process_resident_memory_bytes", 24 << 20 // garbage that waits for collection
	after := n.Metric(memory)
	t.Logf("%d connections: resident %.1f MiB before, %.1f after; %v goroutines before, %v after", count,
		before[memory]/(1<<20), after/(1<<20), before["go_goroutines"], n.Metric("go_goroutines"))
	if after > before[memory]+bound {
		t.Errorf("the node has grown by %.1f MiB", (after-before[memory])/(1<<20))
	}
	if s := n.Ready(); s != 200 {
		t.Errorf("/readyz: %d", s)
	}
}

// breaches are what no client may send, after its CONNECT.
var breaches = [][]byte{
	{0x00, 0x00},
	{0x10, 0x00},
	{0x20, 0x02, 0, 0},
	{0x30, 0x00},
	{0x30, 0x02, 0, 0},
	{0x31, 0x05, 0, 3, 'a', '/', '#'},
	{0x36, 0x06, 0, 1, 'a', 0, 1, 0},
	{0x32, 0x06, 0, 1, 'a', 0, 0, 0},
	{0x30, 0x04, 0, 2, 0xC0, 0x80},
	{0x40, 0x01, 0},
	{0x41, 0x02, 0, 1},
	{0x60, 0x02, 0, 1},
	{0x70, 0x00},
	{0x80, 0x06, 0, 1, 0, 0, 1, 'a'},
	{0x82, 0x03, 0, 1, 0},
	{0x82, 0x08, 0, 1, 0, 0, 2, 'a', '+', 0},
	{0x82, 0x07, 0, 1, 0, 0, 1, 'a', 3},
	{0xA0, 0x02, 0, 1},
	{0xA2, 0x03, 0, 1, 0},
	{0xC1, 0x00},
	{0xC0, 0x01, 0},
	{0xD0, 0x00},
	{0xE1, 0x00},
	{0xF0, 0x01, 0x19},
	{0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01},
	{0xC0, 0x80, 0x00},
	{0x30, 0xFF, 0xFF, 0xFF, 0x7F},
}

// malformed is one connection; it returns when the node has closed it.
func malformed(address string, i int) error {
	conn, err := net.DialTimeout("tcp", address, h.Patience)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	r := rand.New(rand.NewPCG(11, uint64(i)))
	p := h.Packet{Type: h.CONNECT, ClientID: fmt.Sprint("malformed-", i), Clean: true}
	version := []byte{h.V31, h.V311, h.V5}[i%3]
	if r.IntN(3) == 0 {
		p.Will = &h.Will{Topic: "malformed/will", Payload: "w", QoS: byte(r.IntN(3))}
	}
	b := p.Encode(version)
	switch r.IntN(4) {
	case 0: // instead of CONNECT
		b = breaches[1+r.IntN(len(breaches)-1)]
	case 1: // in it: the flags, the name, the level, or less than it says
		b = append([]byte(nil), b...)
		switch r.IntN(3) {
		case 0:
			b[len(b)-1] = 0 // U+0000 in the client id or the will
			b[4] = 'X'
		case 1:
			b[5+b[3]] |= 1 // behind the name and the level: the reserved flag
		default:
			b = append(b, 0)
			b[1]++
		}
	case 2: // after a subscription
		s := h.Packet{Type: h.SUBSCRIBE, ID: 1, Filters: []h.Filter{{Name: fmt.Sprint("malformed/", i), Options: 1}}}
		b = append(append(b, s.Encode(version)...), breaches[r.IntN(len(breaches))]...)
	default:
		b = append(b, breaches[r.IntN(len(breaches))]...)
	}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	return drained(conn)
}

// drained reads until the other side has closed.
func drained(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(h.Patience)); err != nil {
		return err
	}
	b := make([]byte, 512)
	for {
		if _, err := conn.Read(b); err != nil {
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				return fmt.Errorf("it is not closed: %w", err)
			}
			return nil
		}
	}
}
