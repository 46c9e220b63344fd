package tlspsk

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/tls"
	"errors"

	"golang.org/x/crypto/cryptobyte"
)

// handshake12 is RFC 5246, section 7.3, with the key exchange of RFC 4279 and 5489.
func (c *Conn) handshake12(h *clientHello) error {
	group := firstGroup(h.groups)
	s := choose12(h, group)
	if s == nil {
		return fail(alertHandshakeFailure, "no suite in common for TLS 1.2")
	}
	if !s.ecdhe {
		group = 0
	}
	random := make([]byte, 32)
	rand.Read(random)
	if !h.tls13 && c.cfg.speaks(tls.VersionTLS13) { // RFC 8446, section 4.1.3
		copy(random[24:], "DOWNGRD\x01")
	}
	sent, own, err := c.hello12(h, s, group, random)
	if err != nil {
		return err
	}
	transcript := append(append([]byte(nil), h.raw...), sent...)

	m, err := c.message(typeClientKeyExchange, maxKeyExch, false)
	if err != nil {
		return err
	}
	transcript = append(transcript, m...)
	identity, other, err := clientKeyExchange(m, own)
	if err != nil {
		return err
	}
	key, known := c.key(identity)
	secret := premaster(other, key)
	var master []byte
	if h.ems { // RFC 7627, section 4
		master = prf(s.hash, secret, "extended master secret", digest(s.hash, transcript), 48)
	} else {
		master = prf(s.hash, secret, "master secret", append(append([]byte(nil), h.random...), random...), 48)
	}
	in, out, err := s.keys12(master, h.random, random)
	if err != nil {
		return err
	}
	if err := c.change12(in); err != nil {
		return err
	}
	m, err = c.message(typeFinished, maxFinished, false)
	var f *failure
	if errors.As(err, &f) && f.alert == alertBadRecordMAC { // what a wrong key comes to
		return errBadKey
	}
	if err != nil {
		return err
	}
	if err := c.aligned(); err != nil {
		return err
	}
	same := hmac.Equal(m[4:], prf(s.hash, master, "client finished", digest(s.hash, transcript), 12))
	if !same || !known {
		return errBadKey
	}
	transcript = append(transcript, m...)
	c.sayChange()
	c.out.prot, c.out.seq = out, 0
	c.say(typeFinished, func(b *cryptobyte.Builder) {
		b.AddBytes(prf(s.hash, master, "server finished", digest(s.hash, transcript), 12))
	})
	c.out.limit = h.fragment(false)
	c.st = State{Version: tls.VersionTLS12, Suite: s.id, Group: group, Identity: string(identity)}
	return c.flush()
}

// hello12 sends our first flight, and returns it beside our ephemeral key.
func (c *Conn) hello12(h *clientHello, s *suite, group uint16, random []byte) (sent []byte, own *ecdh.PrivateKey, err error) {
	sent = c.say(typeServerHello, func(b *cryptobyte.Builder) {
		b.AddUint16(tls.VersionTLS12)
		b.AddBytes(random)
		b.AddUint8(0) // no session that could be resumed
		b.AddUint16(s.id)
		b.AddUint8(0)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			if h.renego {
				extension(b, extRenegotiation, func(b *cryptobyte.Builder) { b.AddUint8(0) })
			}
			if h.ems {
				extension(b, extMasterSecret, func(*cryptobyte.Builder) {})
			}
			if s.mac > 0 { // choose12 wants it
				extension(b, extEncryptMAC, func(*cryptobyte.Builder) {})
			}
			if s.ecdhe && h.points {
				extension(b, extPoints, func(b *cryptobyte.Builder) { b.AddBytes([]byte{1, 0}) })
			}
			h.appendSizes(b, false)
		})
	})
	if s.ecdhe {
		if own, err = exchange(group); err != nil {
			return nil, nil, err
		}
	}
	if s.ecdhe || c.cfg.Hint != "" { // RFC 4279, section 2; RFC 5489, section 2
		sent = append(sent, c.say(typeServerKeyExchange, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(c.cfg.Hint)) })
			if s.ecdhe {
				b.AddUint8(3) // named_curve
				b.AddUint16(group)
				b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(own.PublicKey().Bytes()) })
			}
		})...)
	}
	sent = append(sent, c.say(typeServerHelloDone, func(*cryptobyte.Builder) {})...)
	return sent, own, c.flush()
}

// clientKeyExchange returns the identity and the result of ECDH, if there is one.
func clientKeyExchange(m []byte, own *ecdh.PrivateKey) (identity, other []byte, err error) {
	s := cryptobyte.String(m[4:])
	var id, public cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&id) || own != nil && !s.ReadUint8LengthPrefixed(&public) || !s.Empty() {
		return nil, nil, fail(alertDecodeError, "the ClientKeyExchange is malformed")
	}
	if own != nil {
		other, err = agree(own, public)
	}
	return id, other, err
}

// change12 waits for change_cipher_spec and reads with keys from then on.
func (c *Conn) change12(in protection) error {
	if err := c.aligned(); err != nil {
		return err
	}
	typ, data, err := c.in.next(c.nc, nil, false)
	if err != nil {
		return err
	}
	if typ != recordChangeCipherSpec || len(data) != 1 || data[0] != 1 {
		return fail(alertUnexpectedMessage, "a record of type %d where change_cipher_spec is due", typ)
	}
	c.in.prot, c.in.seq = in, 0
	return nil
}
