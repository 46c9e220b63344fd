package harness

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// Session is the client's half of a session: what it must remember from one connection to the
// next. It acknowledges what it is sent and counts each QoS 2 message once. It belongs to one
// goroutine.
type Session struct {
	ID      string
	Version byte
	Clean   bool   // a new session on each connection
	Expiry  uint32 // seconds, 5.0
	Will    *Will
	// Username and Password, where the node asks for them.
	Username, Password string
	Window             int // QoS 1 and 2 in flight; 0: 16

	// Got are the payloads that arrived, in order; a QoS 2 message once.
	Got []string
	// Repeats are how many PUBLISHes at QoS 1 came with DUP.
	Repeats int
	*Client

	t      testing.TB
	lastID uint16
	out    []outgoing
	in     map[uint16]bool // QoS 2, until PUBREL
}

// outgoing is a PUBLISH without its last acknowledgement.
type outgoing struct {
	Packet
	received bool // PUBREC came
}

// NewSession is a persistent session that has not connected yet.
func NewSession(t testing.TB, id string, version byte) *Session {
	return &Session{ID: id, Version: version, Expiry: 3600, t: t, in: make(map[uint16]bool)}
}

// ConnectPacket is what the session connects with.
func (s *Session) ConnectPacket() Packet {
	p := Packet{Type: CONNECT, ClientID: s.ID, Clean: s.Clean, KeepAlive: 60, Will: s.Will, Username: s.Username, Password: s.Password}
	if s.Version == V5 && !s.Clean {
		p.Props = []Property{{ID: SessionExpiry, Num: s.Expiry}}
	}
	return p
}

// Connect opens a connection to a node and sends again, in order, what was not acknowledged. It
// tries for a while, as a client behind a balancer does.
func (s *Session) Connect(n *Node) Packet {
	s.t.Helper()
	var ack Packet
	var err error
	for deadline := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
		s.Client, ack, err = n.Connect(s.Version, s.ConnectPacket())
		if err == nil && ack.Code == 0 {
			break
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s can't connect to %s: %v %v", s.ID, n.ID, ack, err)
		}
	}
	s.proceed(ack)
	return ack
}

// Roam is Connect for a goroutine of a test's own: it takes the first of these nodes that lets it
// in, trying them in turn for a while.
func (s *Session) Roam(nodes ...*Node) (Packet, error) {
	last := errors.New("no node to go to")
	for deadline := time.Now().Add(2 * Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, n := range nodes {
			client, ack, err := n.Connect(s.Version, s.ConnectPacket())
			if err == nil && ack.Code == 0 {
				s.Client = client
				s.proceed(ack)
				return ack, nil
			}
			if err == nil {
				err = fmt.Errorf("%s", ack)
			}
			last = fmt.Errorf("connect to %s: %w", n.ID, err)
		}
	}
	return Packet{}, fmt.Errorf("%s: %w", s.ID, last)
}

// proceed sends again, in order, what was not acknowledged.
func (s *Session) proceed(ack Packet) {
	if !ack.SessionPresent {
		s.in = make(map[uint16]bool)
		for i := range s.out {
			s.out[i].received = false
		}
	}
	for i := range s.out {
		_ = s.Send(s.again(&s.out[i])) // a broken connection shows when it is read
	}
}

// Resume is Connect where the session must be there.
func (s *Session) Resume(n *Node) {
	s.t.Helper()
	if ack := s.Connect(n); !ack.SessionPresent {
		s.t.Fatalf("%s finds no session on %s", s.ID, n.ID)
	}
}

func (s *Session) again(o *outgoing) Packet {
	if o.received {
		return Packet{Type: PUBREL, ID: o.ID}
	}
	o.Dup = true
	return o.Packet
}

// InFlight is how many PUBLISHes wait for an acknowledgement.
func (s *Session) InFlight() int { return len(s.out) }

