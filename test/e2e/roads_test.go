package e2e

import (
	"fmt"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// A publisher whose messages take the log (retained ones) and the links by turns, faster than either
// carries them: each subscriber has them in order, here, on other nodes, and at a lower QoS. Many of
// its publishes on the log road then share a batch, and what went by the links belongs between them.
func TestOrderAcrossTheRoads(t *testing.T) {
	beside(t)
	c := h.Start(t, 3, flags...)
	for _, qos := range []byte{1, 2} {
		topic := fmt.Sprintf("roads/%d", qos)
		subs := []*h.Session{
			clean(t, c.Node(1), topic+" here", h.V311), clean(t, c.Node(3), topic+" there", h.V5), stored(t, c.Node(2), topic+" lower", h.V5),
		}
		for i, granted := range []byte{qos, qos, 0} {
			subs[i].Subscribe(granted, topic)
		}
		pub := clean(t, c.Node(1), topic+" pub", h.V311)
		list := payloads(heavy(600, 6000))
		for i, p := range list {
			pub.MustSend(h.Packet{Type: h.PUBLISH, Topic: topic, Payload: p, QoS: qos, ID: uint16(i + 1), Retain: i%2 == 0})
		}
		for _, s := range subs {
			s.Receive(len(list))
			same(t, s.ID, s.Got, list)
		}
	}
}
