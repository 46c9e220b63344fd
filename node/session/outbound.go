package session

import "github.com/skein-mqtt/skein/fsm"

// slotState is where a sequence number stands on this connection.
type slotState uint8

const (
	slotUnsent   slotState = iota // not sent on this connection
	slotSent1                     // QoS 1, PUBACK is due
	slotSent2                     // QoS 2, PUBREC is due
	slotReceived                  // PUBREC came and is being committed
	slotReleased                  // PUBREL was sent, PUBCOMP is due
	slotEarlier                   // as slotReleased, of an earlier connection: takes no quota
	slotSettling                  // as slotReceived, without PUBREC: a tombstone, takes no quota
	slotDone
)

// outbound tracks sequence numbers above the cursor: a ring of states, and the entries that wait
// to be sent. Packet ids are a function of the sequence number, so nothing else is needed to
// find the message that an acknowledgement means.
type outbound struct {
	cursor    uint64 // every sequence up to here is done
	committed uint64 // the cursor that the log knows (persistent sessions)
	proposed  uint64 // the cursor that was last proposed
	top       uint64 // the highest sequence that has a state
	sent      uint64 // the highest sequence sent on this connection
	ring      []slotState
	waiting   []item // ascending; head is the first that is not sent
	head      int
	live      int // those of waiting that have a message
	bytes     int // of them: topic, properties and payload
	inflight  int // the send quota in use [MQTT-3.3.4-9]
}

// item is an entry that waits to be sent. One without a message only takes its turn: everything up
// to its number that is not before it was dropped.
type item struct {
	fsm.Entry
	dup   bool
	pick  uint64 // see Shared
	claim uint64 // its turn among what EnqueueClaimed took; 0: it was not
	take  uint64 // without a message: see fence
}

func (o *outbound) state(seq uint64) slotState {
	if seq <= o.cursor {
		return slotDone
	}
	if seq > o.top {
		return slotUnsent
	}
	return o.ring[seq&uint64(len(o.ring)-1)]
}

func (o *outbound) set(seq uint64, s slotState) {
	if seq <= o.cursor {
		return
	}
	if n := seq - o.cursor; n > uint64(len(o.ring)) {
		o.grow(n)
	}
	for o.top < seq {
		o.top++
		o.ring[o.top&uint64(len(o.ring)-1)] = slotUnsent
	}
	o.ring[seq&uint64(len(o.ring)-1)] = s
	if s != slotDone || seq != o.cursor+1 {
		return
	}
	for o.cursor < o.top && o.ring[(o.cursor+1)&uint64(len(o.ring)-1)] == slotDone {
		o.cursor++
	}
}

func (o *outbound) grow(n uint64) {
	size := uint64(8)
	for size < n {
		size *= 2
	}
	ring := make([]slotState, size)
	for seq := o.cursor + 1; seq <= o.top; seq++ {
		ring[seq&(size-1)] = o.ring[seq&uint64(len(o.ring)-1)]
	}
	o.ring = ring
}

// find returns the sequence number that a packet id means now.
func (o *outbound) find(id uint16) (uint64, bool) {
	if id == 0 {
		return 0, false
	}
	first := o.cursor + 1
	seq := first + uint64((int(id)-int(fsm.PacketID(first))+65535)%65535)
	return seq, seq <= o.top
}

func (o *outbound) push(it item) {
	if o.head > 0 && o.head == len(o.waiting) {
		o.waiting, o.head = o.waiting[:0], 0
	} else if o.head > 256 && o.head*2 > len(o.waiting) {
		n := copy(o.waiting, o.waiting[o.head:])
		clear(o.waiting[n:])
		o.waiting, o.head = o.waiting[:n], 0
	}
	o.waiting = append(o.waiting, it)
	if it.Message != nil {
		o.live++
		o.bytes += messageBytes(it.Message)
	}
}

// pushDropped takes note that the entry seq, the highest yet, was dropped; take is for the fence.
func (o *outbound) pushDropped(seq, take uint64) {
	if n := len(o.waiting); n > o.head && o.waiting[n-1].Message == nil {
		o.waiting[n-1].Seq, o.waiting[n-1].take = seq, take
		return
	}
	o.push(item{Entry: fsm.Entry{Seq: seq}, take: take})
}

// oldest is the position of the first entry that waits and was never sent, -1 if there is none. Those of
// an earlier connection come first.
func (o *outbound) oldest() int {
	for i := o.head; i < len(o.waiting); i++ {
		if it := &o.waiting[i]; it.Message != nil && !it.dup {
			return i
		}
	}
	return -1
}

// dropAt takes note that an entry that waits was dropped; take is for the fence. A note before it is
// taken up, so that notes take no more room than what waits.
func (o *outbound) dropAt(i int, take uint64) {
	it := &o.waiting[i]
	o.live--
	o.bytes -= messageBytes(it.Message)
	*it = item{Entry: fsm.Entry{Seq: it.Seq}, take: take}
	if i == o.head || o.waiting[i-1].Message != nil {
		return
	}
	copy(o.waiting[o.head+1:i], o.waiting[o.head:i-1])
	o.waiting[o.head] = item{}
	o.head++
}

// resends tells whether a QoS 2 entry that an earlier connection may have sent under this packet id
// waits to be sent again. They are the first ones in the queue.
func (o *outbound) resends(id uint16) bool {
	for i := o.head; i < len(o.waiting); i++ {
		it := &o.waiting[i]
		if it.Message != nil && it.QoS > 0 && !it.dup {
			return false
		}
		if it.dup && it.QoS == 2 && fsm.PacketID(it.Seq) == id {
			return true
		}
	}
	return false
}

func (o *outbound) pop() {
	if m := o.waiting[o.head].Message; m != nil {
		o.live--
		o.bytes -= messageBytes(m)
	}
	o.waiting[o.head] = item{}
	o.head++
	if o.head == len(o.waiting) {
		o.waiting, o.head = o.waiting[:0], 0
		if cap(o.waiting) > 64 {
			o.waiting = nil
		}
	}
}

func (o *outbound) queued() int { return len(o.waiting) - o.head }

func messageBytes(m *fsm.Message) int { return len(m.Topic) + len(m.Payload) + len(m.Props) }
