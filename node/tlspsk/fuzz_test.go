package tlspsk

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// scripted is a client that has said all that it says, and hears nothing.
type scripted struct{ r *bytes.Reader }

func (s scripted) Read(p []byte) (int, error)     { return s.r.Read(p) }
func (scripted) Write(p []byte) (int, error)      { return len(p), nil }
func (scripted) Close() error                     { return nil }
func (scripted) LocalAddr() net.Addr              { return nil }
func (scripted) RemoteAddr() net.Addr             { return nil }
func (scripted) SetDeadline(time.Time) error      { return nil }
func (scripted) SetReadDeadline(time.Time) error  { return nil }
func (scripted) SetWriteDeadline(time.Time) error { return nil }

// FuzzHandshake: no bytes of a stranger let him in, or make the server fall over.
func FuzzHandshake(f *testing.F) {
	c := newClient(nil, "alice", nil)
	c.key, _ = testKeys.Find("alice")
	hello := c.clientHello(&c.hello, nil)
	again := c.hello
	again.shares = nil
	retry := c.clientHello(&again, nil)
	twelve := (&client12{client: c, suite: &suites12[7], ems: true}).hello12(make([]byte, 32))
	exchange := (&client12{client: c}).keyExchange(nil)
	for _, messages := range [][][]byte{{hello}, {retry, hello}, {twelve, exchange}, {twelve, (&client12{client: c}).keyExchange(make([]byte, 32))}} {
		var raw, framed []byte
		for _, m := range messages {
			raw = append(raw, m...)
			framed = plainText{}.seal(framed, 0, recordHandshake, m)
		}
		f.Add(raw, true)
		f.Add(append(framed, recordChangeCipherSpec, 3, 3, 0, 1, 1, recordHandshake, 3, 3, 0, 40, 1), false)
	}
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"), false)
	cfg := &Config{Key: testKeys.Find, Hint: "h"}
	f.Fuzz(func(t *testing.T, b []byte, frame bool) {
		if frame { // gets deeper than what has to guess lengths
			if len(b) > maxPlain {
				return
			}
			b = plainText{}.seal(nil, 0, recordHandshake, b)
		}
		s := Server(scripted{bytes.NewReader(b)}, cfg)
		if s.HandshakeContext(t.Context()) == nil {
			t.Error("let in")
		}
		if s.in.buf != nil || s.hand != nil {
			t.Error("a buffer is still held")
		}
	})
}

// FuzzHello: what parses has no part outside itself, and says again what it said.
func FuzzHello(f *testing.F) {
	c := newClient(nil, "alice", []byte{1})
	c.hello.sizeLimit, c.hello.early = 100, true
	f.Add(c.clientHello(&c.hello, nil)[4:])
	f.Add((&client12{client: c, suite: &suites12[0], ems: true}).hello12(make([]byte, 32))[4:])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHello(append([]byte{typeClientHello, byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...))
		if err != nil {
			if _, ok := alertOf(err); !ok {
				t.Errorf("the client is not told of %v", err)
			}
			return
		}
		if len(h.random) != 32 || len(h.keys) > maxOffered || h.binders > len(h.raw) || len(h.keys) > 0 && h.binders < 2+33*len(h.keys) {
			t.Errorf("%+v", h)
		}
		if n := h.fragment(true); n < 63 || n > maxPlain {
			t.Errorf("fragments of %d bytes", n)
		}
	})
}

// FuzzRecords: after the handshake, changed records are noticed, whatever their form.
func FuzzRecords(f *testing.F) {
	secret := bytes.Repeat([]byte{3}, 32)
	sealed := func() output {
		p, err := newAEAD13(&suites13[0], secret)
		if err != nil {
			f.Fatal(err)
		}
		return output{prot: p, limit: maxPlain}
	}
	out := sealed()
	good := out.append(nil, recordApplication, []byte("hello"))
	good = out.append(good, recordHandshake, []byte{typeKeyUpdate, 0, 0, 1, 1})
	f.Add(good, 50)
	f.Add(good[:30], 3)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if size < 1 || size > 1<<16 {
			return
		}
		s := Server(scripted{bytes.NewReader(b)}, &Config{Key: testKeys.Find})
		p, err := newAEAD13(&suites13[0], secret)
		if err != nil {
			t.Fatal(err)
		}
		s.in.prot, s.out.prot, s.in.tls13, s.st.Version, s.st.Suite, s.inSecret = p, sealed().prot, true, 0x0304, suites13[0].id, secret
		s.done.Store(true)
		got, err := io.ReadAll(struct{ io.Reader }{readerOf(s, size)})
		if len(got) > 0 && !bytes.HasPrefix(b, good[:27]) {
			t.Errorf("%q came out of a forgery; %v", got, err)
		}
	})
}

// readerOf reads at most size bytes at a time.
func readerOf(r io.Reader, size int) io.Reader {
	return readerFunc(func(p []byte) (int, error) { return r.Read(p[:min(size, len(p))]) })
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
