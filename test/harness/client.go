package harness

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Patience is how long a client waits for what must come.
const Patience = 15 * time.Second

// Client is one MQTT connection. It sends what it is told to, answers nothing by itself, and keeps
// what arrives until it is asked for. All methods but Close belong to one goroutine.
type Client struct {
	Version byte
	conn    net.Conn
	t       testing.TB

	mu     sync.Mutex
	inbox  []Packet
	err    error         // why reading ended
	held   chan struct{} // not nil: no packet is read before it is closed
	news   chan struct{} // holds one token: the inbox or err changed
	readOK chan struct{} // closed when the reader has ended
}

// Dial opens a connection to a node; nothing is sent. It ends with the test.
func (n *Node) Dial(version byte) (*Client, error) { return dial(n.t, n.MQTT, version) }

func dial(t testing.TB, address string, version byte) (*Client, error) {
	conn, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	c := &Client{Version: version, conn: conn, t: t, news: make(chan struct{}, 1), readOK: make(chan struct{})}
	go c.read()
	t.Cleanup(c.Close)
	return c, nil
}

// MustDial is Dial where the node is there.
func (n *Node) MustDial(version byte) *Client {
	n.t.Helper()
	c, err := n.Dial(version)
	if err != nil {
		n.t.Fatalf("dial %s: %v", n.ID, err)
	}
	return c
}

// Connect opens a connection and sends CONNECT; it returns what is answered.
func (n *Node) Connect(version byte, connect Packet) (*Client, Packet, error) {
	c, err := n.Dial(version)
	if err != nil {
		return nil, Packet{}, err
	}
	connect.Type = CONNECT
	if err := c.Send(connect); err != nil {
		return nil, Packet{}, err
	}
	p, err := c.Next(Patience)
	if err == nil && p.Type != CONNACK {
		err = fmt.Errorf("%s instead of CONNACK", p)
	}
	return c, p, err
}

// MustConnect is Connect where the answer is success.
func (n *Node) MustConnect(version byte, connect Packet) (*Client, Packet) {
	n.t.Helper()
	c, p, err := n.Connect(version, connect)
	if err != nil || p.Code != 0 {
		n.t.Fatalf("connect %q to %s: %v %v", connect.ClientID, n.ID, p, err)
	}
	return c, p
}

// Close drops the connection without a word.
func (c *Client) Close() {
	_ = c.conn.Close()
	c.Listen()
	<-c.readOK
}

// Deafen stops the reading of the socket, after at most one more packet.
func (c *Client) Deafen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = make(chan struct{})
	}
}

// Listen ends Deafen.
func (c *Client) Listen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil {
		close(c.held)
		c.held = nil
	}
}

func (c *Client) read() {
	defer close(c.readOK)
	r := bufio.NewReader(c.conn)
	for {
		p, err := ReadPacket(r, c.Version)
		c.mu.Lock()
		if err != nil {
			c.err = err
		} else {
			c.inbox = append(c.inbox, p)
		}
		held := c.held
		c.mu.Unlock()
		select {
		case c.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
		if held != nil {
			<-held
		}
	}
}

// ReadPacket reads one packet that a broker sent. An error that is not the connection's own says
// that the packet is malformed.
func ReadPacket(r *bufio.Reader, version byte) (Packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return Packet{}, err
	}
	length, err := binary.ReadUvarint(r)
	if err != nil {
		return Packet{}, fmt.Errorf("a packet's length: %w", err)
	}
	if length > 1<<28 {
		return Packet{}, fmt.Errorf("%w: %d bytes long", ErrMalformed, length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return Packet{}, err
	}
	return decode(version, first, body)
}

// Send sends a packet.
func (c *Client) Send(p Packet) error { return c.SendBytes(p.Encode(c.Version)) }

// SendBytes sends anything.
func (c *Client) SendBytes(b []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

// MustSend is Send where the connection stands.
func (c *Client) MustSend(p Packet) {
	c.t.Helper()
	if err := c.Send(p); err != nil {
		c.t.Fatalf("send %s: %v", p, err)
	}
}

// ErrQuiet says that nothing came in time, and the connection stands.
var ErrQuiet = errors.New("nothing came in time")

// find takes the first packet for which match is true out of the inbox.
func (c *Client) find(patience time.Duration, match func(Packet) bool) (Packet, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		c.mu.Lock()
		for i, p := range c.inbox {
			if match(p) {
				c.inbox = append(c.inbox[:i:i], c.inbox[i+1:]...)
				c.mu.Unlock()
				return p, nil
			}
		}
		err := c.err
		c.mu.Unlock()
		if err != nil {
			return Packet{}, fmt.Errorf("connection: %w", err)
		}
		select {
		case <-c.news:
		case <-timer.C:
			return Packet{}, ErrQuiet
		}
	}
}

// Next takes the next packet.
func (c *Client) Next(patience time.Duration) (Packet, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		c.mu.Lock()
		if len(c.inbox) > 0 {
			p := c.inbox[0]
			c.inbox = c.inbox[1:]
			c.mu.Unlock()
			return p, nil
		}
		err := c.err
		c.mu.Unlock()
		if err != nil {
			return Packet{}, fmt.Errorf("connection: %w", err)
		}
		select {
		case <-c.news:
		case <-timer.C:
			return Packet{}, ErrQuiet
		}
	}
}

// Expect takes the next packet, which must be of that type.
func (c *Client) Expect(packetType byte) Packet {
	c.t.Helper()
	p, err := c.Next(Patience)
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", typeNames[packetType], err)
	}
	if p.Type != packetType {
		c.t.Fatalf("%s instead of %s", p, typeNames[packetType])
	}
	return p
}

// Await takes the first packet of that type; what else came stays where it is.
func (c *Client) Await(packetType byte) Packet {
	c.t.Helper()
	p, err := c.find(Patience, func(p Packet) bool { return p.Type == packetType })
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", typeNames[packetType], err)
	}
	return p
}

// ExpectNothing wants silence for a while.
func (c *Client) ExpectNothing(d time.Duration) {
	c.t.Helper()
	if p, err := c.Next(d); !errors.Is(err, ErrQuiet) {
		c.t.Fatalf("%v %v instead of nothing", p, err)
	}
}

// ExpectClosed wants the connection to be closed by the broker; it returns the DISCONNECT that came
// before, if one did.
func (c *Client) ExpectClosed() *Packet {
	c.t.Helper()
	var last *Packet
	for {
		p, err := c.Next(Patience)
		if errors.Is(err, ErrQuiet) {
			c.t.Fatal("the broker does not close the connection")
		}
		if err != nil {
			return last
		}
		if p.Type == DISCONNECT {
			last = &p
		}
	}
}

// Ping makes sure that the broker has read everything that was sent before.
func (c *Client) Ping() {
	c.t.Helper()
	c.MustSend(Packet{Type: PINGREQ})
	c.Await(PINGRESP)
}

// Subscribe subscribes to filters at a QoS and waits for the SUBACK.
func (c *Client) Subscribe(qos byte, filters ...string) Packet {
	c.t.Helper()
	p := Packet{Type: SUBSCRIBE, ID: 0xFFF0}
	for _, f := range filters {
		p.Filters = append(p.Filters, Filter{Name: f, Options: qos})
	}
	c.MustSend(p)
	ack := c.Await(SUBACK)
	for _, code := range ack.Codes {
		if code > 2 {
			c.t.Fatalf("subscribe to %v: %s", filters, ack)
		}
	}
	return ack
}

// Disconnect says goodbye.
func (c *Client) Disconnect() {
	_ = c.Send(Packet{Type: DISCONNECT})
	c.Close()
}
