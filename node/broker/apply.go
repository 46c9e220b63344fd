package broker

import (
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Apply does what the log asks of this node. It is one of the cluster's handler calls, on the
// goroutine that applies the log: also of what it held before this node was in service, and before
// Attach. Then there is nobody to deliver to, and what was dropped has been counted.
func (b *Broker) Apply(effects []fsm.Effect) {
	serving := b.serving.Load()
	for i := range effects {
		e := &effects[i]
		if e.Sequence > 1 && (e.Kind == fsm.EffectPublished || e.Kind == fsm.EffectDeliver0) {
			b.holds.pass(e.Node, e.Sequence-1) // what the links brought between two commands of one batch
		}
		switch e.Kind {
		case fsm.EffectEnqueued, fsm.EffectDeliver0:
			if c := b.connection(e.Client, e.Epoch); c != nil {
				c.fromLog(e)
			} else if e.Kind == fsm.EffectDeliver0 && serving {
				b.stats.drop(e.Client, fsm.ReasonOffline, 1)
			}
		case fsm.EffectPublished:
			if serving {
				b.publishedHere(e)
			}
		case fsm.EffectPicked:
			m := newMessage(e.Message)
			b.settlePicks(m, e.Picks)
			m.free()
		case fsm.EffectSuperseded:
			if c := b.connection(e.Client, e.Epoch); c != nil {
				c.end(mqtt.SessionTakenOver)
			}
		case fsm.EffectEnded:
			if c := b.connection(e.Client, e.Epoch); c != nil {
				c.end(mqtt.AdministrativeAction)
			}
		case fsm.EffectDropped:
			if !serving {
				continue
			}
			if e.Client != "" {
				if c := b.connection(e.Client, 0); c != nil {
					c.count(e.Reason, int(e.N))
				}
			}
			b.stats.drop(e.Client, e.Reason, e.N)
		case fsm.EffectPassed:
			b.holds.pass(e.Node, e.Sequence)
			b.flusher.take(b.applying)
		case fsm.EffectNodeUp:
			if serving {
				b.tell(event.Event{Message: e.Node.Node + " is in service"})
			}
		case fsm.EffectNodeDown:
			if serving && e.Node.Node != b.cfg.Node {
				b.tell(event.Event{Warning: true, Message: e.Node.Node + " is out of service"})
			}
			b.holds.end(e.Node)
		}
	}
	b.flusher.take(b.applying)
}

// connection is the client's connection on this node, if it is that epoch's; 0: whichever.
func (b *Broker) connection(id string, epoch fsm.Epoch) *client {
	b.mu.Lock()
	c := b.clients[id]
	b.mu.Unlock()
	if c == nil || epoch != 0 && c.epoch != epoch { // set before it came into the table
		return nil
	}
	return c
}

// fromLog takes an entry for a persistent session.
func (c *client) fromLog(e *fsm.Effect) {
	ba := c.b.applying
	c.conn.Lock()
	defer c.conn.Unlock()
	switch {
	case c.phase == phaseOver:
		if e.Kind == fsm.EffectDeliver0 {
			c.drop(fsm.ReasonOffline, 1)
		}
	case e.Kind == fsm.EffectEnqueued:
		c.traceQueued(e)
		c.sess.Enqueue(e.Entry)
		c.push(ba)
	case c.phase != phaseOnline:
		c.drop(fsm.ReasonOffline, 1)
	default: // retained messages may come by the thousand: they wait for the socket
		if c.zero.bytes > c.b.cfg.MaxBufferedBytes && !e.Entry.Retain {
			c.drop(fsm.ReasonSlowReader, 1)
			return
		}
		c.zero.push(e.Entry)
		c.pushZero(ba)
	}
}

// publishedHere gives a message that the log carried to this node's clean subscribers.
func (b *Broker) publishedHere(e *fsm.Effect) {
	m := newMessage(e.Message)
	m.index = e.Index
	_, targets := b.routes.lookup(m.topic)
	b.deliver(m, targets, b.applying)
	b.settlePicks(m, e.Picks)
	m.free()
}

// settlePicks gives a message to a clean member of each of the groups, or hands it back.
func (b *Broker) settlePicks(m *message, picks []fsm.Pick) {
	if len(picks) == 0 || !b.serving.Load() {
		return
	}
	var returned []uint64
	for _, p := range picks {
		if b.pick(m, p.Filter, p.Group, p.ID, true, b.applying) {
			continue
		}
		if p.ID != 0 {
			returned = append(returned, p.ID)
		} else {
			b.stats.drop("", fsm.ReasonNoMember, 1)
		}
	}
	if len(returned) > 0 {
		b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_SharedDone{SharedDone: &fsmpb.SharedDone{Returned: returned}}}, func(fsm.Result, error) {})
	}
}

// end closes a connection whose epoch the log has ended. Its Disconnect is sent all the same: it
// says what becomes of a will that was parked.
func (c *client) end(code mqtt.ReasonCode) {
	c.conn.Lock()
	defer c.conn.Unlock()
	c.dismiss(code, c.b.applying)
}
