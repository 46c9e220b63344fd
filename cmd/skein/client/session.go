package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Config of a connection. Addrs and Version are required.
type Config struct {
	Addrs     []string // HOST:PORT, tried in turn
	Version   mqtt.Version
	ID        string // empty: the broker chooses one, if it may
	Clean     bool
	Expiry    uint32 // seconds, 5.0
	KeepAlive uint16
	Username  string
	Password  string
	HasLogin  bool
	Will      *mqtt.Will
	// Patience is how long to look for a broker that takes the connection, at first and again.
	Patience time.Duration
	// Log hears of connections that break and come back; nil: nobody does.
	Log func(format string, args ...any)
}

// Errors of a session.
var (
	// ErrRefused: the broker will not have this client, and said why.
	ErrRefused = errors.New("the broker refused the connection")
	errLost    = errors.New("the session was lost: the broker did not have it any more")
)

// session is the client's half of a session. One goroutine uses it.
type session struct {
	cfg  Config
	next int // of cfg.Addrs
	conn net.Conn
	in   chan packet

	lastID   uint16
	inflight []outgoing
	received map[uint16]bool // QoS 2, until PUBREL
	window   int
	deliver  func(p *mqtt.Publish)
	// resumed runs after each CONNACK, before what is in flight is sent again.
	resumed func(present bool) error
}

// outgoing is a PUBLISH that is not acknowledged for good.
type outgoing struct {
	mqtt.Publish
	released bool // PUBREC came
}

// packet is one that arrived, or the end of the connection.
type packet struct {
	first byte
	body  []byte
	err   error
}

const (
	firstDelay = 50 * time.Millisecond
	maxDelay   = 2 * time.Second
	answerTime = 10 * time.Second
)

// connect finds a broker that takes the connection and brings the session up to date.
func (s *session) connect(ctx context.Context) error {
	deadline := time.Now().Add(s.cfg.Patience)
	delay := firstDelay
	for {
		addr := s.cfg.Addrs[s.next%len(s.cfg.Addrs)]
		present, err := s.dial(ctx, addr)
		if err == nil {
			return s.resume(present)
		}
		s.next++
		if errors.Is(err, ErrRefused) && !again(err) || time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", addr, err)
		}
		s.log("%s: %v; trying again", addr, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
		delay = min(2*delay, maxDelay)
	}
}

// refusal is a CONNACK with an error.
type refusal struct{ code mqtt.ReasonCode }

func (r refusal) Error() string { return ErrRefused.Error() + ": " + r.code.String() }
func (r refusal) Unwrap() error { return ErrRefused }

// again tells whether another attempt may fare better.
func again(err error) bool {
	var r refusal
	return errors.As(err, &r) && slices.Contains([]mqtt.ReasonCode{
		mqtt.ServerUnavailable, mqtt.ServerBusy, mqtt.UseAnotherServer, mqtt.ServerMoved, mqtt.QuotaExceeded, mqtt.ConnectionRateExceeded,
	}, r.code)
}

func (s *session) dial(ctx context.Context, addr string) (present bool, err error) {
	d := net.Dialer{Timeout: answerTime}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false, err
	}
	p := &mqtt.Connect{
		Version: s.cfg.Version, Clean: s.cfg.Clean, KeepAlive: s.cfg.KeepAlive, ClientID: s.cfg.ID, Will: s.cfg.Will,
		HasUsername: s.cfg.HasLogin, Username: s.cfg.Username, HasPassword: s.cfg.Password != "", Password: []byte(s.cfg.Password),
		HasSessionExpiry: s.cfg.Expiry > 0, SessionExpiry: s.cfg.Expiry,
	}
	in := make(chan packet, 64)
	go read(c, in) // ends with the connection, and closes in
	if _, err := c.Write(p.Append(nil, s.cfg.Version)); err != nil {
		c.Close()
		return false, err
	}
	var ack mqtt.Connack
	select {
	case m := <-in:
		if err = m.err; err == nil {
			err = ack.Decode(s.cfg.Version, m.first, m.body)
		}
	case <-time.After(answerTime):
		err = errors.New("no CONNACK in time")
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil && ack.Code != mqtt.Success {
		err = refusal{ack.Code}
	}
	if err != nil {
		c.Close()
		return false, err
	}
	s.conn, s.in = c, in
	if ack.AssignedClientID != "" {
		s.cfg.ID = ack.AssignedClientID
	}
	s.window = 20
	if ack.ReceiveMaximum > 0 {
		s.window = min(s.window, int(ack.ReceiveMaximum))
	}
	return ack.SessionPresent, nil
}

// read hands on what arrives until the connection ends.
func read(c net.Conn, in chan<- packet) {
	defer close(in)
	var b []byte
	chunk := make([]byte, 64<<10)
	for {
		n, err := c.Read(chunk)
		if err != nil {
			in <- packet{err: err}
			return
		}
		b = append(b, chunk[:n]...)
		for {
			first, body, n, err := mqtt.Split(b, 0)
			if err != nil {
				in <- packet{err: err}
				return
			}
			if n == 0 {
				break
			}
			in <- packet{first: first, body: slices.Clone(body)}
			b = b[n:]
		}
	}
}

