package conn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
)

// frame encodes a frame, masked as a client's.
func frame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, 0x80|byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{0x11, 0x22, 0x83, 0x04}
	b = append(b, mask[:]...)
	for i, x := range payload {
		b = append(b, x^mask[i%4])
	}
	return b
}

const fin = 0x80

// closing is a close frame's payload.
func closing(code uint16, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, code), reason...)
}

// readFrame reads one frame of the server, which is whole and not masked.
func readFrame(t testing.TB, r io.Reader) (opcode byte, payload []byte) {
	t.Helper()
	head := make([]byte, 2, 10)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	if head[0]&0xF0 != fin || head[1]&0x80 != 0 {
		t.Fatalf("frame begins with %x", head)
	}
	n := uint64(head[1])
	long := map[uint64]int{126: 2, 127: 8}[n]
	if _, err := io.ReadFull(r, head[2:2+long]); err != nil {
		t.Fatal(err)
	}
	switch long {
	case 2:
		n = uint64(binary.BigEndian.Uint16(head[2:4]))
	case 8:
		n = binary.BigEndian.Uint64(head[2:10])
	}
	if long == 2 && n < 126 || long == 8 && n < 1<<16 {
		t.Fatalf("the length %d takes %d bytes", n, long)
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		t.Fatal(err)
	}
	return head[0] & 0xF, payload
}

func mustReadFrame(t testing.TB, r io.Reader, opcode byte, want []byte) {
	t.Helper()
	op, got := readFrame(t, r)
	if op != opcode || !bytes.Equal(got, want) {
		t.Fatalf("frame %d of %d bytes %.20x, want %d of %d bytes %.20x", op, len(got), got, opcode, len(want), want)
	}
}

const getMQTT = "GET /mqtt HTTP/1.1"

// TestWSEcho: sizes around those where a frame's length changes its form.
func TestWSEcho(t *testing.T) {
	var c *Conn
	h := &hooks{}
	h.data = packets(func(p []byte, ba *Batch) error {
		send(c, ba, append([]byte{byte(len(p))}, p...))
		return nil
	})
	client := startWS(t, h, &c)
	for _, n := range []int{0, 1, 124, 125, 250} { // a length byte is before it
		p := append([]byte{byte(n)}, random(n)...)
		mustWrite(t, client, frame(fin|opBinary, p))
		mustReadFrame(t, client, opBinary, p)
	}
	for _, n := range []int{0xFFFF, 0x10000, 200 << 10} {
		p := random(n)
		ba := NewBatch()
		send(c, ba, p)
		ba.Flush()
		mustReadFrame(t, client, opBinary, p)
	}
	client.Close()
	if err := h.wait(t); !errors.Is(err, io.EOF) {
		t.Errorf("Closed got %v", err)
	}
}

// decodeSteps feeds a wsReader in pieces cut at the given places.
func decodeSteps(stream []byte, cuts ...int) (data []byte, w *wsReader) {
	w = &wsReader{}
	c := &Conn{ws: w}
	ba := NewBatch()
	b := bytes.Clone(stream)
	at := 0
	for _, cut := range append(cuts, len(b)) {
		if w.err == nil {
			data = append(data, w.decode(c, ba, b[at:cut])...)
		}
		at = cut
	}
	return data, w
}

// TestWSEveryCut: packets over several frames, frames with several packets, empty ones, and control
// frames in between, cut at every byte, and byte by byte.
func TestWSEveryCut(t *testing.T) {
	want := random(1000)
	var stream []byte
	for _, f := range [][]byte{
		frame(fin|opBinary, want[:3]),
		frame(opBinary, want[3:5]),
		frame(fin|opPing, []byte("ping")),
		frame(opContinuation, nil),
		frame(opContinuation, want[5:300]),
		frame(fin|opPong, nil),
		frame(fin|opContinuation, want[300:301]),
		frame(fin|opBinary, nil),
		frame(fin|opBinary, want[301:]),
		frame(fin|opClose, closing(1001, "going")),
	} {
		stream = append(stream, f...)
	}
	check := func(what string, data []byte, w *wsReader) {
		t.Helper()
		if !bytes.Equal(data, want) || w.err != io.EOF {
			t.Fatalf("%s: %d bytes, error %v", what, len(data), w.err)
		}
		if pong := w.control(); string(pong) != "\x8a\x04ping" {
			t.Fatalf("%s: pong %q", what, pong)
		}
		if bye := w.farewell(); string(bye) != "\x88\x02\x03\xe9" || w.farewell() != nil {
			t.Fatalf("%s: farewell %q", what, bye)
		}
	}
	var every []int
	for i := range stream {
		data, w := decodeSteps(stream, i)
		check(fmt.Sprint("cut at ", i), data, w)
		every = append(every, i)
	}
	data, w := decodeSteps(stream, every...)
	check("byte by byte", data, w)
}

