package session

import (
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Config fixes a session for the life of one connection.
type Config struct {
	Version    mqtt.Version
	Persistent bool
	Window     int    // PUBLISHes of QoS >= 1 in flight to the client
	Span       uint32 // persistent: how far past the committed cursor may be sent
	MaxPacket  uint32 // the client's Maximum Packet Size, 0: none
	AliasOut   uint16 // the client's Topic Alias Maximum
	AliasIn    uint16 // ours
	ReceiveMax int    // ours
	MaxQueued  int    // entries that may wait beyond the window
	MaxBytes   int    // bytes that may wait, 0: no limit
	Full       Full   // what becomes of what finds no room
	Mount      string // stands before every topic and is not sent
	// Allowed tells whether the client may have a message of a topic; nil: of any.
	Allowed func(topic string) bool
	// Sent and Lost hear of every PUBLISH that is sent from the queue, with its packet id, and of every
	// entry that is dropped instead; nil: nobody does. They must not keep the entry.
	Sent func(e *fsm.Entry, id uint16)
	Lost func(e *fsm.Entry, r fsm.Reason)
}

// Full says what becomes of an entry for which there is no room.
type Full uint8

// The choices.
const (
	DropNewest Full = iota // it is dropped
	DropOldest             // the oldest that was never sent is, in its place
	Disconnect             // the client is to be disconnected, see Overflowed; a persistent session keeps it
)

// Drop is an entry that is not delivered, to be counted and, in a persistent session, committed.
type Drop struct {
	Seq    uint64
	Reason fsm.Reason
}

// Shared is an entry that a clean session has as a member of a shared group, with the assignment that
// its acknowledgement settles (fsm.Pick.ID), 0 if the log keeps none.
type Shared struct {
	fsm.Entry
	Pick uint64
}

// Session is the protocol state of one connection. The caller's lock guards it.
type Session struct {
	cfg      Config
	out      outbound
	in       inbound
	acks     *[ackKinds]ackQueue // nil before the first, see queue
	aliases  map[string]uint16   // outgoing
	received []fsm.Range         // PUBREC came, not yet proposed
	shared   map[uint64]Shared
	claims   struct{ made, won uint64 } // see EnqueueClaimed
	drops    []Drop
	fence    fence
	sent     [3]uint64 // PUBLISHes that Pump made, by QoS
	settled  []uint64  // assignments of shared groups that the client has acknowledged
	overflow bool
	waits    uint64 // entries that found the window full
}

// New starts a session without a past.
func New(cfg Config) *Session { return &Session{cfg: cfg} }

// Resume starts a session where its view stands. PUBRELs for what is past PUBREC are appended to
// dst at once (they use no quota); entries wait for Pump, those that were possibly sent with DUP.
func Resume(cfg Config, v *fsm.SessionView, dst []byte) (*Session, []byte) {
	s := New(cfg)
	o := &s.out
	o.cursor, o.committed, o.proposed, o.top, o.sent = v.Cursor, v.Cursor, v.Cursor, v.Cursor, v.Cursor
	for _, r := range v.Done {
		for seq := max(r.Lo, v.Cursor+1); seq <= r.Hi; seq++ {
			o.set(seq, slotDone)
		}
	}
	for _, r := range v.Received {
		for seq := max(r.Lo, v.Cursor+1); seq <= r.Hi; seq++ {
			if o.state(seq) == slotDone {
				continue
			}
			o.set(seq, slotEarlier)
			dst = s.appendAck(dst, mqtt.PUBREL, fsm.PacketID(seq), 0)
		}
	}
	for _, e := range v.Queue {
		if o.state(e.Seq) == slotUnsent {
			o.push(item{Entry: e, dup: e.Seq <= v.Mark && e.QoS > 0})
		}
	}
	for _, id := range v.Inbound {
		s.in.restore(id)
	}
	return s, dst
}

// fence keeps a persistent session from sending what comes behind a drop that is not in the log yet:
// a new owner would send the dropped entry after it. It counts the calls of TakeDrops, each of which
// the caller proposes, and those of Committed, which follow in order.
type fence struct {
	taken     uint64
	committed uint64
	passed    uint64 // the call that took, or will take, the last drop that Pump has passed
	waits     bool   // Pump has stopped for it
}

// next is the call that will take a drop that happens now.
func (f *fence) next() uint64 { return f.taken + 1 }

func (f *fence) closed() bool { return f.committed < f.passed }

// Clean is true for a session that ends with its connection.
func (s *Session) Clean() bool { return !s.cfg.Persistent }

// Overflowed tells that there was no room for an entry, and that the client is to be disconnected for it.
func (s *Session) Overflowed() bool { return s.overflow }

// TakeWaits is how many entries found as much in flight as there may be, since the last call.
func (s *Session) TakeWaits() uint64 {
	n := s.waits
	s.waits = 0
	return n
}

// Version of the protocol that the client speaks.
func (s *Session) Version() mqtt.Version { return s.cfg.Version }

// TakeSent is how many PUBLISHes Pump has made since the last call, by QoS.
func (s *Session) TakeSent() [3]uint64 {
	n := s.sent
	s.sent = [3]uint64{}
	return n
}