func (s *session) log(format string, args ...any) {
	if s.cfg.Log != nil {
		s.cfg.Log(format, args...)
	}
}

// resume brings both ends of the session together [MQTT-4.4.0-1].
func (s *session) resume(present bool) error {
	if !present || s.received == nil {
		s.received = make(map[uint16]bool)
	}
	if !present {
		for i := range s.inflight {
			s.inflight[i].released = false
		}
	}
	if s.resumed != nil {
		if err := s.resumed(present); err != nil {
			return err
		}
	}
	for i := range s.inflight {
		o := &s.inflight[i]
		o.Dup = present
		if o.released {
			s.send((&mqtt.Ack{Type: mqtt.PUBREL, PacketID: o.PacketID}).Append(nil, s.cfg.Version))
		} else {
			s.send(o.Append(nil, s.cfg.Version))
		}
	}
	return nil
}

// send writes a packet; an error shows when the connection is read.
func (s *session) send(b []byte) { _, _ = s.conn.Write(b) }

// publish sends a message. The caller sees to the window.
func (s *session) publish(m mqtt.Publish) {
	if m.QoS > 0 {
		m.PacketID = s.id()
		s.inflight = append(s.inflight, outgoing{Publish: m})
	}
	s.send(m.Append(nil, s.cfg.Version))
}

func (s *session) id() uint16 {
	for {
		if s.lastID++; s.lastID == 0 {
			s.lastID = 1
		}
		if !slices.ContainsFunc(s.inflight, func(o outgoing) bool { return o.PacketID == s.lastID }) {
			return s.lastID
		}
	}
}

// handle does with a packet what a client must. It returns the packet's type.
func (s *session) handle(m packet) (mqtt.Type, error) {
	t := mqtt.TypeOf(m.first)
	switch t {
	case mqtt.PUBLISH:
		var p mqtt.Publish
		if err := p.Decode(s.cfg.Version, m.first, m.body); err != nil {
			return t, err
		}
		s.arrived(&p)
	case mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP:
		var a mqtt.Ack
		if err := a.Decode(s.cfg.Version, m.first, m.body); err != nil {
			return t, err
		}
		return t, s.acknowledged(&a)
	case mqtt.DISCONNECT:
		var d mqtt.Disconnect
		if err := d.Decode(s.cfg.Version, m.first, m.body); err != nil {
			return t, err
		}
		return t, fmt.Errorf("the broker ended the connection: %s", d.Code)
	}
	return t, nil
}

func (s *session) arrived(p *mqtt.Publish) {
	switch p.QoS {
	case 1:
		s.deliver(p)
		s.send((&mqtt.Ack{Type: mqtt.PUBACK, PacketID: p.PacketID}).Append(nil, s.cfg.Version))
	case 2:
		if !s.received[p.PacketID] {
			s.received[p.PacketID] = true
			s.deliver(p)
		}
		s.send((&mqtt.Ack{Type: mqtt.PUBREC, PacketID: p.PacketID}).Append(nil, s.cfg.Version))
	default:
		s.deliver(p)
	}
}

func (s *session) acknowledged(a *mqtt.Ack) error {
	if a.Type == mqtt.PUBREL {
		delete(s.received, a.PacketID)
		s.send((&mqtt.Ack{Type: mqtt.PUBCOMP, PacketID: a.PacketID}).Append(nil, s.cfg.Version))
		return nil
	}
	i := slices.IndexFunc(s.inflight, func(o outgoing) bool { return o.PacketID == a.PacketID })
	if a.Type == mqtt.PUBREC && !a.Code.Failed() {
		s.send((&mqtt.Ack{Type: mqtt.PUBREL, PacketID: a.PacketID}).Append(nil, s.cfg.Version))
		if i >= 0 {
			s.inflight[i].released = true
		}
		return nil
	}
	if i < 0 {
		return nil
	}
	topic := string(s.inflight[i].Topic)
	s.inflight = slices.Delete(s.inflight, i, i+1)
	if a.Code.Failed() && a.Type != mqtt.PUBCOMP {
		return fmt.Errorf("%w: %s: %s", errMessage, topic, a.Code)
	}
	return nil
}

// errMessage: the broker refused one message; the connection stands.
var errMessage = errors.New("message refused")

// goodbye ends the connection in order.
func (s *session) goodbye() {
	if s.conn == nil {
		return
	}
	s.send((&mqtt.Disconnect{}).Append(nil, s.cfg.Version))
	s.conn.Close()
	for range s.in { // until the reader has ended
	}
	s.conn = nil
}

// drop forgets a connection that has broken.
func (s *session) drop() {
	s.conn.Close()
	for range s.in {
	}
}
