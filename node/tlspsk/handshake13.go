package tlspsk

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/tls"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// Modes of RFC 8446, section 4.2.9.
const (
	modeKE    = 0
	modeDHEKE = 1
)

// maxEarly is how much early data is passed over. A key says nothing about how much it may be.
const maxEarly = 64 << 10

// retryRandom makes a ServerHello a HelloRetryRequest (RFC 8446, section 4.1.3).
var retryRandom = [32]byte{
	0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
	0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
}

func suite13(id uint16) *suite {
	for i := range suites13 {
		if suites13[i].id == id {
			return &suites13[i]
		}
	}
	return nil
}

// nextSecret is RFC 8446, section 7.2.
func nextSecret(s *suite, secret []byte) []byte {
	return expandLabel(s.hash, secret, "traffic upd", nil, len(secret))
}

// handshake13 is RFC 8446, section 2.2, without resumption.
func (c *Conn) handshake13(h *clientHello) error {
	s := choose13(h)
	switch {
	case s == nil:
		return fail(alertHandshakeFailure, "no suite in common for TLS 1.3")
	case !h.zero:
		return fail(alertIllegalParameter, "the client offers compression")
	}
	c.in.tls13 = true
	if h.early {
		c.in.skip = maxEarly
	}
	group, theirs, err := c.group13(h)
	if err != nil {
		return err
	}
	var transcript []byte
	if group != 0 && theirs == nil {
		if transcript, h, err = c.retry(h, s, group); err != nil {
			return err
		}
		theirs = h.shares[0].key
	}
	selected, early, err := c.identify(h, s, transcript)
	if err != nil {
		return err
	}
	transcript = append(transcript, h.raw...)

	var own *ecdh.PrivateKey
	z := make([]byte, s.hash().Size()) // psk_ke (RFC 8446, section 7.1)
	if group != 0 {
		if own, err = exchange(group); err != nil {
			return err
		}
		if z, err = agree(own, theirs); err != nil {
			return err
		}
	}
	first := len(transcript) == len(h.raw)
	transcript = append(transcript, c.hello13(h, s, own, group, selected)...)
	if first && len(h.session) > 0 { // RFC 8446, appendix D.4
		c.sayChange()
	}
	if err := c.aligned(); err != nil {
		return err
	}
	c.st = State{Version: tls.VersionTLS13, Suite: s.id, Group: group, Identity: string(h.keys[selected].identity)}
	return c.finish13(h, s, extract(s.hash, z, derive(s.hash, early)), transcript)
}

// group13 is the group of the key exchange, with the client's share if he sent one; 0 means none.
func (c *Conn) group13(h *clientHello) (uint16, []byte, error) {
	if slices.Contains(h.modes, modeDHEKE) {
		for _, g := range groups {
			for _, s := range h.shares {
				if s.group == g {
					return g, s.key, nil
				}
			}
		}
		if g := firstGroup(h.groups); g != 0 {
			return g, nil, nil
		}
	}
	if slices.Contains(h.modes, modeKE) {
		return 0, nil, nil
	}
	return 0, nil, fail(alertHandshakeFailure, "no group or mode of key exchange in common")
}

// retry asks for a share of a group (RFC 8446, section 4.1.4). It returns the transcript up to the
// second ClientHello, which may differ from the first in few things.
func (c *Conn) retry(h *clientHello, s *suite, group uint16) (transcript []byte, second *clientHello, err error) {
	sum := digest(s.hash, h.raw) // RFC 8446, section 4.4.1
	transcript = append([]byte{typeMessageHash, 0, 0, byte(len(sum))}, sum...)
	transcript = append(transcript, c.serverHello13(h, s, retryRandom[:], func(b *cryptobyte.Builder) {
		extension(b, extKeyShare, func(b *cryptobyte.Builder) { b.AddUint16(group) })
	})...)
	if len(h.session) > 0 {
		c.sayChange()
	}
	if err := c.aligned(); err != nil {
		return nil, nil, err
	}
	if err := c.flush(); err != nil {
		return nil, nil, err
	}
	raw, err := c.message(typeClientHello, maxHello, true)
	if err != nil {
		return nil, nil, err
	}
	if second, err = parseHello(raw); err != nil {
		return nil, nil, err
	}
	switch {
	case !second.tls13 || !second.zero || second.early || len(second.keys) == 0 || !bytes.Equal(second.random, h.random) ||
		!bytes.Equal(second.session, h.session) || !slices.Equal(second.suites, h.suites) || !bytes.Equal(second.modes, h.modes):
		return nil, nil, fail(alertIllegalParameter, "the second ClientHello is another one")
	case len(second.shares) != 1 || second.shares[0].group != group:
		return nil, nil, fail(alertIllegalParameter, "the second ClientHello lacks the share that was asked for")
	}
	return transcript, second, nil
}

