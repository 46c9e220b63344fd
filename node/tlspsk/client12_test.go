package tlspsk

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
)

// client12 connects with TLS 1.2. change may replace one of our messages, by type, and drop it.
type client12 struct {
	*client
	suite  *suite
	ems    bool
	change func(m []byte) []byte
}

func (c *client12) tell(m []byte) ([]byte, error) {
	if c.change != nil {
		m = c.change(m)
	}
	if m == nil {
		return nil, nil
	}
	return m, c.send(recordHandshake, m)
}

func (c *client12) hello12(random []byte) []byte {
	var b cryptobyte.Builder
	b.AddUint8(typeClientHello)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(0x0303)
		b.AddBytes(random)
		b.AddUint8(0)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint16(c.suite.id) })
		b.AddBytes([]byte{1, 0})
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			extension(b, extGroups, func(b *cryptobyte.Builder) { b.AddBytes([]byte{0, 2, 0, 29}) })
			extension(b, extEncryptMAC, func(*cryptobyte.Builder) {})
			extension(b, extRenegotiation, func(b *cryptobyte.Builder) { b.AddUint8(0) })
			if c.ems {
				extension(b, extMasterSecret, func(*cryptobyte.Builder) {})
			}
		})
	})
	return b.BytesOrPanic()
}

func (c *client12) keyExchange(public []byte) []byte {
	var b cryptobyte.Builder
	b.AddUint8(typeClientKeyExchange)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(c.identity)) })
		if public != nil {
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(public) })
		}
	})
	return b.BytesOrPanic()
}

func (c *client12) handshake() error {
	s, random := c.suite, make([]byte, 32)
	rand.Read(random)
	transcript, err := c.tell(c.hello12(random))
	if err != nil {
		return err
	}
	sh, err := c.message(typeServerHello)
	if err != nil {
		return err
	}
	transcript = append(bytes.Clone(transcript), sh...)
	theirRandom := sh[6:38]
	var z, public []byte
	if s.ecdhe {
		m, err := c.message(typeServerKeyExchange)
		if err != nil {
			return err
		}
		transcript = append(transcript, m...)
		own := x25519()
		if z, err = agree(own, m[len(m)-32:]); err != nil {
			return err
		}
		public = own.PublicKey().Bytes()
	}
	m, err := c.message(typeServerHelloDone)
	if err != nil {
		return err
	}
	transcript = append(transcript, m...)
	if m, err = c.tell(c.keyExchange(public)); err != nil {
		return err
	}
	transcript = append(transcript, m...)
	seed, label := append(bytes.Clone(random), theirRandom...), "master secret"
	if c.ems {
		seed, label = digest(s.hash, transcript), "extended master secret"
	}
	master := prf(s.hash, premaster(z, c.key), label, seed, 48)
	theirs, _, err := s.keys12(master, random, theirRandom) // the server's way in is our way out
	if err != nil {
		return err
	}
	_, in, err := s.keys12(master, random, theirRandom)
	if err != nil {
		return err
	}
	if err := c.send(recordChangeCipherSpec, []byte{1}); err != nil {
		return err
	}
	c.out.prot, c.out.seq = theirs, 0
	m = append([]byte{typeFinished, 0, 0, 12}, prf(s.hash, master, "client finished", digest(s.hash, transcript), 12)...)
	if m, err = c.tell(m); err != nil {
		return err
	}
	transcript = append(transcript, m...)
	typ, _, err := c.in.next(c.nc, nil, false)
	if err != nil {
		return err
	}
	if typ != recordChangeCipherSpec {
		return fmt.Errorf("a record of type %d", typ)
	}
	c.in.prot, c.in.seq = in, 0
	if m, err = c.message(typeFinished); err != nil {
		return err
	}
	if !bytes.Equal(m[4:], prf(s.hash, master, "server finished", digest(s.hash, transcript), 12)) {
		return errors.New("the server's Finished is wrong")
	}
	return nil
}

// TestHandshake12 takes each suite, also those that no client at hand knows.
func TestHandshake12(t *testing.T) {
	for i := range suites12 {
		for _, ems := range []bool{false, true} {
			t.Run(fmt.Sprintf("%04x ems=%t", suites12[i].id, ems), func(t *testing.T) {
				c, s := pair(t, &Config{Key: testKeys.Find})
				c12 := &client12{client: c, suite: &suites12[i], ems: ems}
				if cerr, serr := shake(t, c, s, c12.handshake); cerr != nil || serr != nil {
					t.Fatalf("client: %v; server: %v", cerr, serr)
				}
				if st := s.State(); st.Version != tls.VersionTLS12 || st.Suite != suites12[i].id || (st.Group != 0) != suites12[i].ecdhe || st.Identity != "alice" {
					t.Errorf("%+v", st)
				}
				text := strings.Repeat("there and back ", 3000)
				if err := c.send(recordApplication, []byte(text)); err != nil {
					t.Fatal(err)
				}
				expectBytes(t, s, text)
				if _, err := io.WriteString(s, "back"); err != nil {
					t.Fatal(err)
				}
				if _, data, err := c.in.next(c.nc, nil, false); err != nil || string(data) != "back" {
					t.Errorf("%q %v", data, err)
				}
			})
		}
	}
}