func TestWSViolations(t *testing.T) {
	unmasked := frame(fin|opBinary, nil)
	unmasked[1] &^= 0x80
	long := func(n uint64) []byte {
		return append(binary.BigEndian.AppendUint64([]byte{fin | opBinary, 0x80 | 127}, n), 1, 2, 3, 4)
	}
	for _, tt := range []struct {
		name   string
		stream []byte
		code   uint16
	}{
		{"text", frame(fin|opText, []byte("x")), 1003},
		{"not masked", unmasked, 1002},
		{"reserved bit", frame(fin|0x40|opBinary, nil), 1002},
		{"reserved opcode", frame(fin|3, nil), 1002},
		{"reserved control opcode", frame(fin|0xB, nil), 1002},
		{"fragmented ping", frame(opPing, nil), 1002},
		{"long ping", frame(fin|opPing, make([]byte, 126)), 1002},
		{"continuation of nothing", frame(fin|opContinuation, nil), 1002},
		{"message in a message", append(frame(opBinary, nil), frame(fin|opBinary, nil)...), 1002},
		{"length of 2 bytes for 5", append([]byte{fin | opBinary, 0x80 | 126, 0, 5}, 1, 2, 3, 4), 1002},
		{"length of 8 bytes for 65535", long(0xFFFF), 1002},
		{"negative length", long(1 << 63), 1002},
		{"too long", long(maxFrame + 1), 1009},
		{"close of one byte", frame(fin|opClose, []byte{3}), 1002},
		{"close code 1005", frame(fin|opClose, closing(1005, "")), 1002},
		{"close code 999", frame(fin|opClose, closing(999, "")), 1002},
		{"close code 2000", frame(fin|opClose, closing(2000, "")), 1002},
		{"close reason", frame(fin|opClose, closing(1000, "\xff")), 1007},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data, w := decodeSteps(append(frame(fin|opBinary, []byte("before")), append(tt.stream, frame(fin|opBinary, []byte("after"))...)...))
			var e *FrameError
			if !errors.As(w.err, &e) || e.Code != tt.code || string(data) != "before" {
				t.Fatalf("error %v, data %q, want code %d", w.err, data, tt.code)
			}
			if bye := w.farewell(); binary.BigEndian.Uint16(bye[2:]) != tt.code {
				t.Errorf("close frame %x", bye)
			}
		})
	}
	for _, code := range []uint16{1000, 1001, 1003, 1007, 1014, 3000, 4999} {
		if _, w := decodeSteps(frame(fin|opClose, closing(code, "ok"))); w.err != io.EOF {
			t.Errorf("close code %d: %v", code, w.err)
		}
	}
}

// TestWSRefused: the client is told why, by a close frame after what was sent before.
func TestWSRefused(t *testing.T) {
	var c *Conn
	h := &hooks{}
	h.data = echo(&c)
	client := startWS(t, h, &c)
	mustWrite(t, client, append(frame(fin|opBinary, []byte("data")), frame(fin|opText, []byte("text"))...))
	mustReadFrame(t, client, opBinary, []byte("data"))
	mustReadFrame(t, client, opClose, closing(1003, ""))
	mustEOF(t, client)
	client.Close()
	var e *FrameError
	if err := h.wait(t); !errors.As(err, &e) || e.Code != 1003 {
		t.Errorf("Closed got %v", err)
	}
}

func TestWSCloseByClient(t *testing.T) {
	for _, p := range [][]byte{nil, closing(1000, ""), closing(4000, "mine")} {
		var c *Conn
		h := &hooks{}
		h.data = echo(&c)
		client := startWS(t, h, &c)
		mustWrite(t, client, append(frame(fin|opBinary, []byte("last")), frame(fin|opClose, p)...))
		mustReadFrame(t, client, opBinary, []byte("last"))
		mustReadFrame(t, client, opClose, p[:min(2, len(p))])
		mustEOF(t, client)
		client.Close()
		if err := h.wait(t); !errors.Is(err, io.EOF) {
			t.Errorf("Closed got %v", err)
		}
	}
}

