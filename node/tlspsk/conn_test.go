package tlspsk

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestHandshake13(t *testing.T) {
	p384, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]struct {
		change  func(*client)
		group   uint16
		retried bool
	}{
		"plain":     {nil, 29, false},
		"middlebox": {func(c *client) { c.hello.session = make([]byte, 32) }, 29, false},
		"P-384": {func(c *client) {
			c.hello.groups, c.hello.shares = []uint16{24}, []*ecdh.PrivateKey{p384}
		}, 24, false},
		"retry":             {func(c *client) { c.hello.groups, c.hello.shares = []uint16{30, 25, 23}, nil }, 23, true},
		"retry, middlebox":  {func(c *client) { c.hello.shares, c.hello.session = nil, make([]byte, 32) }, 29, true},
		"no exchange":       {func(c *client) { c.hello.modes = []byte{modeKE} }, 0, false},
		"both modes":        {func(c *client) { c.hello.modes = []byte{modeKE, modeDHEKE} }, 29, false},
		"the third key":     {func(c *client) { c.hello.identities = []string{"nobody", "somebody"} }, 29, false},
		"early data":        {func(c *client) { c.hello.early = true }, 29, false},
		"early data, retry": {func(c *client) { c.hello.early, c.hello.shares = true, nil }, 29, true},
		"ChaCha20":          {func(c *client) { c.suite = 0x1303 }, 29, false},
		"CCM":               {func(c *client) { c.suite = 0x1304 }, 29, false},
		"a suite we lack":   {func(c *client) { c.hello.suites = []uint16{0x1302, 0x1301} }, 29, false},
		"small records":     {func(c *client) { c.hello.sizeLimit = 64 }, 29, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := established(t, try.change)
			if st := s.State(); st.Version != tls.VersionTLS13 || st.Group != try.group || st.Identity != "alice" || st.Suite != c.suite {
				t.Errorf("%+v", st)
			}
			if c.retried != try.retried {
				t.Errorf("retried: %t", c.retried)
			}
			if err := c.send(recordApplication, []byte("there")); err != nil {
				t.Fatal(err)
			}
			expectBytes(t, s, "there")
			back := strings.Repeat("and back ", 50)
			if n, err := io.WriteString(s, back); n != len(back) || err != nil {
				t.Fatal(n, err)
			}
			var got []byte
			for len(got) < len(back) {
				typ, data, err := c.in.next(c.nc, nil, false)
				if err != nil || typ != recordApplication {
					t.Fatal(typ, err)
				}
				if limit := c.hello.sizeLimit; limit > 0 && len(data) >= int(limit) {
					t.Errorf("a record of %d bytes", len(data))
				}
				got = append(got, data...)
			}
			if string(got) != back {
				t.Errorf("%q", got)
			}
		})
	}
}

// record reads what the server sends, as it is on the wire.
func wire(t testing.TB, nc net.Conn) []byte {
	t.Helper()
	b, err := io.ReadAll(nc)
	if err != nil && len(b) == 0 {
		t.Fatal(err)
	}
	return b
}

// TestAlike: what the server sends does not tell an unknown identity from a wrong key.
func TestAlike(t *testing.T) {
	var seen [][]byte
	for _, as := range []struct{ identity, key string }{{"alice", bobKey}, {"mallory", aliceKey}, {"mallory", bobKey}} {
		c, s := pair(t, &Config{Key: testKeys.Find})
		c.identity, c.key = as.identity, unhex(t, as.key)
		cerr, serr := shake(t, c, s, func() error {
			if err := c.tell(c.clientHello(&c.hello, nil)); err != nil {
				return err
			}
			seen = append(seen, wire(t, c.nc))
			return nil
		})
		if cerr != nil || !errors.Is(serr, ErrKey) || s.State() != (State{}) {
			t.Errorf("%s: %v, %v, %+v", as.identity, cerr, serr, s.State())
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrNoHandshake) {
			t.Error(err)
		}
		if _, err := s.Write([]byte{1}); !errors.Is(err, ErrNoHandshake) {
			t.Error(err)
		}
	}
	for _, b := range seen {
		if !bytes.Equal(b, []byte{recordAlert, 3, 3, 0, 2, 2, byte(alertDecryptError)}) {
			t.Errorf("%x", b)
		}
	}
}

