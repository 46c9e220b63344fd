package conn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestEcho(t *testing.T) {
	var c *Conn
	h := &hooks{}
	h.data = echo(&c)
	client := startAs(t, &c, h)
	for _, n := range []int{1, 100, bufferSize, readSize, 300 << 10, 1 << 20} {
		b := random(n)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = client.Write(b) })
		mustRead(t, client, b)
		wg.Wait()
	}
	client.Close()
	if err := h.wait(t); !errors.Is(err, io.EOF) {
		t.Fatalf("Closed got %v", err)
	}
	if c.Listener() != "test" || c.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("listener %q, remote %v", c.Listener(), c.RemoteAddr())
	}
}

func TestUnixSocket(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var c *Conn
	h := &hooks{}
	h.data = echo(&c)
	c = New(s, "unix")
	serve(t, c, h)
	mustWrite(t, client, []byte("hello"))
	mustRead(t, client, []byte("hello"))
	end(c)
	mustEOF(t, client)
}

// TestPartial: packets that come byte by byte, and many at once with a cut anywhere.
func TestPartial(t *testing.T) {
	var all []byte
	for n := range 250 {
		all = append(append(all, byte(n)), random(n)...)
	}
	for name, step := range map[string]int{"bytes": 1, "sevens": 7, "thousands": 1000, "all": len(all)} {
		t.Run(name, func(t *testing.T) {
			var got []byte
			done := make(chan struct{})
			h := &hooks{data: packets(func(p []byte, _ *Batch) error {
				got = append(append(got, byte(len(p))), p...)
				if len(p) == 249 {
					close(done)
				}
				return nil
			})}
			_, client := start(t, h)
			for b := all; len(b) > 0; {
				n := min(step, len(b))
				mustWrite(t, client, b[:n])
				b = b[n:]
			}
			select {
			case <-done:
			case <-time.After(patience):
				t.Fatal("packets are missing")
			}
			if !bytes.Equal(got, all) {
				t.Fatal("packets differ")
			}
		})
	}
}

// TestLargePacket: a packet far larger than any buffer comes whole, and its memory is given up.
func TestLargePacket(t *testing.T) {
	large := random(3 << 20)
	got := make(chan bool, 1)
	h := &hooks{data: func(b []byte, _ *Batch) (int, error) {
		if len(b) < len(large)+1 {
			return 0, nil
		}
		got <- bytes.Equal(b[:len(large)], large)
		return len(large), nil
	}}
	c, client := start(t, h)
	mustWrite(t, client, append(large[:len(large):len(large)], 'x'))
	if !<-got {
		t.Fatal("the packet differs")
	}
	client.Close()
	h.wait(t)
	if cap(c.partial) > 4096 {
		t.Errorf("%d bytes are kept for a rest of one", cap(c.partial))
	}
}

// fill writes until the socket takes no more.
func fill(t *testing.T, c *Conn, ba *Batch) (sent []byte) {
	t.Helper()
	for full := false; !full; {
		b := random(64 << 10)
		sent = append(sent, b...)
		send(c, ba, b)
		ba.Flush()
		c.Lock()
		full = c.writing
		c.Unlock()
		if len(sent) > 64<<20 {
			t.Fatal("the socket is never full")
		}
	}
	return sent
}

// TestDrained: a full socket keeps nobody; what waited goes out in order once the client reads, and
// then Drained comes.
func TestDrained(t *testing.T) {
	var drained atomic.Int32
	h := &hooks{drained: func(*Batch) { drained.Add(1) }}
	c, client := start(t, h)
	ba := NewBatch()
	sent := fill(t, c, ba)
	more := random(200 << 10) // while it is full
	send(c, ba, more)
	ba.Flush()
	c.Lock()
	if n := c.OutLen(); n != len(more) {
		t.Errorf("%d bytes wait", n)
	}
	c.Unlock()
	if drained.Load() != 0 {
		t.Error("drained too early")
	}
	mustRead(t, client, append(sent, more...))
	eventually(t, "Drained is called", func() bool { return drained.Load() == 1 })
	send(c, ba, []byte("on"))
	ba.Flush()
	mustRead(t, client, []byte("on"))
	if drained.Load() != 1 {
		t.Error("Drained without reason")
	}
}

// TestNotifyDrained: it also comes when the socket took everything at once.
func TestNotifyDrained(t *testing.T) {
	var drained atomic.Int32
	var c *Conn
	h := &hooks{}
	h.drained = func(ba *Batch) {
		if drained.Add(1) < 5 {
			c.Lock()
			c.NotifyDrained()
			c.Unlock()
			send(c, ba, []byte("x"))
		}
	}
	client := startAs(t, &c, h)
	ba := NewBatch()
	c.Lock()
	c.NotifyDrained()
	c.Unlock()
	send(c, ba, []byte("x"))
	ba.Flush()
	mustRead(t, client, []byte("xxxxx"))
	eventually(t, "Drained is called five times", func() bool { return drained.Load() == 5 })
}