// Publish sends a message as soon as the window lets it and returns without waiting for its
// acknowledgement. An error: the connection is gone; the message is sent by the next one.
func (s *Session) Publish(topic, payload string, qos byte) error {
	window := s.Window
	if window == 0 {
		window = 16
	}
	err := s.Pump(func() bool { return len(s.out) < window })
	p := Packet{Type: PUBLISH, Topic: topic, Payload: payload, QoS: qos}
	if qos > 0 {
		p.ID = s.nextID()
		s.out = append(s.out, outgoing{Packet: p})
	}
	if err != nil {
		return err
	}
	return s.Send(p)
}

func (s *Session) nextID() uint16 {
	for {
		s.lastID++
		if s.lastID == 0 || s.lastID >= 0xFFF0 {
			s.lastID = 1
		}
		if !slices.ContainsFunc(s.out, func(o outgoing) bool { return o.ID == s.lastID }) {
			return s.lastID
		}
	}
}

// Flush waits until everything is acknowledged.
func (s *Session) Flush() error { return s.Pump(func() bool { return len(s.out) == 0 }) }

// Pump handles what arrives until ok says so. An error: the connection is gone, or nothing came for
// too long.
func (s *Session) Pump(ok func() bool) error {
	for !ok() {
		p, err := s.Next(Patience)
		if err != nil {
			return err
		}
		if err := s.Handle(p); err != nil {
			return err
		}
	}
	return nil
}

// Receive waits until count messages have arrived in all.
func (s *Session) Receive(count int) {
	s.t.Helper()
	if err := s.Pump(func() bool { return len(s.Got) >= count }); err != nil {
		s.t.Fatalf("%s: %d of %d messages: %v", s.ID, len(s.Got), count, err)
	}
}

// Quiet handles what arrives for so long.
func (s *Session) Quiet(d time.Duration) {
	s.t.Helper()
	for deadline := time.Now().Add(d); ; {
		p, err := s.Next(time.Until(deadline))
		if errors.Is(err, ErrQuiet) {
			return
		}
		if err == nil {
			err = s.Handle(p)
		}
		if err != nil {
			s.t.Fatalf("%s: %v", s.ID, err)
		}
	}
}

// Handle does with one packet what a client must.
func (s *Session) Handle(p Packet) error {
	switch p.Type {
	case PUBLISH:
		return s.arrived(p)
	case PUBREL:
		delete(s.in, p.ID)
		return s.Send(Packet{Type: PUBCOMP, ID: p.ID})
	case PUBACK, PUBREC, PUBCOMP:
		return s.acknowledged(p)
	case DISCONNECT:
		return fmt.Errorf("%s", p)
	}
	return nil
}

func (s *Session) arrived(p Packet) error {
	switch {
	case p.QoS == 0:
		s.Got = append(s.Got, p.Payload)
		return nil
	case p.QoS == 1:
		s.Got = append(s.Got, p.Payload)
		if p.Dup {
			s.Repeats++
		}
		return s.Send(Packet{Type: PUBACK, ID: p.ID})
	case !s.in[p.ID]:
		s.Got = append(s.Got, p.Payload)
		s.in[p.ID] = true
	}
	return s.Send(Packet{Type: PUBREC, ID: p.ID})
}

func (s *Session) acknowledged(p Packet) error {
	i := slices.IndexFunc(s.out, func(o outgoing) bool { return o.ID == p.ID })
	if i < 0 {
		if p.Type == PUBREC { // of an exchange that is over for this side
			return s.Send(Packet{Type: PUBREL, ID: p.ID})
		}
		return nil
	}
	if p.Type == PUBREC && p.Code < 0x80 {
		s.out[i].received = true
		return s.Send(Packet{Type: PUBREL, ID: p.ID})
	}
	s.out = slices.Delete(s.out, i, i+1)
	if p.Code >= 0x80 {
		return fmt.Errorf("refused: %s", p)
	}
	return nil
}
