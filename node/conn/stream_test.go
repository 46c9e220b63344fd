package conn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// acceptTLS returns both ends of a TLS connection.
func acceptTLS(t testing.TB) (server, client *tls.Conn) {
	t.Helper()
	s, c := accept(t)
	server = tls.Server(s, &tls.Config{Certificates: []tls.Certificate{certificate()}})
	client = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Handshake() })
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	return server, client
}

func startTLS(t testing.TB, c **Conn, h *hooks) *tls.Conn {
	t.Helper()
	s, client := acceptTLS(t)
	*c = New(s, "tls")
	serve(t, *c, h)
	t.Cleanup(func() { client.NetConn().Close() })
	return client
}

func TestTLSEcho(t *testing.T) {
	var c *Conn
	h := &hooks{}
	h.data = echo(&c)
	client := startTLS(t, &c, h)
	for _, n := range []int{1, streamSmall, 4000, streamLarge, 1 << 20, 3, 3} {
		b := random(n)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = client.Write(b) })
		mustRead(t, client, b)
		wg.Wait()
	}
	client.Close()
	if err := h.wait(t); !errors.Is(err, io.EOF) {
		t.Errorf("Closed got %v", err)
	}
}

// TestTLSEnd: the last bytes arrive, then the end, in TLS's own form.
func TestTLSEnd(t *testing.T) {
	var c *Conn
	h := &hooks{}
	client := startTLS(t, &c, h)
	last := random(300 << 10)
	ba := NewBatch()
	send(c, ba, last)
	c.Lock()
	c.End()
	c.Mark(ba)
	c.Unlock()
	ba.Flush()
	mustRead(t, client, last)
	mustEOF(t, client)
	client.Close()
	if err := h.wait(t); !errors.Is(err, ErrClosed) {
		t.Errorf("Closed got %v", err)
	}
}

// TestTLSSlow: a client that does not read keeps no caller; Drained comes when it does.
func TestTLSSlow(t *testing.T) {
	t.Parallel()
	var drained atomic.Bool
	var c *Conn
	h := &hooks{drained: func(*Batch) { drained.Store(true) }}
	client := startTLS(t, &c, h)
	want := random(16 << 20) // more than the buffers of the kernel
	ba := NewBatch()
	send(c, ba, want)
	ba.Flush()
	send(c, ba, []byte("more"))
	ba.Flush()
	if drained.Load() {
		t.Error("drained too early")
	}
	mustRead(t, client, append(want, "more"...))
	eventually(t, "Drained is called", drained.Load)
}

// TestTLSAbort: a stuck write does not keep an aborted connection, nor whoever aborts it.
func TestTLSAbort(t *testing.T) {
	t.Parallel()
	var c *Conn
	h := &hooks{}
	startTLS(t, &c, h)
	ba := NewBatch()
	send(c, ba, random(16<<20))
	ba.Flush()
	began := time.Now()
	c.Abort()
	if d := time.Since(began); d > lingering {
		t.Errorf("Abort took %v", d)
	}
	if err := h.wait(t); !errors.Is(err, ErrClosed) {
		t.Errorf("Closed got %v", err)
	}
}

func TestTLSWebSocket(t *testing.T) {
	s, client := acceptTLS(t)
	var c *Conn
	h := &hooks{}
	h.data = echo(&c)
	c = upgrade(t, s, client)
	serve(t, c, h)
	mustWrite(t, client, frame(fin|opBinary, []byte("hello")))
	mustReadFrame(t, client, opBinary, []byte("hello"))
	end(c)
	mustReadFrame(t, client, opClose, closing(1000, ""))
	mustEOF(t, client)
	client.Close()
}

// TestPipe: a connection that can't be half closed is closed.
func TestPipe(t *testing.T) {
	s, client := net.Pipe()
	var c *Conn
	h := &hooks{}
	h.data = echo(&c)
	c = New(s, "pipe")
	serve(t, c, h)
	mustWrite(t, client, []byte("x"))
	mustRead(t, client, []byte("x"))
	end(c)
	mustEOF(t, client)
	if err := h.wait(t); !errors.Is(err, ErrClosed) {
		t.Errorf("Closed got %v", err)
	}
}

// TestStreamBuffer: it grows while there is much to read, and goes back.
func TestStreamBuffer(t *testing.T) {
	s := &stream{buf: make([]byte, streamSmall)}
	for len(s.buf) < streamLarge {
		s.resize(len(s.buf))
	}
	s.resize(streamLarge)
	if len(s.buf) != streamLarge {
		t.Fatalf("the buffer has %d bytes", len(s.buf))
	}
	for range quietReads - 1 {
		s.resize(10)
	}
	s.resize(streamSmall)
	for range quietReads {
		if s.buf == nil {
			t.Fatal("the buffer went too early")
		}
		s.resize(10)
	}
	if s.buf != nil {
		t.Error("the buffer stays large")
	}
}
