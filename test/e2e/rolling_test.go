package e2e

import (
	"fmt"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// All three nodes are restarted, one after the other, as an upgrade does it, under persistent
// sessions that go on elsewhere: nothing is lost and, because they are let go in order, nothing comes
// twice at QoS 1 either.
func testRolling(t *testing.T, c *h.Cluster) {
	tr := newTraffic(t, c)
	var flows []*flow
	var readers []*reader
	for i, n := range c.Nodes {
		for qos := byte(1); qos <= 2; qos++ {
			v := []byte{h.V311, h.V5}[(i+int(qos))%2]
			name := fmt.Sprintf("rolling-%d-%d", i+1, qos)
			f := newFlow(name, qos)
			flows = append(flows, f)
			readers = append(readers, tr.subscribe(f, c.Nodes[(i+1)%3], h.NewSession(t, name+"-sub", v)))
			tr.publish(f, n, h.NewSession(t, name+"-pub", v))
		}
	}
	for range heavy(1, 2) {
		for _, n := range c.Nodes {
			n.Stop()
			n.Start()
			n.WaitReady()
			flows[0].more(t, heavy(50, 300))
		}
	}
	tr.end()
	for _, r := range readers {
		r.once(t)
		r.Disconnect()
	}
}

// A fourth node joins, serves, is drained and removed while others go on: a publisher, a persistent
// subscriber that moves to it, and a clean one that stays where it is.
func testFourth(t *testing.T, c *h.Cluster) {
	tr := newTraffic(t, c)
	first := newFlow("fourth/stays", 2)
	moving := tr.subscribe(first, c.Node(1), h.NewSession(t, "fourth-moving", h.V5))
	cleanSession := h.NewSession(t, "fourth-clean", h.V311)
	cleanSession.Clean = true
	staying := tr.subscribe(first, c.Node(2), cleanSession)
	tr.publish(first, c.Node(3), h.NewSession(t, "fourth-pub", h.V311))
	first.more(t, 50)

	fourth := c.Add()
	tr.use(c.Nodes)
	moving.move <- fourth
	second := newFlow("fourth/through", 1)
	readers := []*reader{moving, staying, tr.subscribe(second, fourth, h.NewSession(t, "fourth-there", h.V311))}
	tr.publish(second, fourth, h.NewSession(t, "fourth-there-pub", h.V5))
	second.more(t, heavy(100, 1000))

	tr.use(c.Nodes[:3])
	if out, err := fourth.Skein("drain", fourth.ID); err != nil {
		t.Fatalf("drain: %v: %s", err, out)
	}
	second.more(t, 50)
	fourth.Stop()
	if out, err := c.Node(1).Skein("remove", "node", fourth.ID); err != nil {
		t.Fatalf("remove: %v: %s", err, out)
	}
	c.Forget(fourth)
	first.more(t, 50)
	tr.end()
	for _, r := range readers {
		r.once(t)
		r.Disconnect()
	}
}
