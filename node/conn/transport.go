package conn

import (
	"io"
	"net"
	"time"
)

// transport is what a connection needs of its socket. One reader and one writer use it at a time;
// limit, shut and close may come at any time.
type transport interface {
	// read blocks, holding no buffer of the pool, until bytes are there. They come in a batch of
	// the pool, behind a copy of head, which leaves room; the caller returns the batch. An error,
	// io.EOF for the client's end, comes without a batch.
	read(head []byte) (ba *Batch, n int, err error)
	// write never blocks. It takes what the socket takes now; less than p without an error means
	// that the socket is full.
	write(p []byte) (n int, err error)
	// writeAll blocks until the socket has taken p.
	writeAll(p []byte) error
	// limit makes everything that blocks fail when the lingering time is over. It does not block.
	limit()
	// shut ends the sending direction, after what was written. limit was called before.
	shut()
	// slow is true when shut may block for that time.
	slow() bool
	close()
}

// stream is any connection that is not a plain socket, as TLS. Its writes may block, so that a
// goroutine does them all; its reads block with a small buffer, which grows while there is much to
// read.
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

func (s *stream) write([]byte) (int, error) { return 0, nil }

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
