package conn

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds whatever a test waits for.
const patience = 10 * time.Second

// hooks is a Handler of functions; those that are nil do nothing. It keeps the connection's fate.
type hooks struct {
	data    func(b []byte, ba *Batch) (int, error)
	drained func(ba *Batch)
	closed  chan struct{}
	err     error
}

func (h *hooks) Data(b []byte, ba *Batch) (int, error) {
	if h.data == nil {
		return len(b), nil
	}
	return h.data(b, ba)
}

func (h *hooks) Drained(ba *Batch) {
	if h.drained != nil {
		h.drained(ba)
	}
}

func (h *hooks) Closed(err error) {
	h.err = err
	close(h.closed)
}

// wait waits for Closed and returns its error.
func (h *hooks) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-h.closed:
		return h.err
	case <-time.After(patience):
		t.Fatal("the connection does not end")
		return nil
	}
}

// accept returns both ends of a loopback connection.
func accept(t testing.TB) (server, client *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// serve runs c until the test's end, when everything of it has to be gone.
func serve(t testing.TB, c *Conn, h *hooks) {
	t.Helper()
	h.closed = make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go c.Serve(h, wg.Done)
	eventually(t, "Serve begins", func() bool {
		c.Lock()
		defer c.Unlock()
		return c.h != nil
	})
	t.Cleanup(func() {
		c.Abort()
		wg.Wait()
	})
}

// start is accept and serve.
func start(t testing.TB, h *hooks) (*Conn, *net.TCPConn) {
	t.Helper()
	var c *Conn
	client := startAs(t, &c, h)
	return c, client
}

// startAs sets c before h is called.
func startAs(t testing.TB, c **Conn, h *hooks) (client *net.TCPConn) {
	t.Helper()
	s, client := accept(t)
	*c = New(s, "test")
	serve(t, *c, h)
	t.Cleanup(func() { client.Close() }) // first, so that Serve need not linger
	return client
}

// send appends to the outbox.
func send(c *Conn, ba *Batch, p []byte) {
	c.Lock()
	defer c.Unlock()
	c.SetOut(append(Grow(c.Out(), len(p)), p...), ba)
}

// end ends c as its handler's owner does.
func end(c *Conn) {
	ba := NewBatch()
	c.Lock()
	c.End()
	c.Mark(ba)
	c.Unlock()
	ba.Flush()
}

// echo sends back what comes.
func echo(c **Conn) func([]byte, *Batch) (int, error) {
	return func(b []byte, ba *Batch) (int, error) {
		send(*c, ba, b)
		return len(b), nil
	}
}

// packets makes a Data of length-prefixed packets (one byte), each given to fn.
func packets(fn func(p []byte, ba *Batch) error) func([]byte, *Batch) (int, error) {
	return func(b []byte, ba *Batch) (int, error) {
		used := 0
		for len(b) > used && len(b) >= used+1+int(b[used]) {
			n := 1 + int(b[used])
			if err := fn(b[used+1:used+n], ba); err != nil {
				return used + n, err
			}
			used += n
		}
		return used, nil
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func mustWrite(t testing.TB, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, r io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("read %d of %d bytes: %v", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got %d other bytes than were sent", len(got))
	}
}

func mustEOF(t testing.TB, r io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Fatalf("%d bytes more, then %v: want the end", len(rest), err)
	}
}

// eventually polls.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it does not happen that %s", what)
		}
	}
}

var noDeadline time.Time

var errHandler = errors.New("the handler's own")

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