// TestPause: Data leaves a packet and pauses, as for a CONNECT that the log has to take; nothing
// comes until Resume, and then what was left, in order.
func TestPause(t *testing.T) {
	var c *Conn
	var seen []byte
	paused := make(chan struct{}, 16)
	h := &hooks{}
	h.data = func(b []byte, _ *Batch) (int, error) {
		c.Lock()
		defer c.Unlock()
		for i, x := range b {
			seen = append(seen, x)
			if x == 'P' {
				c.Pause()
				paused <- struct{}{}
				return i + 1, nil
			}
		}
		return len(b), nil
	}
	client := startAs(t, &c, h)
	mustWrite(t, client, []byte("aPbPPc"))
	for _, want := range []string{"aP", "aPbP", "aPbPP"} {
		<-paused
		c.Lock()
		if string(seen) != want {
			t.Errorf("seen %q, want %q", seen, want)
		}
		c.Resume()
		c.Resume()
		c.Unlock()
	}
	mustWrite(t, client, []byte("d"))
	eventually(t, "everything is seen", func() bool {
		c.Lock()
		defer c.Unlock()
		return string(seen) == "aPbPPcd"
	})
}

// TestPauseFromOutside: bytes that were on their way are kept, also many of them.
func TestPauseFromOutside(t *testing.T) {
	var c *Conn
	var seen []byte
	h := &hooks{}
	h.data = func(b []byte, _ *Batch) (int, error) {
		c.Lock()
		defer c.Unlock()
		if c.paused {
			t.Error("Data is called in a pause")
		}
		seen = append(seen, b...)
		return len(b), nil
	}
	client := startAs(t, &c, h)
	all := random(4 << 20)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = client.Write(all) })
	for i := range 2000 {
		c.Lock()
		if i&1 == 0 {
			c.Pause()
		} else {
			c.Resume()
		}
		c.Unlock()
	}
	eventually(t, "everything is seen", func() bool {
		c.Lock()
		defer c.Unlock()
		return len(seen) == len(all)
	})
	wg.Wait()
	if !bytes.Equal(seen, all) {
		t.Error("bytes differ")
	}
}

// TestFanOut: one reader writes to a hundred others through its batch.
func TestFanOut(t *testing.T) {
	const n = 100
	var readers [n]*Conn
	var clients [n]net.Conn
	for i := range n {
		readers[i], clients[i] = start(t, &hooks{})
	}
	h := &hooks{data: packets(func(p []byte, ba *Batch) error {
		for _, r := range readers {
			send(r, ba, p)
		}
		if ba.Len() != n {
			t.Errorf("%d connections are dirty", ba.Len())
		}
		return nil
	})}
	_, publisher := start(t, h)
	want := append(random(200), random(50)...)
	mustWrite(t, publisher, append(append(append([]byte{200}, want[:200]...), 50), want[200:]...))
	for _, cl := range clients {
		mustRead(t, cl, want)
	}
}

// TestTake: the outboxes of one batch are flushed through another.
func TestTake(t *testing.T) {
	c, client := start(t, &hooks{})
	a, b := NewBatch(), NewBatch()
	send(c, a, []byte("x"))
	b.Take(a)
	if a.Len() != 0 || b.Len() != 1 {
		t.Fatalf("lengths %d and %d", a.Len(), b.Len())
	}
	b.Flush()
	mustRead(t, client, []byte("x"))
}

func TestIdle(t *testing.T) {
	h := &hooks{}
	c, client := start(t, h)
	before := c.Idle()
	Advance()
	Advance()
	if n := c.Idle() - before; n != 2 {
		t.Errorf("idle for %d ticks", n)
	}
	mustWrite(t, client, []byte("x"))
	eventually(t, "it is not idle any more", func() bool { return c.Idle() == 0 })
}

// TestEmptyOutbox: an outbox that nothing was appended to is not kept.
func TestEmptyOutbox(t *testing.T) {
	c, _ := start(t, &hooks{})
	ba := NewBatch()
	c.Lock()
	defer c.Unlock()
	c.SetOut(c.Out(), ba)
	if c.out != nil || ba.Len() != 0 {
		t.Error("it is kept")
	}
}

func TestGrow(t *testing.T) {
	want := random(300 << 10)
	for _, n := range []int{0, 1, bufferSize - headRoom, bufferSize, largeSize, 300 << 10} {
		b := getBuffer()
		b = append(Grow(b, n), want[:n]...)
		b = Grow(b, 1)
		if cap(b) == len(b) || !bytes.Equal(b[headRoom:], want[:n]) {
			t.Errorf("%d bytes: len %d, cap %d", n, len(b), cap(b))
		}
		putBuffer(b)
	}
}