// TestHostile: each of these ends the handshake with that alert, or without one where the client is gone.
func TestHostile(t *testing.T) {
	// put replaces a byte counted from the end.
	put := func(back int, value byte) func(*client) {
		return func(c *client) {
			c.forge = func(m []byte) []byte { m[len(m)-back] = value; return m }
		}
	}
	old, s := pair(t, &Config{Key: testKeys.Find})
	if cerr, serr := shake(t, old, s, old.handshake13); cerr != nil || serr != nil {
		t.Fatal(cerr, serr)
	}
	recorded := old.sent[0]
	for name, try := range map[string]struct {
		change func(*client)
		want   alert
		text   string
	}{
		"binder changed": {func(c *client) { c.forge = func(m []byte) []byte { m[len(m)-1] ^= 1; return m } }, alertDecryptError, ""},
		"hello changed":  {func(c *client) { c.forge = func(m []byte) []byte { m[7] ^= 1; return m } }, alertDecryptError, ""},
		"binder of another": {func(c *client) {
			c.forge = func(m []byte) []byte { copy(m[len(m)-32:], recorded[len(recorded)-32:]); return m }
		}, alertDecryptError, ""},
		"no modes":           {func(c *client) { c.hello.modes = nil }, alertMissingExtension, ""},
		"unknown mode":       {func(c *client) { c.hello.modes = []byte{9} }, alertHandshakeFailure, ""},
		"no common suite":    {func(c *client) { c.hello.suites = []uint16{0x1302} }, alertHandshakeFailure, "suite"},
		"no common group":    {func(c *client) { c.hello.groups, c.hello.shares = []uint16{30}, nil }, alertHandshakeFailure, "group"},
		"too many keys":      {func(c *client) { c.hello.identities = make([]string, maxOffered); fill(c.hello.identities) }, alertDecodeError, ""},
		"empty identity":     {func(c *client) { c.hello.identities = []string{""} }, alertDecodeError, ""},
		"binder too short":   {put(33, 31), alertDecodeError, ""},
		"trailing bytes":     {func(c *client) { c.forge = func(m []byte) []byte { m[3]++; return append(m, 0) } }, alertDecodeError, ""},
		"other retry: group": {func(c *client) { c.hello.shares = nil; c.hello.secondary = func(o *helloOptions) { o.shares = nil } }, alertIllegalParameter, "second"},
		"other retry: random": {func(c *client) {
			c.hello.shares = nil
			c.hello.secondary = func(o *helloOptions) { o.random = make([]byte, 32) }
		}, alertIllegalParameter, "second"},
		"other retry: suites": {func(c *client) {
			c.hello.shares = nil
			c.hello.secondary = func(o *helloOptions) { o.suites = []uint16{0x1303} }
		}, alertIllegalParameter, "second"},
		"early data again": {func(c *client) {
			c.hello.shares = nil
			c.hello.secondary = func(o *helloOptions) { o.early = true }
		}, alertIllegalParameter, "second"},
		"zero share": {func(c *client) {
			c.forge = func(m []byte) []byte { // a point of small order; the binder covers it
				at := bytes.Index(m, c.hello.shares[0].PublicKey().Bytes())
				clear(m[at : at+32])
				s := suite13(c.suite)
				copy(m[len(m)-32:], binder(s.hash, extract(s.hash, c.key, nil), digest(s.hash, m[:len(m)-35])))
				return m
			}
		}, alertIllegalParameter, "public key"},
		"TLS 1.1": {func(c *client) { c.forge = func(m []byte) []byte { m[5] = 2; return m } }, alertProtocolVersion, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := pair(t, &Config{Key: testKeys.Find})
			try.change(c)
			cerr, serr := shake(t, c, s, c.handshake13)
			if a, ok := alertOf(serr); !ok || a != try.want || !strings.Contains(serr.Error(), try.text) {
				t.Errorf("server: %v, want %s", serr, try.want)
			}
			if !errors.Is(cerr, ErrAlert) || !strings.Contains(cerr.Error(), try.want.String()) {
				t.Errorf("client: %v, want %s", cerr, try.want)
			}
		})
	}
	t.Run("replayed", func(t *testing.T) { // opens nothing: the rest needs the key, and our share is a new one
		c, s := pair(t, &Config{Key: testKeys.Find})
		cerr, serr := shake(t, c, s, func() error {
			if err := c.send(recordHandshake, recorded); err != nil {
				return err
			}
			if _, err := c.message(typeServerHello); err != nil {
				return err
			}
			return c.send(recordHandshake, append([]byte{typeFinished, 0, 0, 32}, make([]byte, 32)...))
		})
		if cerr != nil || !errors.Is(serr, ErrProtocol) {
			t.Errorf("client: %v; server: %v", cerr, serr)
		}
	})
	for name, try := range map[string]struct {
		messages int
		retry    bool
	}{
		"silent before Finished": {1, false}, "silent after the request to retry": {1, true}, "silent before Finished, after a retry": {2, true},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := pair(t, &Config{Key: testKeys.Find})
			c.stop = try.messages
			if try.retry {
				c.hello.shares = nil
			}
			if cerr, serr := shake(t, c, s, c.handshake13); !errors.Is(cerr, errSilent) || !errors.Is(serr, io.EOF) {
				t.Errorf("client: %v; server: %v", cerr, serr)
			}
		})
	}
	for name, raw := range map[string]struct {
		bytes string
		want  alert
	}{
		"HTTP":                {"GET / HTTP/1.1\r\n\r\n", alertProtocolVersion},
		"MQTT":                {"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", alertProtocolVersion},
		"application data":    {"\x17\x03\x03\x00\x01x", alertUnexpectedMessage},
		"another message":     {"\x16\x03\x01\x00\x04\x02\x00\x00\x00", alertUnexpectedMessage},
		"too long a message":  {"\x16\x03\x01\x00\x04\x01\x00\x40\x01", alertIllegalParameter},
		"too long a record":   {"\x16\x03\x01\x48\x01", alertRecordOverflow},
		"an empty record":     {"\x16\x03\x01\x00\x00", alertUnexpectedMessage},
		"an empty hello":      {"\x16\x03\x01\x00\x04\x01\x00\x00\x00", alertDecodeError},
		"change_cipher_spec":  {"\x14\x03\x01\x00\x01\x01", alertUnexpectedMessage},
		"warnings for ever":   {strings.Repeat("\x15\x03\x01\x00\x02\x01\x5a", maxUseless+1), alertUnexpectedMessage},
		"an alert of 1 byte":  {"\x15\x03\x01\x00\x01\x01", alertDecodeError},
		"nothing but records": {strings.Repeat("\x17\x03\x01\x00\x00", maxUseless+1), alertUnexpectedMessage},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := pair(t, &Config{Key: testKeys.Find})
			_, serr := shake(t, c, s, func() error {
				_, err := io.WriteString(c.nc, raw.bytes)
				return err
			})
			if a, ok := alertOf(serr); !ok || a != raw.want {
				t.Errorf("%v, want %s", serr, raw.want)
			}
		})
	}
}

