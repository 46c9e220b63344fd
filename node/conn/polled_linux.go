package conn

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// polled is a TCP or Unix socket that a loop reads. Its descriptor is its own: the net.Conn that it
// came with is closed, and with it goes what the runtime keeps for one.
type polled struct {
	fd    int32
	slot  int32        // in loop.sockets
	users atomic.Int32 // of fd: its owner, and those in a system call; the last one closes it
	loop  *loop
	c     *Conn

	timer   atomic.Pointer[time.Timer] // ends the time that an ended connection has
	expired atomic.Bool

	// The loop's own.
	entered  bool
	gone     bool
	draining bool   // what comes is forgotten: the connection has ended, with err
	events   uint32 // that epoll waits for; 0: it does not know the socket
	err      error

	woken bool // guarded by loop.mu
}

// newTransport has a loop read what has a descriptor; anything else is a stream.
func newTransport(c *Conn, nc net.Conn) transport {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return &stream{nc: nc}
	}
	l, err := nextLoop()
	if err != nil {
		return &stream{nc: nc}
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return &stream{nc: nc}
	}
	p := &polled{fd: -1, loop: l, c: c}
	err = rc.Control(func(fd uintptr) {
		own, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
		if errno == 0 {
			p.fd = int32(own)
		}
	})
	if err != nil || p.fd < 0 { // there are no more descriptors
		return &stream{nc: nc}
	}
	nc.Close()
	p.users.Store(1)
	return p
}

func (p *polled) wake() { p.loop.wake(p) }

// look brings a socket that was woken in line with its connection's state.
func (p *polled) look(ba *Batch) {
	if p.gone {
		return
	}
	c := p.c
	if !p.entered {
		c.mu.Lock()
		begun := c.h != nil
		c.mu.Unlock()
		if !begun { // Serve will wake it
			return
		}
		p.entered = true
		p.loop.enter(p)
		if c.ws != nil && len(c.ws.early) > 0 {
			n := copy(ba.buf, c.ws.early)
			c.ws.early = nil
			p.step(ba, false, n)
		}
	}
	if p.expired.Load() {
		p.end(ErrClosed)
		return
	}
	c.mu.Lock()
	again, ended := c.again, c.ended
	c.again = false
	c.mu.Unlock()
	switch {
	case ended:
		p.drain(ErrClosed)
	case again && !p.draining:
		p.step(ba, false, 0)
	}
	p.arm()
}

// handle takes what epoll has seen.
func (p *polled) handle(events uint32, ba *Batch) {
	if events&syscall.EPOLLOUT != 0 {
		p.c.proceed(ba)
		p.arm()
	}
	if events&^uint32(syscall.EPOLLOUT) != 0 && !p.gone {
		p.read(ba)
	}
}

func (p *polled) read(ba *Batch) {
	c := p.c
	var head []byte
	if !p.draining {
		c.mu.Lock()
		paused := c.paused && !c.ended
		c.mu.Unlock()
		if paused {
			p.arm()
			return
		}
		if len(c.partial) <= readSize/2 {
			head = c.partial
		}
	}
	n, errno := readSocket(p.fd, ba.buf[len(head):])
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return
	case errno != 0:
		p.end(errno)
		return
	case n == 0:
		p.end(io.EOF)
		return
	}
	p.loop.ready += n
	if p.draining {
		return
	}
	c.last.Store(Tick())
	copy(ba.buf, head)
	p.step(ba, len(head) > 0, n)
}

// step is Conn.step, and forgets what comes after an error.
func (p *polled) step(ba *Batch, joined bool, n int) {
	if err := p.c.step(ba, joined, n); err != nil {
		p.drain(err)
	}
}

// drain has the rest of what the client sends read and forgotten. limit, which whoever flushes after
// End calls, bounds that.
func (p *polled) drain(err error) {
	if !p.draining {
		p.draining, p.err = true, err
		p.c.partial = nil
	}
}

// arm has epoll wait for what the connection wants to know.
func (p *polled) arm() {
	if p.gone {
		return
	}
	c := p.c
	c.mu.Lock()
	var want uint32
	if p.draining || !c.paused || c.ended {
		want = syscall.EPOLLIN
	}
	if c.rest != nil {
		want |= syscall.EPOLLOUT
	}
	c.mu.Unlock()
	if want == p.events {
		return
	}
	op := syscall.EPOLL_CTL_MOD
	switch {
	case p.events == 0:
		op = syscall.EPOLL_CTL_ADD
	case want == 0: // of a socket that it knows, epoll reports the client's end even if it isn't asked
		op = syscall.EPOLL_CTL_DEL
	}
	if err := syscall.EpollCtl(p.loop.epoll, op, int(p.fd), &syscall.EpollEvent{Events: want, Fd: p.slot}); err != nil {
		p.end(err) // no memory, or fs.epoll.max_user_watches
		return
	}
	p.events = want
}

// end closes the socket. err is why, unless the connection has ended already.
func (p *polled) end(err error) {
	c := p.c
	c.mu.Lock()
	if p.draining {
		err = p.err
	} else if c.ended {
		err = ErrClosed
	}
	c.ended, c.flushed = true, true
	c.release()
	c.mu.Unlock()
	p.gone = true
	if t := p.timer.Swap(nil); t != nil {
		t.Stop()
	}
	if p.events != 0 {
		_ = syscall.EpollCtl(p.loop.epoll, syscall.EPOLL_CTL_DEL, int(p.fd), nil)
		p.events = 0
	}
	p.loop.leave(p)
	p.close()
	c.partial = nil
	c.h.Closed(err)
	c.done()
}

// use keeps the descriptor from being closed, and given to another socket, until unuse; false when
// it has been.
func (p *polled) use() bool {
	for {
		n := p.users.Load()
		if n == 0 {
			return false
		}
		if p.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (p *polled) unuse() {
	if p.users.Add(-1) == 0 {
		syscall.Close(int(p.fd))
	}
}

func (p *polled) write(b []byte) (int, error) {
	if !p.use() {
		return 0, net.ErrClosed
	}
	defer p.unuse()
	for {
		n, errno := writeSocket(p.fd, b)
		switch errno {
		case 0:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, errno
		}
	}
}

func (p *polled) limit() {
	t := time.AfterFunc(lingering, func() {
		p.expired.Store(true)
		p.loop.wake(p)
	})
	if old := p.timer.Swap(t); old != nil {
		old.Stop()
	}
}

func (p *polled) shut() {
	if p.use() {
		_ = syscall.Shutdown(int(p.fd), syscall.SHUT_WR)
		p.unuse()
	}
}

func (p *polled) slow() bool { return false }

// close gives up the owner's use.
func (p *polled) close() { p.unuse() }
