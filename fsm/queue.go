package fsm

import "sort"

// The queue of a session is ascending by sequence. Between the cursor and the last sequence every
// number is either in the queue (perhaps done or received as well), or received alone (a
// tombstone), or it is through.

// hardCap bounds the queue of a connected session, whose own limits its owner keeps: entries that
// only wait for a cursor to commit must not count there.
func (l *Limits) hardCap() (entries int, bytes uint64) {
	if l.MaxQueue > 0 {
		entries = max(10*int(l.MaxQueue), int(l.MaxQueue)+10000) + int(l.Span)
	}
	if l.MaxQueueBytes > 0 {
		bytes = max(10*l.MaxQueueBytes, l.MaxQueueBytes+64<<20)
	}
	return entries, bytes
}

// size is what a message counts for in a queue.
func (m *Message) size() uint64 { return uint64(len(m.Topic) + len(m.Payload) + len(m.Props)) }

func (m *Message) expired(now int64) bool { return m.Expires != 0 && m.Expires <= now }

// settled tells whether the entry needs no more delivery: it is done, or at most a PUBREL is due.
func (s *sessionRow) settled(seq uint64) bool {
	return seq <= s.cursor || contains(s.done, seq) || contains(s.received, seq)
}

// find is the position of the first entry from seq on.
func (s *sessionRow) find(seq uint64) int {
	return sort.Search(len(s.queue), func(i int) bool { return s.queue[i].Seq >= seq })
}

// entry finds a queued entry.
func (s *sessionRow) entry(seq uint64) *Entry {
	i := s.find(seq)
	if i == len(s.queue) || s.queue[i].Seq != seq {
		return nil
	}
	return &s.queue[i]
}

// closeWindow moves the mark over all that a connection may have sent, if it ended without saying
// how far it came. The first call after the connection decides.
func (c *client) closeWindow() {
	s := c.sess
	if !s.closed {
		s.mark = max(s.mark, min(s.last, s.cursor+uint64(s.limits.Span)))
		s.closed = true
	}
}

// enqueue gives e the next sequence of the session, or drops it when the queue is full.
func (f *FSM) enqueue(c *client, e Entry) {
	f.touch(c)
	s := c.sess
	size := e.Message.size()
	online := c.online()
	if online {
		entries, bytes := s.limits.hardCap()
		if entries > 0 && len(s.queue) >= entries || bytes > 0 && s.bytes+size > bytes {
			f.dropped(c.id, ReasonQueueFull, 1)
			return
		}
	} else {
		c.closeWindow()
		if s.full(size) {
			f.purge(c)
			f.makeRoom(c, size)
			if s.full(size) {
				f.dropped(c.id, ReasonQueueFull, 1)
				return
			}
		}
		s.waiting++
		s.waitBytes += size
	}
	s.last++
	e.Seq = s.last
	s.push(e)
	f.counts.queued++
	if online && c.owner.node == f.node {
		f.emit(Effect{Kind: EffectEnqueued, Client: c.id, Epoch: c.epoch, Entry: e})
	}
}

func (s *sessionRow) push(e Entry) {
	s.queue = append(s.queue, e)
	s.bytes += e.Message.size()
	if at := e.Message.Expires; at != 0 && (s.expires == 0 || at < s.expires) {
		s.expires = at
	}
}

// full tells whether an offline session has no room for another size bytes.
func (s *sessionRow) full(size uint64) bool {
	if !s.counted {
		s.counted, s.waiting, s.waitBytes = true, 0, 0
		for i := range s.queue {
			if e := &s.queue[i]; !s.settled(e.Seq) {
				s.waiting++
				s.waitBytes += e.Message.size()
			}
		}
	}
	l := &s.limits
	return l.MaxQueue > 0 && s.waiting >= int(l.MaxQueue) || l.MaxQueueBytes > 0 && s.waitBytes+size > l.MaxQueueBytes
}

