//go:build unix

package conn

import (
	"io"
	"net"
	"syscall"
	"time"
)

// newTransport prefers the raw descriptor: waiting for bytes then holds no buffer, and writing
// never blocks.
func newTransport(nc net.Conn) transport {
	if sc, ok := nc.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			s := &socket{nc: nc, rc: rc}
			s.readFn, s.writeFn = s.tryRead, s.tryWrite
			return s
		}
	}
	return &stream{nc: nc}
}

// socket is a TCP or Unix socket.
type socket struct {
	nc net.Conn
	rc syscall.RawConn

	// Between read and tryRead, write and tryWrite: closures made once, so that no call allocates.
	head    []byte
	ba      *Batch
	rn      int
	rerr    error
	readFn  func(uintptr) bool
	wp      []byte
	wn      int
	werr    error
	writeFn func(uintptr) bool
}

func (s *socket) tryRead(fd uintptr) bool {
	ba := getBatch()
	n, err := ignoringEINTR(syscall.Read, int(fd), ba.buf[len(s.head):])
	if err == syscall.EAGAIN { // the poller waits, and calls again
		putBatch(ba)
		return false
	}
	s.ba, s.rn, s.rerr = ba, n, err
	return true
}

func (s *socket) read(head []byte) (*Batch, int, error) {
	s.head = head
	err := s.rc.Read(s.readFn)
	ba := s.ba
	s.head, s.ba = nil, nil
	switch {
	case err != nil: // tryRead was not called, or not for the last time
		return nil, 0, err
	case s.rerr != nil:
		putBatch(ba)
		return nil, 0, s.rerr
	case s.rn <= 0:
		putBatch(ba)
		return nil, 0, io.EOF
	}
	copy(ba.buf, head)
	return ba, s.rn, nil
}

func (s *socket) tryWrite(fd uintptr) bool {
	s.wn, s.werr = ignoringEINTR(syscall.Write, int(fd), s.wp)
	return true
}

func (s *socket) write(p []byte) (int, error) {
	s.wp = p
	err := s.rc.Write(s.writeFn)
	s.wp = nil
	switch {
	case err != nil:
		return 0, err
	case s.werr == syscall.EAGAIN:
		return 0, nil
	case s.werr != nil:
		return 0, s.werr
	}
	return s.wn, nil
}

func (s *socket) writeAll(p []byte) error {
	_, err := s.nc.Write(p)
	return err
}

func (s *socket) limit() { _ = s.nc.SetDeadline(time.Now().Add(lingering)) }

func (s *socket) shut() {
	if cw, ok := s.nc.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite() // the reader meets what is wrong with the socket
	}
}

func (s *socket) slow() bool { return false }

func (s *socket) close() { _ = s.nc.Close() }

func ignoringEINTR(f func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	for {
		n, err := f(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
