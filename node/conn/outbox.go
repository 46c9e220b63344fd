package conn

// Out is the outbox, to append to. Caller holds Lock and gives the result to SetOut.
func (c *Conn) Out() []byte {
	if c.out == nil {
		c.out = getBuffer()
	}
	return c.out
}

// SetOut stores what was appended to Out and puts the connection into ba to be flushed. What comes
// after the connection's end is forgotten. Caller holds Lock.
func (c *Conn) SetOut(b []byte, ba *Batch) {
	c.out = b
	if len(b) <= headRoom || c.flushed {
		c.release()
		return
	}
	c.Mark(ba)
}

// Mark puts the connection into ba to be flushed. Caller holds Lock.
func (c *Conn) Mark(ba *Batch) {
	if !c.dirty {
		c.dirty = true
		ba.dirty = append(ba.dirty, c)
	}
}

// OutLen is how many bytes wait for the socket. Caller holds Lock.
func (c *Conn) OutLen() int { return max(0, len(c.out)-headRoom) }

// Sent is how many bytes were given to the socket, or wait for it alone. Caller holds Lock.
func (c *Conn) Sent() uint64 { return c.sent }

// NotifyDrained asks for one call of Drained when the outbox, which was or will be filled and
// marked, has gone, whether or not the socket refuses any of it. Caller holds Lock.
func (c *Conn) NotifyDrained() { c.notify = true }

// release drops the outbox, and what a full socket has left over. Caller holds Lock.
func (c *Conn) release() {
	if c.out != nil {
		putBuffer(c.out)
		c.out = nil
	}
	if c.rest != nil {
		putBuffer(c.rest)
		c.rest = nil
	}
}

// next takes what has to be written now, from off on; nil when that is nothing. Caller holds Lock
// and is the writer.
func (c *Conn) next() (buf []byte, off int) {
	if c.flushed {
		return nil, 0
	}
	if c.ws != nil {
		if buf = c.ws.control(); buf != nil {
			return buf, 0
		}
	}
	if len(c.out) > headRoom {
		buf, c.out = c.out, nil
		off = headRoom
		if c.ws != nil {
			off = wsHeader(buf)
		}
		c.sent += uint64(len(buf) - off)
		return buf, off
	}
	if c.ws != nil && c.ended {
		return c.ws.farewell(), 0
	}
	return nil, 0
}

// flush is the combining flush: one writer at a time, others leave their bytes to it. It never
// blocks: a full socket is waited for by its loop, or in a goroutine of its own, which Serve waits for.
func (c *Conn) flush(ba *Batch) {
	c.mu.Lock()
	c.dirty = false
	if c.ended && !c.limited && !c.flushed {
		c.limited = true
		c.mu.Unlock()
		c.t.limit()
		c.mu.Lock()
	}
	if c.writing || c.flushed {
		c.mu.Unlock()
		return
	}
	c.writing = true
	buf, off := c.next()
	c.writeOut(buf, off, ba)
}

// proceed goes on after a full socket, which has room again.
func (c *Conn) proceed(ba *Batch) {
	c.mu.Lock()
	if c.rest == nil {
		c.mu.Unlock()
		return
	}
	buf := c.rest
	c.rest = nil
	c.writeOut(buf, c.restAt, ba)
}

// writeOut writes buf from off on, and then the outbox, as far as the socket takes it. Caller holds
// Lock, which is released, and is the writer.
func (c *Conn) writeOut(buf []byte, off int, ba *Batch) {
	for ; buf != nil; buf, off = c.next() {
		c.mu.Unlock()
		n, err := c.t.write(buf[off:])
		off += n
		c.mu.Lock()
		switch {
		case c.flushed: // aborted meanwhile
			putBuffer(buf)
		case err != nil:
			putBuffer(buf)
			c.giveUp(false) // the reader meets what is wrong with the socket
			return
		case off < len(buf) && c.ev != nil:
			c.rest, c.restAt, c.notify = buf, off, true
			c.ev.wake()
			c.mu.Unlock()
			return
		case off < len(buf):
			c.wg.Add(1)
			c.mu.Unlock()
			go c.finish(c.t.(*stream), buf, off)
			return
		default:
			putBuffer(buf)
		}
	}
	h := c.h
	if !c.notify {
		h = nil
	}
	if c.written() && h != nil {
		h.Drained(ba)
	}
}

// written ends the writer's turn; false when the connection has ended with it. Caller holds Lock,
// which is released.
func (c *Conn) written() bool {
	c.writing, c.notify = false, false
	if !c.ended {
		c.mu.Unlock()
		return true
	}
	if c.flushed {
		c.mu.Unlock()
	} else {
		c.giveUp(true)
	}
	return false
}

// finish waits for a full socket and writes the rest, and then the outbox, which has filled
// meanwhile.
func (c *Conn) finish(s *stream, buf []byte, off int) {
	defer c.wg.Done()
	for buf != nil {
		err := s.writeAll(buf[off:])
		putBuffer(buf)
		c.mu.Lock()
		if err != nil && !c.flushed {
			c.giveUp(false)
			return
		}
		if buf, off = c.next(); buf != nil {
			c.mu.Unlock()
		}
	}
	h := c.h
	if !c.written() || h == nil {
		return
	}
	ba := getBatch()
	h.Drained(ba)
	ba.Flush()
	putBatch(ba)
}
