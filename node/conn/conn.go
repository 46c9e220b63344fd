// Package conn carries bytes between one client's socket and the protocol above it: an event loop
// that reads many sockets into one buffer (a goroutine of its own where there is no descriptor to
// wait for, as with TLS), and an outbox that is flushed by whoever filled it. Sockets differ behind
// the small transport interface; WebSocket is a layer in between.
//
// It knows no MQTT, and its callers never wait for a socket: what a socket does not take stays in
// the outbox, and the protocol above bounds that.
package conn

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Handler is the protocol above a connection. No call may block: each may run on a goroutine that
// serves other connections, too.
type Handler interface {
	// Data is called by the reader with the bytes that are there, an earlier rest first. It returns
	// how many it used; b is not its own. What it leaves is kept and comes again with more behind
	// it: Data refuses what it will not wait for. An error closes the connection like End.
	Data(b []byte, ba *Batch) (used int, err error)
	// Drained is called when the socket took all of an outbox that it had refused before, or that
	// NotifyDrained asked about. Whoever flushed calls it, without Lock.
	Drained(ba *Batch)
	// Closed is the last call, once, when the reader has ended: with what Data returned, ErrClosed
	// when this node ended the connection, io.EOF when the client did, or the socket's error.
	Closed(err error)
}

// ErrClosed is what Closed gets after End or Abort.
var ErrClosed = errors.New("conn: closed by this node")

// lingering is how long an ended connection may take to send what is left, and then how long it is
// read, so that the client sees our last packet before a reset.
const lingering = time.Second

// headRoom is left free at the start of an outbox buffer for a WebSocket frame header.
const headRoom = 10

// Conn is one connection. Its mutex also guards the protocol state of its handler; it is never
// held during a system call.
type Conn struct {
	mu      sync.Mutex
	out     []byte // starts with headRoom free bytes; nil when empty
	sent    uint64 // bytes that have left out
	dirty   bool   // in somebody's batch, which will flush it
	writing bool   // somebody writes: in a system call, or waiting for a full socket
	notify  bool   // Drained is wanted once the outbox has gone
	ended   bool   // nothing more is sent than what is in the outbox
	limited bool   // ended, and the time for that is running
	flushed bool   // nothing more is written
	paused  bool
	again   bool       // resumed: Data has to see its rest again
	wake    *sync.Cond // for a paused reader of its own; nil until the first pause
	rest    []byte     // what a full socket, which a loop waits for, has left over; from restAt
	restAt  int

	h        Handler // nil before Serve
	done     func()
	t        transport
	ev       evented   // t, if a loop runs it
	ws       *wsReader // nil: not a WebSocket
	partial  []byte    // what Data left over; the reader's
	last     atomic.Int64
	remote   net.Addr
	listener string
	wg       sync.WaitGroup // Add under mu and only while !flushed
}

// New wraps an accepted socket. Serve runs it.
func New(nc net.Conn, listener string) *Conn {
	c := &Conn{remote: nc.RemoteAddr(), listener: listener}
	c.t = newTransport(c, nc)
	c.ev, _ = c.t.(evented)
	c.last.Store(Tick())
	return c
}

// RemoteAddr is the client's address, as the socket or the PROXY protocol tells it.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Listener is the name of the listener that accepted the connection.
func (c *Conn) Listener() string { return c.listener }

// Lock guards the handler's protocol state and the outbox.
func (c *Conn) Lock() { c.mu.Lock() }

// Unlock ends Lock.
func (c *Conn) Unlock() { c.mu.Unlock() }

// Idle is how many ticks ago bytes last arrived.
func (c *Conn) Idle() int64 { return Tick() - c.last.Load() }

// Serve has the connection read until it ends, and calls done after h.Closed. Where a loop reads it
// returns at once, else after done.
func (c *Conn) Serve(h Handler, done func()) {
	c.mu.Lock()
	c.h, c.done = h, done
	c.mu.Unlock()
	if c.ev != nil {
		c.ev.wake()
		return
	}
	s := c.t.(*stream)
	err := c.readLoop(s)
	c.mu.Lock()
	c.ended, c.flushed = true, true
	c.release()
	c.mu.Unlock()
	s.close()
	c.wg.Wait()
	c.partial = nil
	h.Closed(err)
	done()
}

func (c *Conn) readLoop(s *stream) error {
	if c.ws != nil && len(c.ws.early) > 0 {
		ba := getBatch()
		n := copy(ba.buf, c.ws.early)
		c.ws.early = nil
		if err := c.turn(s, ba, false, n); err != nil {
			return err
		}
	}
	for {
		again, err := c.await()
		if err != nil {
			s.drain()
			return err
		}
		if again {
			if err := c.turn(s, getBatch(), false, 0); err != nil {
				return err
			}
			continue
		}
		var head []byte
		if len(c.partial) <= readSize/2 {
			head = c.partial
		}
		ba, n, err := s.read(head)
		if err != nil {
			if c.isEnded() {
				return ErrClosed
			}
			return err
		}
		c.last.Store(Tick())
		if err := c.turn(s, ba, len(head) > 0, n); err != nil {
			return err
		}
	}
}

