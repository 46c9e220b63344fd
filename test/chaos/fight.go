package chaos

import (
	"context"
	"time"

	"github.com/skein-mqtt/skein/test/harness"
)

// fenceID and the three after it are packet ids of what is sent on superseded connections.
const fenceID = 0xFF00

// superseded is a connection whose client has a newer one. Nothing that is sent on it may be
// acknowledged.
type superseded struct {
	wire *wire
	node string
	done chan struct{} // closed when the broker has closed it, or we have
}

func (s *superseded) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *superseded) close() {
	s.wire.close(false)
	<-s.done
}

// fight connects to another node while the old connection stands, and then sends on the old one what
// must not be acknowledged any more.
func (c *client) fight(ctx context.Context) {
	oldWire, oldConn, oldNode := c.wire, c.conn, c.node
	w, ack, ok := c.handshake(ctx, c.pickNode())
	if !ok {
		c.node = oldNode // which may still be the owner
		return
	}
	m := c.w.model
	m.Note(c.who, oldConn, "superseded by #%d", c.conn)
	c.old = append(c.old, &superseded{wire: oldWire, node: oldNode, done: make(chan struct{})})
	c.watchFence(c.old[len(c.old)-1], oldConn)
	if !c.plan.persistent {
		m.End(c.session)
		c.session = nil
	}
	c.begin(w, ack)
	if len(c.old) > maxOld {
		c.old[0].close()
		c.old = c.old[1:]
	}
}

// maxOld is how many superseded connections a client watches at a time.
const maxOld = 8

// leaseOver is when every node that had not heard of the newer connection by its CONNACK has, or has
// no lease any more. Until then the link road, which asks no majority, may take something over.
const leaseOver = 1500 * time.Millisecond

// watchFence sends on a superseded connection and looks at what is answered until it is closed: at
// once what has to go through the log, and later what does not.
func (c *client) watchFence(s *superseded, conn uint32) {
	m, who, id := c.w.model, c.who, c.plan.id
	fences := make(map[uint16]*message)
	send := func(first uint16, topic string) {
		for k := range uint16(2) {
			qos := byte(k + 1)
			msg := m.Send(who, conn, streamID{id, topic, qos}, false)
			m.Fence(msg)
			fences[first+k] = msg
			p := harness.Packet{Type: harness.PUBLISH, Topic: topic, QoS: qos, ID: first + k, Payload: msg.payload(0)}
			if s.wire.send(p) == nil {
				m.count(func(s *stats) { s.fences++ })
			}
		}
	}
	send(fenceID, "t/fence")
	go func() { // ends with the wire, which is closed and waited for
		defer close(s.done)
		later := time.NewTimer(leaseOver)
		defer later.Stop()
		for {
			select {
			case <-later.C:
				send(fenceID+2, "l/fence")
			case p, ok := <-s.wire.in:
				if !ok {
					m.Note(who, conn, "closed")
					return
				}
				switch msg := fences[p.ID]; {
				case p.Type == harness.DISCONNECT:
					m.Note(who, conn, "DISCONNECT %#02x", p.Code)
				case msg == nil || p.Code >= 0x80:
				case p.Type == harness.PUBACK:
					m.Mark(msg, acked, who, conn, p.ID)
				case p.Type == harness.PUBREC:
					m.Mark(msg, received, who, conn, p.ID)
				}
			}
		}
	}()
}
