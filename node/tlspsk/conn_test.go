package tlspsk

import (
	"bytes"
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