// makeRoom drops the oldest entries of a full queue that were never sent, where the session wants that,
// until another size bytes fit. Nothing is dropped if that can't be enough: what was possibly sent stays.
func (f *FSM) makeRoom(c *client, size uint64) {
	s := c.sess
	l := &s.limits
	if !l.DropOldest || !s.full(size) {
		return
	}
	sent, sentBytes := 0, uint64(0)
	for i := 0; i < len(s.queue) && s.queue[i].Seq <= s.mark; i++ {
		if e := &s.queue[i]; !s.settled(e.Seq) {
			sent++
			sentBytes += e.Message.size()
		}
	}
	if l.MaxQueue > 0 && sent >= int(l.MaxQueue) || l.MaxQueueBytes > 0 && sentBytes+size > l.MaxQueueBytes {
		return
	}
	for s.full(size) {
		e := s.oldest()
		s.done = union(s.done, []Range{{e.Seq, e.Seq}})
		s.waiting--
		s.waitBytes -= e.Message.size()
		f.dropped(c.id, ReasonQueueFull, 1)
		f.advance(s)
	}
	received := 0
	for _, r := range s.received {
		received += int(r.Hi - r.Lo + 1)
	}
	if len(s.queue) > 2*(s.waiting+received)+64 { // it holds more dropped messages than others
		f.removeEntries(s, s.done, nil)
	}
}

// oldest is the first entry that was never sent and waits, nil if there is none.
func (s *sessionRow) oldest() *Entry {
	for seq := max(s.mark, s.cursor) + 1; seq <= s.last; {
		if last := through(s.done, seq); last > 0 {
			seq = last + 1
			continue
		}
		i := s.find(seq)
		if i == len(s.queue) {
			return nil
		}
		e := &s.queue[i]
		if e.Seq == seq && !s.settled(seq) {
			return e
		}
		seq = max(seq+1, e.Seq)
	}
	return nil
}

// purge drops what has expired in the queue of a session that is not connected. A QoS 2 entry that
// was possibly sent leaves a tombstone: the client may hold its packet id, and would take the next
// message under it for a repeat.
func (f *FSM) purge(c *client) {
	s := c.sess
	if s.expires == 0 || s.expires > f.now {
		return
	}
	var gone, tombs []Range
	n := 0
	s.expires = 0
	for i := range s.queue {
		e := &s.queue[i]
		at := e.Message.Expires
		switch {
		case at == 0 || s.settled(e.Seq):
		case at > f.now:
			if s.expires == 0 || at < s.expires {
				s.expires = at
			}
		default:
			n++
			gone = extend(gone, e.Seq)
			if e.QoS == 2 && e.Seq <= s.mark {
				tombs = extend(tombs, e.Seq)
			}
		}
	}
	f.dropped(c.id, ReasonExpired, n)
	f.removeEntries(s, gone, tombs)
	f.advance(s)
}

// extend adds the next number to a set that is being built.
func extend(rs []Range, seq uint64) []Range {
	if n := len(rs); n > 0 && rs[n-1].Hi+1 == seq {
		rs[n-1].Hi = seq
		return rs
	}
	return append(rs, Range{seq, seq})
}

// removeEntries takes the entries of gone out of the queue; those of tombs stay as received.
func (f *FSM) removeEntries(s *sessionRow, gone, tombs []Range) {
	if len(gone) == 0 {
		return
	}
	var kept []Entry
	var bytes uint64
	if len(s.queue) > 0 {
		kept = make([]Entry, 0, len(s.queue))
	}
	for _, e := range s.queue {
		if !contains(gone, e.Seq) {
			kept = append(kept, e)
			bytes += e.Message.size()
		}
	}
	f.counts.queued -= len(s.queue) - len(kept)
	if len(kept) == 0 {
		kept = nil
	}
	s.queue, s.bytes, s.trimmed, s.counted = kept, bytes, 0, false
	s.received = union(s.received, tombs)
}

// trim forgets what the cursor has passed.
func (f *FSM) trim(s *sessionRow) {
	s.done, s.received = above(s.done, s.cursor), above(s.received, s.cursor)
	n := 0
	for n < len(s.queue) && s.queue[n].Seq <= s.cursor {
		s.bytes -= s.queue[n].Message.size()
		n++
	}
	if n == 0 {
		return
	}
	f.counts.queued -= n
	s.queue = s.queue[n:]
	s.trimmed += n
	switch {
	case len(s.queue) == 0:
		s.queue, s.trimmed, s.expires = nil, 0, 0
	case s.trimmed > len(s.queue)+64: // the array holds more dead messages than live ones
		s.queue, s.trimmed = append([]Entry(nil), s.queue...), 0
	}
}

// advance moves the cursor to where something is still to be done.
func (f *FSM) advance(s *sessionRow) {
	next := s.last + 1
	for i := range s.queue {
		if seq := s.queue[i].Seq; !contains(s.done, seq) {
			next = seq
			break
		}
	}
	if len(s.received) > 0 {
		next = min(next, s.received[0].Lo)
	}
	if next-1 > s.cursor {
		s.cursor = next - 1
		f.trim(s)
	}
}
