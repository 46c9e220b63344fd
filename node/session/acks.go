package session

// ackQueue keeps acknowledgements of one packet type in the order of the packets that they
// answer [MQTT-4.6.0-2, MQTT-4.6.0-3]: one that is ready waits for those before it.
type ackQueue struct {
	base uint64 // slot number of q[head]
	head int
	q    []ack
}

type ack struct {
	id    uint16
	code  byte
	ready bool
	codes []byte // SUBACK and UNSUBACK
}

// queue is the acknowledgements of a kind. Most sessions that are idle never had any.
func (s *Session) queue(k AckKind) *ackQueue {
	if s.acks == nil {
		s.acks = new([ackKinds]ackQueue)
	}
	return &s.acks[k]
}

// open reserves the next place and returns its slot number.
func (a *ackQueue) open(id uint16) uint64 {
	if a.head > 0 && a.head == len(a.q) {
		a.q, a.head = a.q[:0], 0
	}
	a.q = append(a.q, ack{id: id})
	return a.base + uint64(len(a.q)-a.head) - 1
}

// done marks a slot ready. A slot that was released already is ignored.
func (a *ackQueue) done(slot uint64, code byte, codes []byte) {
	if slot < a.base || slot >= a.base+uint64(len(a.q)-a.head) {
		return
	}
	p := &a.q[a.head+int(slot-a.base)]
	p.code, p.codes, p.ready = code, codes, true
}

// next takes the first acknowledgement if it is ready.
func (a *ackQueue) next() (ack, bool) {
	if a.head == len(a.q) || !a.q[a.head].ready {
		return ack{}, false
	}
	p := a.q[a.head]
	a.q[a.head] = ack{}
	a.head++
	a.base++
	if a.head == len(a.q) {
		a.q, a.head = a.q[:0], 0
		if cap(a.q) > 64 {
			a.q = nil
		}
	} else if a.head > 64 && a.head*2 > len(a.q) {
		a.q = a.q[:copy(a.q, a.q[a.head:])]
		a.head = 0
	}
	return p, true
}

// pending is how many places are open.
func (a *ackQueue) pending() int { return len(a.q) - a.head }