func fill(list []string) {
	for i := range list {
		list[i] = "x"
	}
}

// TestHalfOpen: the handshake is over when its context is, and a client that trickles is cut off.
func TestHalfOpen(t *testing.T) {
	c, s := pair(t, &Config{Key: testKeys.Find})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.HandshakeContext(ctx) }()
	if _, err := c.nc.Write([]byte{recordHandshake, 3, 1}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_, s = pair(t, &Config{Key: testKeys.Find})
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.HandshakeContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestVersions(t *testing.T) {
	for _, cfg := range []*Config{{Key: testKeys.Find, MaxVersion: tls.VersionTLS12}} {
		c, s := pair(t, cfg)
		if cerr, serr := shake(t, c, s, c.handshake13); !errors.Is(cerr, ErrAlert) || !errors.Is(serr, ErrProtocol) {
			t.Errorf("client: %v; server: %v", cerr, serr)
		}
	}
	c, s := pair(t, &Config{Key: testKeys.Find, MinVersion: tls.VersionTLS13})
	if cerr, serr := shake(t, c, s, c.handshake13); cerr != nil || serr != nil {
		t.Errorf("client: %v; server: %v", cerr, serr)
	}
	c, s = pair(t, &Config{Key: testKeys.Find, MinVersion: tls.VersionTLS13})
	_, serr := shake(t, c, s, func() error { // TLS 1.2, a PSK suite, no extensions
		return c.send(recordHandshake, append(append([]byte("\x01\x00\x00\x29\x03\x03"), make([]byte, 33)...), "\x00\x02\x00\xa8\x01\x00"...))
	})
	if a, _ := alertOf(serr); a != alertProtocolVersion {
		t.Error(serr)
	}
}

// TestKeyUpdate: the client changes its keys and asks for ours, which change before what we say next.
func TestKeyUpdate(t *testing.T) {
	c, s := established(t, nil)
	suite := suite13(c.suite)
	for _, ask := range []byte{0, 1, 1} {
		if err := c.send(recordHandshake, []byte{typeKeyUpdate, 0, 0, 1, ask}); err != nil {
			t.Fatal(err)
		}
		c.secrets[0] = nextSecret(suite, c.secrets[0])
		var err error
		if c.out.prot, err = newAEAD13(suite, c.secrets[0]); err != nil {
			t.Fatal(err)
		}
		c.out.seq = 0
		if err := c.send(recordApplication, []byte("under new keys")); err != nil {
			t.Fatal(err)
		}
		expectBytes(t, s, "under new keys")
		if _, err := io.WriteString(s, "ours"); err != nil {
			t.Fatal(err)
		}
		c.expect(t, ask == 1, "ours")
	}
	s.outMu.Lock() // as after many records
	s.out.seq, c.in.seq = rekeyAfter, rekeyAfter
	s.outMu.Unlock()
	if _, err := io.WriteString(s, "by ourselves"); err != nil {
		t.Fatal(err)
	}
	c.expect(t, true, "by ourselves")
	// One that does nothing else is not served.
	for range maxUseless + 1 {
		if err := c.send(recordHandshake, []byte{typeKeyUpdate, 0, 0, 1, 0}); err != nil {
			break
		}
		c.secrets[0] = nextSecret(suite, c.secrets[0])
		c.out.prot, _ = newAEAD13(suite, c.secrets[0])
		c.out.seq = 0
	}
	if _, err := s.Read(make([]byte, 100)); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

// expect reads a text, behind a key_update if that is due.
func (c *client) expect(t *testing.T, update bool, want string) {
	t.Helper()
	typ, data, err := c.in.next(c.nc, nil, false)
	if update {
		if err != nil || typ != recordHandshake || !bytes.Equal(data, []byte{typeKeyUpdate, 0, 0, 1, 0}) {
			t.Fatalf("%d %x %v, want a key_update", typ, data, err)
		}
		s := suite13(c.suite)
		c.secrets[1] = nextSecret(s, c.secrets[1])
		if c.in.prot, err = newAEAD13(s, c.secrets[1]); err != nil {
			t.Fatal(err)
		}
		c.in.seq = 0
		typ, data, err = c.in.next(c.nc, nil, false)
	}
	if err != nil || typ != recordApplication || string(data) != want {
		t.Fatalf("%d %q %v, want %q", typ, data, err, want)
	}
}

// TestIdle: a connection that waits, and one that has been busy, hold no buffer.
func TestIdle(t *testing.T) {
	c, s := established(t, nil)
	big := strings.Repeat("0123456789", 5000)
	if err := c.send(recordApplication, []byte(big)); err != nil {
		t.Fatal(err)
	}
	expectBytes(t, s, big)
	if err := s.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(make([]byte, 100)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(n, err)
	}
	if s.in.buf != nil || s.rest != nil || s.hand != nil || s.flight != nil {
		t.Error("an idle connection holds a buffer")
	}
	// It goes on after a deadline, even in the middle of a record.
	rec := c.out.append(nil, recordApplication, []byte("late"))
	for _, part := range [][]byte{rec[:3], rec[3:10], rec[10:]} {
		if _, err := c.nc.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := s.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := s.Read(make([]byte, 100))
		if last := len(part) == len(rec)-10; last && n != 4 || !last && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(n, err)
		}
	}
}

// TestEnds: how a connection ends, as either side sees it.
func TestEnds(t *testing.T) {
	t.Run("goodbye of the client", func(t *testing.T) {
		c, s := established(t, nil)
		if err := c.send(recordAlert, []byte{1, 0}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 100)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
	t.Run("the client is gone", func(t *testing.T) {
		c, s := established(t, nil)
		c.nc.Close()
		if _, err := s.Read(make([]byte, 100)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
	t.Run("in the middle of a record", func(t *testing.T) {
		c, s := established(t, nil)
		if _, err := c.nc.Write(c.out.append(nil, recordApplication, []byte("half"))[:9]); err != nil {
			t.Fatal(err)
		}
		c.nc.Close()
		if _, err := s.Read(make([]byte, 100)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
	t.Run("a changed record", func(t *testing.T) {
		c, s := established(t, nil)
		rec := c.out.append(nil, recordApplication, []byte("changed"))
		rec[7] ^= 1
		if _, err := c.nc.Write(rec); err != nil {
			t.Fatal(err)
		}
		for range 2 { // it stays broken
			if a, _ := alertOf(func() error { _, err := s.Read(make([]byte, 100)); return err }()); a != alertBadRecordMAC {
				t.Error(a)
			}
		}
		if _, _, err := c.in.next(c.nc, nil, false); !errors.Is(err, ErrAlert) || !strings.Contains(err.Error(), "bad_record_mac") {
			t.Error(err)
		}
	})
	t.Run("goodbye of ours", func(t *testing.T) {
		c, s := established(t, nil)
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, _, err := c.in.next(c.nc, nil, false); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if err := c.send(recordApplication, []byte("one more")); err != nil {
			t.Fatal(err)
		}
		expectBytes(t, s, "one more")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestCloseUnderWrite: a client that takes nothing keeps neither Close nor, after it, Write.
func TestCloseUnderWrite(t *testing.T) {
	_, s := established(t, nil)
	var group sync.WaitGroup
	started := make(chan struct{})
	group.Go(func() {
		b := make([]byte, 1<<20)
		close(started)
		for {
			if _, err := s.Write(b); err != nil {
				return
			}
		}
	})
	<-started
	_ = s.Close()
	group.Wait()
}

// TestBothWays has a reader and a writer at it at the same time, with key updates in between.
func TestBothWays(t *testing.T) {
	c, s := established(t, nil)
	const count = 2000
	var group sync.WaitGroup
	group.Go(func() {
		got := make([]byte, 0, 1000)
		buf := make([]byte, 700)
		for len(got) < count*10 {
			n, err := s.Read(buf)
			if err != nil {
				t.Error(err)
				return
			}
			got = append(got, buf[:n]...)
		}
		if want := strings.Repeat("0123456789", count); string(got) != want {
			t.Error("what was read is something else")
		}
	})
	group.Go(func() {
		for range count {
			if _, err := io.WriteString(s, "abcdefghij"); err != nil {
				t.Error(err)
				return
			}
		}
	})
	group.Go(func() {
		suite := suite13(c.suite)
		for i := range count {
			if i%100 == 50 {
				if err := c.send(recordHandshake, []byte{typeKeyUpdate, 0, 0, 1, 1}); err != nil {
					t.Error(err)
					return
				}
				c.secrets[0] = nextSecret(suite, c.secrets[0])
				c.out.prot, _ = newAEAD13(suite, c.secrets[0])
				c.out.seq = 0
			}
			if err := c.send(recordApplication, []byte("0123456789")); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var got []byte
	for len(got) < count*10 {
		typ, data, err := c.in.next(c.nc, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		if typ == recordHandshake {
			s := suite13(c.suite)
			c.secrets[1] = nextSecret(s, c.secrets[1])
			c.in.prot, _ = newAEAD13(s, c.secrets[1])
			c.in.seq = 0
			continue
		}
		got = append(got, data...)
	}
	group.Wait()
	if string(got) != strings.Repeat("abcdefghij", count) {
		t.Error("what was written is something else")
	}
}