// TestAlike12: what the server sends does not tell an unknown identity from a wrong key, nor from one
// that is longer than any.
func TestAlike12(t *testing.T) {
	for i := range suites12 {
		for _, as := range []struct{ identity, key string }{
			{"alice", bobKey}, {"mallory", aliceKey}, {"mallory", bobKey}, {"", aliceKey}, {strings.Repeat("x", 500), aliceKey},
		} {
			c, s := pair(t, &Config{Key: testKeys.Find})
			c.identity, c.key = as.identity, unhex(t, as.key)
			c12 := &client12{client: c, suite: &suites12[i]}
			cerr, serr := shake(t, c, s, c12.handshake)
			if !errors.Is(serr, ErrKey) || !errors.Is(cerr, ErrAlert) || !strings.HasSuffix(cerr.Error(), "decrypt_error") {
				t.Errorf("%04x %.10q: %v, %v", suites12[i].id, as.identity, cerr, serr)
			}
		}
	}
}

func TestHostile12(t *testing.T) {
	// on changes the message of a type.
	on := func(typ byte, fn func(m []byte) []byte) func([]byte) []byte {
		return func(m []byte) []byte {
			if m[0] != typ {
				return m
			}
			return fn(bytes.Clone(m))
		}
	}
	low := make([]byte, 32) // a point of small order
	if _, err := ecdh.X25519().NewPublicKey(low); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]struct {
		change func([]byte) []byte
		want   alert
	}{
		"hello seen otherwise": {func(m []byte) []byte {
			if m[0] == typeFinished { // as if somebody had changed something on the way
				m[len(m)-1] ^= 1
			}
			return m
		}, alertDecryptError},
		"no key exchange":        {on(typeClientKeyExchange, func([]byte) []byte { return nil }), alertUnexpectedMessage},
		"key exchange: too long": {on(typeClientKeyExchange, func(m []byte) []byte { m[3]++; return append(m, 0) }), alertDecodeError},
		"key exchange: identity": {on(typeClientKeyExchange, func(m []byte) []byte { m[5]++; return m }), alertDecodeError},
		"key exchange: point":    {on(typeClientKeyExchange, func(m []byte) []byte { copy(m[len(m)-32:], low); return m }), alertIllegalParameter},
		"key exchange: huge":     {on(typeClientKeyExchange, func(m []byte) []byte { m[2] = 0xFF; return m }), alertIllegalParameter},
		"more before the keys":   {on(typeClientKeyExchange, func(m []byte) []byte { return append(m, typeFinished, 0, 0, 0) }), alertUnexpectedMessage},
		"more before the end":    {on(typeFinished, func(m []byte) []byte { return append(m, typeFinished) }), alertUnexpectedMessage},
		"a short Finished":       {on(typeFinished, func(m []byte) []byte { m[3]--; return m[:len(m)-1] }), alertDecryptError},
		"another message":        {on(typeFinished, func(m []byte) []byte { m[0] = typeClientHello; return m }), alertUnexpectedMessage},
		"renegotiation":          {on(typeClientHello, func(m []byte) []byte { m[len(m)-1] = 1; return m }), alertDecodeError},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := pair(t, &Config{Key: testKeys.Find})
			c12 := &client12{client: c, suite: &suites12[0], change: try.change}
			cerr, serr := shake(t, c, s, c12.handshake)
			if a, ok := alertOf(serr); !ok || a != try.want {
				t.Errorf("server: %v, want %s", serr, try.want)
			}
			if cerr == nil {
				t.Error("the client succeeded")
			}
		})
	}
	t.Run("renegotiation later", func(t *testing.T) {
		c, s := pair(t, &Config{Key: testKeys.Find})
		c12 := &client12{client: c, suite: &suites12[0]}
		if cerr, serr := shake(t, c, s, c12.handshake); cerr != nil || serr != nil {
			t.Fatal(cerr, serr)
		}
		if err := c.send(recordHandshake, c12.hello12(make([]byte, 32))); err != nil {
			t.Fatal(err)
		}
		_, err := s.Read(make([]byte, 100))
		if a, _ := alertOf(err); a != alertUnexpectedMessage {
			t.Error(err)
		}
	})
}