// identify finds the key, checks that the client has it, and returns the early secret. before is the
// transcript up to this ClientHello. It does the same work whether somebody is known or not.
func (c *Conn) identify(h *clientHello, s *suite, before []byte) (selected int, early []byte, err error) {
	key, known := decoy, false
	for i, k := range h.keys {
		if found, ok := c.key(k.identity); ok && !known {
			key, known, selected = found, true, i
		}
	}
	early = extract(s.hash, key, nil)
	sum := digest(s.hash, before, h.raw[:len(h.raw)-h.binders])
	same := hmac.Equal(binder(s.hash, early, sum), h.keys[selected].binder)
	if !same || !known {
		return 0, nil, errBadKey
	}
	return selected, early, nil
}

// hello13 says the ServerHello.
func (c *Conn) hello13(h *clientHello, s *suite, own *ecdh.PrivateKey, group uint16, selected int) []byte {
	random := make([]byte, 32)
	rand.Read(random)
	return c.serverHello13(h, s, random, func(b *cryptobyte.Builder) {
		if own != nil {
			extension(b, extKeyShare, func(b *cryptobyte.Builder) {
				b.AddUint16(group)
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(own.PublicKey().Bytes()) })
			})
		}
		extension(b, extPreShared, func(b *cryptobyte.Builder) { b.AddUint16(uint16(selected)) })
	})
}

// serverHello13 is a ServerHello or a HelloRetryRequest (RFC 8446, sections 4.1.3 and 4.1.4).
func (c *Conn) serverHello13(h *clientHello, s *suite, random []byte, extensions func(b *cryptobyte.Builder)) []byte {
	return c.say(typeServerHello, func(b *cryptobyte.Builder) {
		b.AddUint16(tls.VersionTLS12)
		b.AddBytes(random)
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(h.session) })
		b.AddUint16(s.id)
		b.AddUint8(0)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			extension(b, extVersions, func(b *cryptobyte.Builder) { b.AddUint16(tls.VersionTLS13) })
			extensions(b)
		})
	})
}

// finish13 is all that follows the ServerHello, from the handshake secret (RFC 8446, section 7.1).
func (c *Conn) finish13(h *clientHello, s *suite, handshake, transcript []byte) error {
	sum := digest(s.hash, transcript)
	n := len(sum)
	client := expandLabel(s.hash, handshake, "c hs traffic", sum, n)
	server := expandLabel(s.hash, handshake, "s hs traffic", sum, n)
	if err := c.read13(s, client); err != nil {
		return err
	}
	if err := c.write13(s, server); err != nil {
		return err
	}
	transcript = append(transcript, c.say(typeEncrypted, func(b *cryptobyte.Builder) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { h.appendSizes(b, true) })
	})...)
	transcript = append(transcript, c.say(typeFinished, func(b *cryptobyte.Builder) {
		b.AddBytes(finished13(s.hash, server, digest(s.hash, transcript)))
	})...)
	if err := c.flush(); err != nil {
		return err
	}
	master := extract(s.hash, make([]byte, n), derive(s.hash, handshake))
	sum = digest(s.hash, transcript)
	if err := c.write13(s, expandLabel(s.hash, master, "s ap traffic", sum, n)); err != nil {
		return err
	}
	c.out.limit = h.fragment(true)
	m, err := c.message(typeFinished, maxFinished, true)
	if err != nil {
		return err
	}
	if err := c.aligned(); err != nil {
		return err
	}
	if !hmac.Equal(m[4:], finished13(s.hash, client, sum)) {
		return errBadKey
	}
	return c.read13(s, expandLabel(s.hash, master, "c ap traffic", sum, n))
}

func (c *Conn) read13(s *suite, secret []byte) error {
	p, err := newAEAD13(s, secret)
	if err != nil {
		return err
	}
	c.in.prot, c.in.seq, c.inSecret = p, 0, secret
	return nil
}

func (c *Conn) write13(s *suite, secret []byte) error {
	p, err := newAEAD13(s, secret)
	if err != nil {
		return err
	}
	c.out.prot, c.out.seq, c.outSecret = p, 0, secret
	return nil
}
