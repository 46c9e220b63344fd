package sim

import (
	"fmt"
	"strings"

	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Conn is a client's end of one connection.
type Conn struct {
	w       *World
	node    *Node
	p       *pipe
	Version mqtt.Version
	inbox   []byte
	aliases map[uint16]string // topic aliases that the node has set
	held    bool              // what the client sends does not arrive with Run
	lagging bool              // its socket may be full: what is written may have been said before
	served  chan struct{}
}

// socketRoom is what a client's socket takes before the node's writes wait.
const socketRoom = 256 << 10

// Dial opens a connection to a node.
func (w *World) Dial(n *Node) *Conn { return w.DialRoom(n, socketRoom) }

// DialRoom is Dial with a smaller socket.
func (w *World) DialRoom(n *Node, room int) *Conn {
	c := &Conn{w: w, node: n, p: newPipe(room), Version: mqtt.V5, lagging: room < socketRoom, served: make(chan struct{})}
	if !n.alive {
		c.p.reset = true
		close(c.served)
		return c
	}
	w.conns = append(w.conns, c)
	c.p.witness = c.promised
	b := n.Broker
	w.group.Go(func() { _ = b.Serve(conn.New(c.p, "sim"), "sim", func() { close(c.served) }) })
	w.Settle()
	return c
}

// promised holds what the node writes against its lease, P9: it flushes in the step in which it speaks,
// and leases come and go between steps. PUBREC and PUBCOMP may be repeats of a clean session's.
func (c *Conn) promised(b []byte) {
	if c.node.leased.Load() || c.lagging {
		return
	}
	for {
		first, body, n, err := mqtt.Split(b, 0)
		if err != nil || n == 0 {
			return
		}
		t := mqtt.TypeOf(first)
		if t == mqtt.CONNACK && body[1] == 0 || t == mqtt.PUBACK || t == mqtt.SUBACK || t == mqtt.PUBLISH && first>>1&3 > 0 {
			c.w.T.Errorf("%s says %s without a lease", c.node.ID, t)
		}
		b = b[n:]
	}
}

// Packet is a packet that can be written.
type Packet interface {
	Append(dst []byte, v mqtt.Version) []byte
}

// Send puts packets on the way. They arrive with Arrive, or with Run unless the connection is held.
func (c *Conn) Send(packets ...Packet) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	for _, p := range packets {
		c.p.way = p.Append(c.p.way, c.Version)
	}
}

// SendRaw is Send for bytes.
func (c *Conn) SendRaw(b []byte) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.way = append(c.p.way, b...)
}

// Hold keeps what the client sends on the way.
func (c *Conn) Hold(held bool) { c.held = held }

// OnWay is how many bytes have not arrived.
func (c *Conn) OnWay() int {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	return len(c.p.way)
}

// Arrive lets up to n bytes of what the client sent arrive; n < 0: all of it. False: there are none.
func (c *Conn) Arrive(n int) bool {
	moved := false
	c.p.change(func() {
		if n < 0 || n > len(c.p.way) {
			n = len(c.p.way)
		}
		moved = n > 0
		c.p.in = append(c.p.in, c.p.way[:n]...)
		c.p.way = c.p.way[n:]
	})
	if moved {
		c.w.Settle()
	}
	return moved
}

// Receive takes the packets that have reached the client. closed: nothing more will come.
func (c *Conn) Receive() (packets []any, closed bool) {
	c.p.change(func() {
		c.inbox = append(c.inbox, c.p.out...)
		c.p.out = c.p.out[:0]
		closed = c.p.shut || c.p.reset
	})
	for {
		first, body, n, err := mqtt.Split(c.inbox, 0)
		if err != nil {
			c.w.T.Fatalf("%s sent what is no packet: %v", c.node.ID, err)
		}
		if n == 0 {
			return packets, closed
		}
		packets = append(packets, c.decode(first, append([]byte(nil), body...)))
		c.inbox = c.inbox[n:]
	}
}

