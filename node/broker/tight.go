package broker

import (
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// MemoryPolicy is what becomes of publishes while the node's memory is tight.
type MemoryPolicy uint8

// The policies.
const (
	MemoryPause  MemoryPolicy = iota // they wait, and their clients are not read
	MemoryRefuse                     // they are refused with 0x97; 3.x clients, which can't be told, are closed
)

// Tight says whether the node's memory is tight. Clients' publishes are then held back or refused, as
// Config.MemoryPolicy says. Everything else goes on: what is delivered and acknowledged makes room.
func (b *Broker) Tight(tight bool) {
	b.tight.Store(tight)
	if tight {
		return
	}
	for _, c := range b.append(nil) { // one that saw it tight holds its lock until it is blocked
		c.unblock(blockMemory)
	}
}

// frees tells whether a publish makes room: it deletes what is retained.
func (p *publish) frees() bool { return p.retain && len(p.payload) == 0 }

// tightened handles a publish that comes while memory is tight. Caller holds the lock.
func (c *client) tightened(p *publish, ba *conn.Batch) (*publish, error) {
	c.b.reached(LimitMemory)
	if c.b.cfg.MemoryPolicy == MemoryPause {
		return p, nil // route keeps it
	}
	if p.qos > 0 && c.version != mqtt.V5 {
		return nil, &mqtt.Error{Code: mqtt.QuotaExceeded, Msg: "the node's memory is tight, and it can't be told so otherwise"}
	}
	c.drop(fsm.ReasonNotAllowed, 1)
	c.answer(p, mqtt.QuotaExceeded, ba)
	return nil, nil
}

// tightIntake is how many bytes of PUBLISHes are kept of one client while memory is tight.
const tightIntake = 64 << 10

// maxIntake is how many bytes of PUBLISHes are kept of one client that can't be taken now.
func (b *Broker) maxIntake() int {
	if b.tight.Load() {
		return min(tightIntake, b.cfg.MaxBufferedBytes)
	}
	return b.cfg.MaxBufferedBytes
}
