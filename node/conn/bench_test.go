package conn

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
)

// benchRoom serves n connections that relay to each other.
func benchRoom(b *testing.B, n int) []net.Conn {
	b.Helper()
	rm := &room{}
	clients := make([]net.Conn, n)
	var wg sync.WaitGroup
	for i := range clients {
		s, client := accept(b)
		_ = client.SetDeadline(noDeadline)
		clients[i] = client
		r := &relay{c: New(s, ""), room: rm, done: make(chan error, 1)}
		rm.members[i] = r
		wg.Add(1)
		r.c.Serve(r, wg.Done)
	}
	b.Cleanup(func() {
		for _, c := range clients {
			c.Close()
		}
		wg.Wait()
	})
	return clients
}

// BenchmarkPairs: 16 publishers, each to a subscriber of its own, 100-byte packets, batches of 64.
func BenchmarkPairs(b *testing.B) {
	const pairs, batch, size = 16, 64, 100
	clients := benchRoom(b, 2*pairs)
	rounds := b.N/(pairs*batch) + 1
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range pairs {
		p := bytes.Repeat(relayPacket(size, pairs+i), batch)
		window := make(chan struct{}, 32) // the relay drops what a slow reader leaves
		wg.Go(func() {
			for range rounds {
				window <- struct{}{}
				if _, err := clients[i].Write(p); err != nil {
					b.Error(err)
					return
				}
			}
		})
		wg.Go(func() {
			got := make([]byte, len(p))
			for range rounds {
				if _, err := io.ReadFull(clients[pairs+i], got); err != nil {
					b.Error(err)
					return
				}
				<-window
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(pairs*batch*rounds)/b.Elapsed().Seconds(), "packets/s")
}

// BenchmarkPingPong: one packet at a time there and back, through one connection.
func BenchmarkPingPong(b *testing.B) {
	c := benchRoom(b, 1)[0]
	p := relayPacket(100, 0)
	got := make([]byte, len(p))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWebSocket is BenchmarkPingPong in frames.
func BenchmarkWebSocket(b *testing.B) {
	var c *Conn
	h := &hooks{}
	h.data = echo(&c)
	client := startWS(b, h, &c)
	_ = client.SetDeadline(noDeadline)
	p := frame(fin|opBinary, make([]byte, 100))
	got := make([]byte, 102)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(client, got); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdle reports what an idle connection costs in heap and stack.
func BenchmarkIdle(b *testing.B) {
	const n = 2000
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		var conns []*Conn
		var ends []io.Closer
		var wg sync.WaitGroup
		for range n {
			s, client := accept(b)
			c := New(s, "")
			conns, ends = append(conns, c), append(ends, client)
			h := &hooks{closed: make(chan struct{})}
			h.data = echo(&c)
			wg.Add(1)
			c.Serve(h, wg.Done)
			_, _ = client.Write([]byte("x"))
			_, _ = io.ReadFull(client, make([]byte, 1))
		}
		runtime.GC()
		runtime.GC() // the pools are empty after the second
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/n, "B/conn")
		for i := range conns {
			ends[i].Close()
		}
		wg.Wait()
	}
}

func BenchmarkUnmask(b *testing.B) {
	p := make([]byte, 1024)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		unmask(p, [4]byte{1, 2, 3, 4}, 1)
	}
}

func TestUnmask(t *testing.T) {
	for n := range 40 {
		for at := range 4 {
			p, mask := random(n), [4]byte(random(4))
			want := bytes.Clone(p)
			for i := range want {
				want[i] ^= mask[(at+i)%4]
			}
			if next := unmask(p, mask, at); !bytes.Equal(p, want) || next != (at+n)%4 {
				t.Fatalf("%d bytes from %d differ, next %d", n, at, next)
			}
		}
	}
	if binary.Size(wsReader{}.head) != 14 {
		t.Error("a header has at most 14 bytes")
	}
}
