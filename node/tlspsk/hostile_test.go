package tlspsk

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// wire reads what the server sends, as it is on the wire.
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

// TestTruncated: a handshake that is cut off at any byte lets nobody in and holds nothing.
func TestTruncated(t *testing.T) {
	c := newClient(nil, "alice", nil)
	c.key = unhex(t, aliceKey)
	twelve := &client12{client: c, suite: &suites12[7], ems: true}
	for name, messages := range map[string][][]byte{
		"1.3": {c.clientHello(&c.hello, nil)},
		"1.2": {twelve.hello12(make([]byte, 32)), twelve.keyExchange(nil)},
	} {
		var raw []byte
		for _, m := range messages {
			raw = plainText{}.seal(raw, 0, recordHandshake, m)
		}
		for n := range len(raw) + 1 {
			s := Server(scripted{bytes.NewReader(raw[:n])}, &Config{Key: testKeys.Find})
			err := s.HandshakeContext(t.Context())
			if err == nil || s.State() != (State{}) || s.in.buf != nil || s.hand != nil {
				t.Errorf("%s: cut after %d of %d bytes: %v, %+v", name, n, len(raw), err, s.State())
			}
		}
	}
}