// turn handles what a read brought, flushes what came of it, and returns the batch to its pool.
// After an error the connection has ended in good order.
func (c *Conn) turn(s *stream, ba *Batch, joined bool, n int) error {
	err := c.step(ba, joined, n)
	ba.Flush()
	putBatch(ba)
	if err != nil {
		s.drain()
	}
	return err
}

// step handles what a read brought. After an error the connection has ended in good order, as soon
// as ba is flushed.
func (c *Conn) step(ba *Batch, joined bool, n int) error {
	err := c.feed(ba, joined, n)
	if err == nil && c.ws != nil && c.ws.err != nil && !c.hasPaused() {
		err = c.ws.err
	}
	if err != nil {
		c.mu.Lock()
		c.End()
		c.Mark(ba)
		c.mu.Unlock()
	}
	return err
}

// feed hands Data what it left over and n fresh bytes behind it. They stand in ba.buf, if joined
// with a copy of the rest before them.
func (c *Conn) feed(ba *Batch, joined bool, n int) error {
	at := 0
	if joined {
		at = len(c.partial)
	}
	fresh := ba.buf[at : at+n]
	if c.ws != nil && n > 0 {
		fresh = c.ws.decode(c, ba, fresh)
	}
	c.mu.Lock()
	ended, paused := c.ended, c.paused
	c.mu.Unlock()
	switch {
	case ended:
		return ErrClosed
	case paused: // since this read began
		c.partial = append(c.partial, fresh...)
		return nil
	case n > 0 && len(fresh) == 0: // nothing but parts of frames
		return nil
	}
	if joined || len(c.partial) == 0 {
		data := ba.buf[:at+len(fresh)]
		if len(data) == 0 {
			return nil
		}
		used, err := c.h.Data(data, ba)
		if used == 0 {
			c.partial = append(c.partial, fresh...)
		} else {
			c.keep(data[used:])
		}
		return err
	}
	c.partial = append(c.partial, fresh...)
	used, err := c.h.Data(c.partial, ba)
	if used > 0 {
		c.keep(c.partial[used:])
	}
	return err
}

// keep stores what Data left over. A buffer that became much too large is given up.
func (c *Conn) keep(rest []byte) {
	switch {
	case len(rest) == 0:
		c.partial = nil
	case cap(c.partial) > 4*len(rest)+4096:
		c.partial = append([]byte(nil), rest...)
	default:
		c.partial = append(c.partial[:0], rest...)
	}
}

func (c *Conn) isEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

func (c *Conn) hasPaused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paused || c.again
}

// Pause makes the reader stop after the current call of Data, until Resume. A paused connection
// does not notice that its client is gone: whoever pauses has to resume it, or end it, some time.
// Caller holds Lock.
func (c *Conn) Pause() {
	c.paused = true
	if c.wake == nil && c.ev == nil {
		c.wake = sync.NewCond(&c.mu)
	}
}

// Resume lets a paused reader go on with what Data left over. Caller holds Lock.
func (c *Conn) Resume() {
	if !c.paused {
		return
	}
	c.paused, c.again = false, true
	if c.ev != nil {
		c.ev.wake()
	} else {
		c.wake.Signal()
	}
}

// await blocks while the reader is paused. again is true when Data has to see its rest again.
func (c *Conn) await() (again bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.paused && !c.ended {
		c.wake.Wait()
	}
	again, c.again = c.again, false
	if c.ended {
		return false, ErrClosed
	}
	return again, nil
}

// End stops sending: what is in the outbox still goes out if the socket takes it in time, then the
// client is disconnected. Data is not called again. Caller holds Lock and flushes afterwards (Mark).
func (c *Conn) End() {
	if c.ended {
		return
	}
	c.ended = true
	c.Resume()
}

// Ended is true after End or when the reader has ended. Caller holds Lock.
func (c *Conn) Ended() bool { return c.ended }

// Abort ends the connection without waiting for the outbox. It does not block.
func (c *Conn) Abort() {
	c.mu.Lock()
	c.End()
	if c.flushed {
		c.mu.Unlock()
		return
	}
	c.giveUp(false)
}

// giveUp writes no more and ends the sending direction; the reader ends soon after. fresh gives the
// client the whole lingering time, whatever of it has passed. Caller holds Lock, which is released,
// and has seen that !flushed.
func (c *Conn) giveUp(fresh bool) {
	fresh = fresh || !c.limited
	c.flushed, c.limited = true, true
	c.release()
	if !c.t.slow() {
		c.mu.Unlock()
		c.shut(fresh)
		return
	}
	c.wg.Add(1)
	c.mu.Unlock()
	go func() {
		defer c.wg.Done()
		c.shut(fresh)
	}()
}

func (c *Conn) shut(fresh bool) {
	if fresh {
		c.t.limit()
	}
	c.t.shut()
}
