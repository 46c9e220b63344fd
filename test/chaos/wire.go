package chaos

import (
	"bufio"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/test/harness"
)

// wire is one connection. Its reader hands packets over one by one: a client that does not take
// them stops reading, and the broker's writes get stuck in small socket buffers.
type wire struct {
	conn    net.Conn
	version byte
	in      chan harness.Packet
	gone    chan struct{} // closed by close
	once    sync.Once
	ended   chan struct{} // closed when the reader has ended, after in
	err     error         // why, once it has
}

const (
	dialTime  = time.Second
	writeTime = 3 * time.Second
	// socketBuffer is small, so that a reader that stops is felt at once.
	socketBuffer = 8 << 10
)

func dial(address string, version byte) (*wire, error) {
	conn, err := net.DialTimeout("tcp", address, dialTime)
	if err != nil {
		return nil, err
	}
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetReadBuffer(socketBuffer)
	}
	w := &wire{conn: conn, version: version, in: make(chan harness.Packet, 4), gone: make(chan struct{}), ended: make(chan struct{})}
	go w.read()
	return w, nil
}

// read ends when the connection does; close waits for it.
func (w *wire) read() {
	defer close(w.ended)
	defer close(w.in)
	r := bufio.NewReaderSize(w.conn, 2<<10)
	for {
		p, err := harness.ReadPacket(r, w.version)
		if err != nil {
			w.err = err
			return
		}
		select {
		case w.in <- p:
		case <-w.gone:
			return
		}
	}
}

func (w *wire) send(p harness.Packet) error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	_, err := w.conn.Write(p.Encode(w.version))
	return err
}

// close ends the connection; abruptly is RST instead of FIN.
func (w *wire) close(abruptly bool) {
	w.once.Do(func() {
		close(w.gone)
		if c, ok := w.conn.(*net.TCPConn); ok && abruptly {
			_ = c.SetLinger(0)
		}
		_ = w.conn.Close()
	})
	<-w.ended
}

// malformed tells whether the broker broke the wire format. Only after in was closed.
func (w *wire) malformed() bool { return errors.Is(w.err, harness.ErrMalformed) }