func (c *Conn) decode(first byte, body []byte) any {
	var err error
	var out any
	switch t := mqtt.TypeOf(first); t {
	case mqtt.CONNACK:
		p := &mqtt.Connack{}
		err, out = p.Decode(c.Version, first, body), p
	case mqtt.PUBLISH:
		p := &mqtt.Publish{}
		err, out = p.Decode(c.Version, first, body), p
		c.resolve(p)
	case mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP:
		p := &mqtt.Ack{}
		err, out = p.Decode(c.Version, first, body), p
	case mqtt.SUBACK:
		p := &mqtt.Suback{}
		err, out = p.Decode(c.Version, first, body), p
	case mqtt.UNSUBACK:
		p := &mqtt.Unsuback{}
		err, out = p.Decode(c.Version, first, body), p
	case mqtt.PINGRESP:
		p := &mqtt.Pingresp{}
		err, out = p.Decode(c.Version, first, body), p
	case mqtt.DISCONNECT:
		p := &mqtt.Disconnect{}
		err, out = p.Decode(c.Version, first, body), p
	case mqtt.AUTH:
		p := &mqtt.Auth{}
		err, out = p.Decode(c.Version, first, body), p
	default:
		err = fmt.Errorf("%s is not for clients", t)
	}
	if err != nil {
		c.w.T.Fatalf("%s sent a bad packet: %v", c.node.ID, err)
	}
	return out
}

func (c *Conn) resolve(p *mqtt.Publish) {
	switch {
	case p.TopicAlias == 0:
	case len(p.Topic) > 0:
		if c.aliases == nil {
			c.aliases = make(map[uint16]string)
		}
		c.aliases[p.TopicAlias] = string(p.Topic)
	default:
		p.Topic = []byte(c.aliases[p.TopicAlias])
	}
}

// Got is Receive for people: a line for each packet, and "closed" at the end.
func (c *Conn) Got() []string {
	packets, closed := c.Receive()
	var out []string
	for _, p := range packets {
		out = append(out, Describe(p))
	}
	if closed {
		out = append(out, "closed")
	}
	return out
}

// Describe is a packet in short: what a test compares.
func Describe(p any) string {
	switch p := p.(type) {
	case *mqtt.Connack:
		s := "CONNACK " + code(p.Code)
		if p.SessionPresent {
			s += " present"
		}
		if p.AuthMethod != "" {
			s += fmt.Sprintf(" %s %q", p.AuthMethod, p.AuthData)
		}
		return s
	case *mqtt.Auth:
		return fmt.Sprintf("AUTH %s %s %q", code(p.Code), p.Method, p.Data)
	case *mqtt.Publish:
		s := fmt.Sprintf("PUBLISH %s q%d %q", p.Topic, p.QoS, p.Payload)
		if p.Dup {
			s += " dup"
		}
		if p.Retain {
			s += " retain"
		}
		if len(p.SubscriptionIDs) > 0 {
			s += fmt.Sprint(" ids=", p.SubscriptionIDs)
		}
		return s
	case *mqtt.Ack:
		return fmt.Sprintf("%s %d %s", p.Type, p.PacketID, code(p.Code))
	case *mqtt.Suback:
		return fmt.Sprintf("SUBACK %d %x", p.PacketID, p.Codes)
	case *mqtt.Unsuback:
		return fmt.Sprintf("UNSUBACK %d %x", p.PacketID, p.Codes)
	case *mqtt.Disconnect:
		return "DISCONNECT " + code(p.Code)
	default:
		return strings.ToUpper(strings.TrimPrefix(fmt.Sprintf("%T", p), "*mqtt."))
	}
}

func code(c mqtt.ReasonCode) string { return fmt.Sprintf("%02x", byte(c)) }

// Leave closes the client's end: what has arrived is still read by the node.
func (c *Conn) Leave() {
	c.p.change(func() { c.p.gone = true })
	c.w.Settle()
}

// Cut breaks the connection: what is on the way is lost, both ways.
func (c *Conn) Cut() {
	c.cut()
	c.w.Settle()
}

func (c *Conn) cut() {
	c.p.change(func() { c.p.reset, c.p.way, c.p.in = true, nil, nil })
}

// Over tells whether the node is done with the connection.
func (c *Conn) Over() bool {
	select {
	case <-c.served:
		return true
	default:
		return false
	}
}

// Node is where the connection goes.
func (c *Conn) Node() *Node { return c.node }
