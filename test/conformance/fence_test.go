package conformance

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// fence is a client on each node by which a transcript knows that the nodes have told each other
// what they had to: messages keep their order on the way between two nodes, in the log and beside it.
type fence struct {
	topic   string
	roads   []string
	clients []*h.Client
	nodes   []*h.Node
	round   int
}

func newFence(t testing.TB, file string, nodes []*h.Node) *fence {
	t.Helper()
	f := &fence{topic: "$fence/" + file, nodes: nodes, roads: []string{"link", "log"}}
	for i, n := range nodes {
		c, p, err := n.Connect(h.V5, h.Packet{ClientID: fmt.Sprintf("fence-%s-%d", file, i), Clean: true})
		if err != nil || p.Code != 0 {
			t.Fatalf("fence: %v %v", p, err)
		}
		if available, ok := p.Number(0x25); ok && available == 0 { // the way through the log is a retained message's
			f.roads = f.roads[:1]
		}
		f.clients = append(f.clients, c)
	}
	for _, c := range f.clients {
		p := h.Packet{Type: h.SUBSCRIBE, ID: 1, Filters: []h.Filter{{Name: f.topic, Options: 2 << 4}}}
		if err := c.Send(p); err != nil {
			t.Fatalf("fence: %v", err)
		}
		if ack, err := c.Next(patience); err != nil || ack.Type != h.SUBACK || ack.Codes[0] != 0 {
			t.Fatalf("fence: %v %v", ack, err)
		}
	}
	return f
}

// pass sends a message from each node to all nodes, once beside the log and once through it, and
// returns when all have arrived.
func (f *fence) pass(t testing.TB) {
	t.Helper()
	f.round++
	for i, c := range f.clients {
		for _, road := range f.roads {
			p := h.Packet{Type: h.PUBLISH, Topic: f.topic, Payload: fmt.Sprintf("%d %d %s", f.round, i, road), Retain: road == "log"}
			if err := c.Send(p); err != nil {
				t.Fatalf("fence: %v", err)
			}
		}
	}
	round := fmt.Sprintf("%d ", f.round)
	for _, c := range f.clients {
		for left := len(f.roads) * len(f.clients); left > 0; {
			p, err := c.Next(patience)
			if err != nil {
				t.Fatalf("fence: %d messages of round %d are missing: %v", left, f.round, err)
			}
			if p.Type == h.PUBLISH && strings.HasPrefix(p.Payload, round) {
				left--
			}
		}
	}
}

// wipe removes sessions and retained messages.
func (f *fence) wipe(t testing.TB, sessions, retained map[string]bool) {
	t.Helper()
	var group sync.WaitGroup
	for id := range sessions {
		group.Go(func() {
			c, p, err := f.nodes[0].Connect(h.V5, h.Packet{ClientID: id, Clean: true})
			if err != nil || p.Code != 0 {
				t.Errorf("end session %s: %v %v", id, p, err)
				return
			}
			_ = c.Send(h.Packet{Type: h.DISCONNECT})
			if err := ended(c); err != nil {
				t.Errorf("end session %s: %v", id, err)
			}
		})
	}
	group.Wait()
	if len(f.roads) == 1 { // nothing is retained
		retained = nil
	}
	for topic := range retained {
		if err := f.clients[0].Send(h.Packet{Type: h.PUBLISH, Topic: topic, Retain: true}); err != nil {
			t.Fatalf("fence: %v", err)
		}
	}
	if len(sessions)+len(retained) > 0 {
		f.pass(t)
	}
}

// ended waits until the node has closed a connection.
func ended(c *h.Client) error {
	for deadline := time.Now().Add(patience); ; {
		if _, err := c.Next(time.Until(deadline)); err != nil {
			if time.Now().After(deadline) {
				return err
			}
			c.Close()
			return nil
		}
	}
}
