package tlspsk

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// Handshake messages (RFC 8446, section 4; RFC 5246, section 7.4).
const (
	typeClientHello       = 1
	typeServerHello       = 2
	typeEncrypted         = 8
	typeServerKeyExchange = 12
	typeServerHelloDone   = 14
	typeClientKeyExchange = 16
	typeFinished          = 20
	typeKeyUpdate         = 24
	typeMessageHash       = 254
)

// The longest messages that we read, header not counted.
const (
	maxHello    = 16 << 10
	maxKeyExch  = 2 << 10
	maxFinished = 64
)

// decoy is the key of identities that nobody has.
var decoy = func() []byte {
	k := make([]byte, 16)
	rand.Read(k)
	return k
}()

// key finds an identity's key, or one that fits nobody.
func (c *Conn) key(identity []byte) (key []byte, known bool) {
	if k, ok := c.cfg.Key(string(identity)); ok && len(k) > 0 {
		return k, true
	}
	return decoy, false
}

func (c *Conn) handshake() error {
	raw, err := c.message(typeClientHello, maxHello, false)
	if err != nil {
		return err
	}
	h, err := parseHello(raw)
	if err != nil {
		return err
	}
	// A client of both versions that offers no key under TLS 1.3 has one for TLS 1.2 alone.
	if h.tls13 && len(h.keys) > 0 && c.cfg.speaks(tls.VersionTLS13) {
		return c.handshake13(h)
	}
	if !c.cfg.speaks(tls.VersionTLS12) {
		if h.tls13 {
			return fail(alertMissingExtension, "the client offers no pre-shared key")
		}
		return fail(alertProtocolVersion, "the client knows no TLS 1.3")
	}
	if !h.tls13 && c.cfg.speaks(tls.VersionTLS13) && slices.Contains(h.suites, scsvFallback) { // RFC 7507, section 3
		return fail(alertInappropriateFallback, "the client fell back to TLS 1.2")
	}
	return c.handshake12(h)
}

// message reads a handshake message, header and all, of the type that is due. It is valid until the
// handshake ends.
func (c *Conn) message(typ byte, limit int, middlebox bool) ([]byte, error) {
	for {
		if len(c.hand) >= 4 {
			n := int(c.hand[1])<<16 | int(c.hand[2])<<8 | int(c.hand[3])
			switch {
			case c.hand[0] != typ:
				return nil, fail(alertUnexpectedMessage, "a handshake message of type %d where %d is due", c.hand[0], typ)
			case n > limit:
				return nil, fail(alertIllegalParameter, "a handshake message has %d bytes", n)
			case len(c.hand) >= 4+n:
				m := c.hand[: 4+n : 4+n]
				c.hand = c.hand[4+n:]
				return m, nil
			}
		}
		got, data, err := c.in.next(c.nc, nil, middlebox && len(c.hand) == 0)
		if err != nil {
			return nil, err
		}
		if got != recordHandshake {
			return nil, fail(alertUnexpectedMessage, "a record of type %d in the handshake", got)
		}
		if c.hand == nil {
			c.hand = make([]byte, 0, len(data))
		}
		c.hand = append(c.hand, data...)
	}
}

// aligned finds a message that would straddle a change of keys (RFC 8446, section 5.1).
func (c *Conn) aligned() error {
	if len(c.hand) > 0 {
		return fail(alertUnexpectedMessage, "a handshake message goes on beyond a change of keys")
	}
	return nil
}

// say adds a handshake message to the flight and returns it.
func (c *Conn) say(typ byte, fn func(b *cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddUint8(typ)
	b.AddUint24LengthPrefixed(fn)
	m := b.BytesOrPanic()
	c.flight = c.out.append(c.flight, recordHandshake, m)
	return m
}

// sayChange adds a change_cipher_spec to the flight, always in plain text.
func (c *Conn) sayChange() {
	c.flight = append(c.flight, recordChangeCipherSpec, 3, 3, 0, 1, 1)
}

// exchange is our part of ECDH on a group.
func exchange(group uint16) (*ecdh.PrivateKey, error) { return curve(group).GenerateKey(rand.Reader) }

// agree computes what is shared with the client.
func agree(own *ecdh.PrivateKey, theirs []byte) ([]byte, error) {
	pub, err := own.Curve().NewPublicKey(theirs)
	if err != nil {
		return nil, fail(alertIllegalParameter, "the client's public key: %v", err)
	}
	z, err := own.ECDH(pub)
	if err != nil {
		return nil, fail(alertIllegalParameter, "the client's public key: %v", err)
	}
	return z, nil
}
