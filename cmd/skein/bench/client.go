package bench

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// epoch is when this process began: times in messages count from there, on the monotonic clock.
var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

// role is what a client does with packets. packet runs with the connection's lock held and appends its
// answers to out; turned runs after each read without it, once the client is ready.
type role interface {
	packet(first byte, body, out []byte) ([]byte, error)
	turned(now int64, ba *conn.Batch)
}

// client is one connection to a broker.
type client struct {
	id      string
	version mqtt.Version
	conn    *conn.Conn
	role    role
	ready   chan error  // gets one value for each step of the handshake
	done    chan error  // gets how it ended
	ending  atomic.Bool // we end it
	window  int         // the broker's Receive Maximum
	broken  func(error)
}

var errSevered = errors.New("the broker closed the connection")

// dial connects and waits for CONNACK.
func (c *client) dial(addr string, cfg *Config, persistent bool) error {
	nc, err := net.DialTimeout("tcp", addr, dialPatience)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	c.version = cfg.Version
	c.conn = conn.New(nc, "")
	c.ending.Store(false)
	c.ready, c.done = make(chan error, 1), make(chan error, 1)
	go c.conn.Serve(c, func() {}) // close waits for Closed
	c.write(func(out []byte) []byte { return connect(cfg, c.id, persistent).Append(out, c.version) })
	if err := c.wait("CONNACK"); err != nil {
		return fmt.Errorf("bench: %s at %s: %w", c.id, addr, err)
	}
	return nil
}

const (
	dialPatience = 10 * time.Second
	stepPatience = 30 * time.Second
)

// connect is a client's CONNECT.
func connect(cfg *Config, id string, persistent bool) *mqtt.Connect {
	p := &mqtt.Connect{Version: cfg.Version, ClientID: id, Clean: true, KeepAlive: uint16(cfg.KeepAlive / time.Second)}
	if cfg.Username != "" {
		p.HasUsername, p.Username = true, cfg.Username
	}
	if cfg.Password != "" {
		p.HasPassword, p.Password = true, []byte(cfg.Password)
	}
	if persistent {
		if cfg.Version == mqtt.V5 {
			p.HasSessionExpiry, p.SessionExpiry = true, 3600
		} else {
			p.Clean = false
		}
	}
	return p
}

// wait waits for one step of the handshake.
func (c *client) wait(what string) error {
	select {
	case err := <-c.ready:
		return err
	case err := <-c.done:
		c.done <- err
		return fmt.Errorf("no %s: %w", what, err)
	case <-time.After(stepPatience):
		return fmt.Errorf("no %s within %s", what, stepPatience)
	}
}

// subscribe waits for SUBACK.
func (c *client) subscribe(qos byte, filters ...string) error {
	s := &mqtt.Subscribe{PacketID: 1}
	for _, f := range filters {
		s.Filters = append(s.Filters, mqtt.Subscription{Filter: f, QoS: qos})
	}
	c.write(func(out []byte) []byte { return s.Append(out, c.version) })
	if err := c.wait("SUBACK"); err != nil {
		return fmt.Errorf("bench: %s: %w", c.id, err)
	}
	return nil
}

// write sends what fn appends.
func (c *client) write(fn func(out []byte) []byte) {
	ba := conn.NewBatch()
	c.conn.Lock()
	c.conn.SetOut(fn(c.conn.Out()), ba)
	c.conn.Unlock()
	ba.Flush()
}

// close says goodbye and waits until the connection has ended.
func (c *client) close() {
	if c.conn == nil {
		return
	}
	c.ending.Store(true)
	ba := conn.NewBatch()
	c.conn.Lock()
	if !c.conn.Ended() {
		c.conn.SetOut((&mqtt.Disconnect{}).Append(c.conn.Out(), c.version), ba)
	}
	c.conn.End()
	c.conn.Mark(ba)
	c.conn.Unlock()
	ba.Flush()
	c.done <- <-c.done // it may be closed twice
}

// Data implements conn.Handler.
func (c *client) Data(b []byte, ba *conn.Batch) (used int, err error) {
	c.conn.Lock()
	out := c.conn.Out()
	for {
		first, body, n, e := mqtt.Split(b[used:], 0)
		if e != nil {
			err = e
			break
		}
		if n == 0 {
			break
		}
		used += n
		if out, err = c.packet(first, body, out); err != nil {
			break
		}
	}
	c.conn.SetOut(out, ba)
	c.conn.Unlock()
	if used > 0 && c.role != nil {
		c.role.turned(now(), ba)
	}
	return used, err
}

func (c *client) packet(first byte, body, out []byte) ([]byte, error) {
	switch t := mqtt.TypeOf(first); t {
	case mqtt.CONNACK:
		var p mqtt.Connack
		err := p.Decode(c.version, first, body)
		if err == nil && p.Code != mqtt.Success {
			err = fmt.Errorf("the broker refuses the connection: %s", p.Code)
		}
		c.window = 65535
		if p.ReceiveMaximum > 0 {
			c.window = int(p.ReceiveMaximum)
		}
		c.step(err)
	case mqtt.SUBACK:
		var p mqtt.Suback
		err := p.Decode(c.version, first, body)
		if err == nil && slices.ContainsFunc(p.Codes, func(code byte) bool { return code >= 0x80 }) {
			err = errors.New("the broker refuses the subscription")
		}
		c.step(err)
	case mqtt.PINGRESP:
	case mqtt.DISCONNECT:
		var p mqtt.Disconnect
		if err := p.Decode(c.version, first, body); err != nil {
			return out, err
		}
		return out, fmt.Errorf("%w: %s", errSevered, p.Code)
	default:
		if c.role == nil {
			return out, fmt.Errorf("unexpected %s", t)
		}
		return c.role.packet(first, body, out)
	}
	return out, nil
}

func (c *client) step(err error) {
	select {
	case c.ready <- err:
	default:
	}
}

// Drained implements conn.Handler.
func (c *client) Drained(*conn.Batch) {}

// Closed implements conn.Handler.
func (c *client) Closed(err error) {
	if err == nil {
		err = errSevered
	}
	if !c.ending.Load() && c.broken != nil {
		c.broken(fmt.Errorf("bench: the connection of %s ended: %w", c.id, err))
	}
	c.done <- err
}