func TestWSCloseByServer(t *testing.T) {
	h := &hooks{}
	var c *Conn
	client := startWS(t, h, &c)
	ba := NewBatch()
	send(c, ba, []byte("last"))
	c.Lock()
	c.End()
	c.Mark(ba)
	c.Unlock()
	ba.Flush()
	mustReadFrame(t, client, opBinary, []byte("last"))
	mustReadFrame(t, client, opClose, closing(1000, ""))
	mustWrite(t, client, frame(fin|opClose, closing(1000, "")))
	mustEOF(t, client)
	client.Close()
	if err := h.wait(t); !errors.Is(err, ErrClosed) {
		t.Errorf("Closed got %v", err)
	}
}

// TestWSPing: of many pings, the last is answered, and a full socket lets no pongs pile up.
func TestWSPing(t *testing.T) {
	var c *Conn
	h := &hooks{}
	client := startWS(t, h, &c)
	mustWrite(t, client, frame(fin|opPing, []byte("one")))
	mustReadFrame(t, client, opPong, []byte("one"))

	c.Lock()
	c.writing = true // as with a full socket
	c.Unlock()
	for i := range 100 {
		mustWrite(t, client, frame(fin|opPing, fmt.Append(nil, i)))
	}
	eventually(t, "the last ping is there", func() bool {
		c.Lock()
		defer c.Unlock()
		return string(c.ws.pong) == "\x8a\x0299"
	})
	ba := NewBatch()
	c.Lock()
	c.writing = false
	c.Mark(ba)
	c.Unlock()
	ba.Flush()
	mustReadFrame(t, client, opPong, []byte("99"))
}

// TestWSPausedClose: a client that says everything at once and closes; a pause in the middle loses
// nothing of it.
func TestWSPausedClose(t *testing.T) {
	var c *Conn
	var seen []byte
	h := &hooks{}
	paused := make(chan struct{})
	h.data = func(b []byte, _ *Batch) (int, error) {
		c.Lock()
		defer c.Unlock()
		if len(seen) == 0 {
			seen = append(seen, b[0])
			c.Pause()
			close(paused)
			return 1, nil
		}
		seen = append(seen, b...)
		return len(b), nil
	}
	client := startWS(t, h, &c)
	mustWrite(t, client, append(frame(fin|opBinary, []byte("abcdef")), frame(fin|opClose, nil)...))
	<-paused
	c.Lock()
	if string(seen) != "a" || c.ended {
		t.Errorf("seen %q, ended %v", seen, c.ended)
	}
	c.Resume()
	c.Unlock()
	mustReadFrame(t, client, opClose, nil)
	client.Close()
	if err := h.wait(t); !errors.Is(err, io.EOF) || string(seen) != "abcdef" {
		t.Errorf("Closed got %v, seen %q", err, seen)
	}
}

// TestWSStream: much of it, both ways, in frames that are not packets.
func TestWSStream(t *testing.T) {
	var c *Conn
	h := &hooks{}
	h.data = echo(&c)
	client := startWS(t, h, &c)
	all := random(2 << 20)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i, b := 0, all; len(b) > 0; i++ {
			n := min(len(b), i*977%5000)
			if _, err := client.Write(frame(fin|opBinary, b[:n])); err != nil {
				return
			}
			b = b[n:]
		}
	})
	var got []byte
	for len(got) < len(all) {
		op, p := readFrame(t, client)
		if op != opBinary {
			t.Fatalf("opcode %d", op)
		}
		got = append(got, p...)
	}
	wg.Wait()
	if !bytes.Equal(got, all) {
		t.Error("bytes differ")
	}
}

// FuzzWSDecode: no stream makes the reader panic or hold much, and the cuts change nothing.
func FuzzWSDecode(f *testing.F) {
	f.Add(frame(fin|opBinary, []byte("x")), 3)
	f.Add(append(frame(opBinary, []byte("x")), frame(fin|opPing, []byte("p"))...), 9)
	f.Add(frame(fin|opClose, closing(1000, "x")), 1)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		whole, w := decodeSteps(stream)
		cut = min(max(cut, 0), len(stream))
		parts, v := decodeSteps(stream, cut)
		if !bytes.Equal(whole, parts) || fmt.Sprint(w.err) != fmt.Sprint(v.err) || !bytes.Equal(w.pong, v.pong) {
			t.Fatalf("cut at %d: %d bytes and %v, else %d and %v", cut, len(parts), v.err, len(whole), w.err)
		}
		if len(w.payload) > maxControl || len(whole) > len(stream) {
			t.Fatalf("%d bytes of control payload, %d of data", len(w.payload), len(whole))
		}
	})
}
