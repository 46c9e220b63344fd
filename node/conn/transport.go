package conn

import (
	"io"
	"net"
	"time"
)

// transport is what a connection needs of its socket. One writer uses it at a time; limit and shut
// may come at any time.
type transport interface {
	// write never blocks. It takes what the socket takes now; less than p without an error means
	// that the socket is full.
	write(p []byte) (n int, err error)
	// limit makes everything that waits for the client fail when the lingering time is over. It does
	// not block.
	limit()
	// shut ends the sending direction, after what was written. limit was called before.
	shut()
	// slow is true when shut may block for that time.
	slow() bool
}

// evented is a transport whose connection a loop runs. Any other is a *stream.
type evented interface {
	transport
	// wake has the loop look at the connection's state. It does not block.
	wake()
}

// stream is any connection that is not a plain socket, as TLS. A goroutine reads it. Its writes may
// block, so that another one does them all; its reads block with a small buffer, which grows while
// there is much to read.
type stream struct {
	nc    net.Conn
	buf   []byte
	quiet int // reads in a row that a small buffer would have been enough for
}

const (
	streamSmall = 1 << 10
	streamLarge = 16 << 10 // a whole TLS record
	quietReads  = 8
)

// read blocks, holding no buffer of the pool, until bytes are there. They come in a batch of the
// pool, behind a copy of head, which leaves room; the caller returns the batch. An error, io.EOF for
// the client's end, comes without a batch.
func (s *stream) read(head []byte) (*Batch, int, error) {
	if s.buf == nil {
		s.buf = make([]byte, streamSmall)
	}
	n, err := s.nc.Read(s.buf)
	if n == 0 {
		if err == nil {
			err = io.ErrNoProgress
		}
		return nil, 0, err // an error that came with bytes comes again
	}
	ba := getBatch()
	copy(ba.buf[copy(ba.buf, head):], s.buf[:n])
	s.resize(n)
	return ba, n, nil
}

func (s *stream) resize(n int) {
	switch {
	case n == len(s.buf) && n < streamLarge:
		s.buf, s.quiet = make([]byte, 4*n), 0
	case n >= streamSmall || len(s.buf) == streamSmall:
		s.quiet = 0
	default:
		if s.quiet++; s.quiet == quietReads {
			s.buf, s.quiet = nil, 0
		}
	}
}

// drain reads and forgets what the client still sends after we ended the connection: closing a
// socket with unread bytes would reset it and take our last packet with it. Whoever flushes after
// End sets the deadline.
func (s *stream) drain() {
	for {
		ba, _, err := s.read(nil)
		if err != nil {
			return
		}
		putBatch(ba)
	}
}

func (s *stream) write([]byte) (int, error) { return 0, nil }

// writeAll blocks until the client has taken p.
func (s *stream) writeAll(p []byte) error {
	_, err := s.nc.Write(p)
	return err
}

func (s *stream) limit() { _ = s.nc.SetDeadline(time.Now().Add(lingering)) }

func (s *stream) shut() {
	if cw, ok := s.nc.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite()
		return
	}
	_ = s.nc.Close()
}

func (s *stream) slow() bool { return true }

func (s *stream) close() { _ = s.nc.Close() }
