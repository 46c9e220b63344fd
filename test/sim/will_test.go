package sim

import (
	"fmt"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// name is the payload of the will of the player's connection.
func (p *player) name() string { return fmt.Sprintf("%s/%d", p.id, p.number) }

// will is one for each connection.
func (p *player) will() *mqtt.Will {
	if !p.h.chance(2) {
		return nil
	}
	name := p.name()
	p.h.willOf[name] = &testament{p: p, number: p.number}
	return &mqtt.Will{Topic: "will/" + p.id, Payload: []byte(name), QoS: 2}
}

// testament is what is known of a connection with a will.
type testament struct {
	p      *player
	number int
	online bool // CONNACK came
	bye    bool // DISCONNECT was sent
}

// checkWills: each goes once when its connection ended without DISCONNECT, P7. The watcher is there
// from the beginning.
func (h *history) checkWills() {
	for _, name := range sortedKeys(h.wills) {
		if n := h.wills[name]; n > 1 {
			h.fail("the will of %s came %d times", name, n)
		}
		t := h.willOf[name]
		if t == nil {
			h.fail("a will of nobody: %s", name)
		} else if t.number == t.p.number && t.p.online {
			h.fail("the will of %s came, but it is connected", name)
		}
	}
	for _, name := range sortedKeys(h.willOf) {
		t := h.willOf[name]
		over := t.number != t.p.number || t.p.conn == nil
		if t.online && over && !t.bye && h.wills[name] == 0 {
			h.fail("the will of %s did not come", name)
		}
	}
}
