package tlspsk

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// ccm is AES-CCM (RFC 3610), with the nonces of 12 bytes of TLS, so that the length field L has 3.
type ccm struct {
	block cipher.Block
	tag   int // M: 16, or 8 in the suites for constrained devices (RFC 6655)
}

const (
	ccmNonce  = 12
	ccmBlock  = 16
	ccmLength = ccmBlock - 1 - ccmNonce // L
	ccmMax    = 1<<(8*ccmLength) - 1
)

var errOpen = errors.New("tlspsk: message authentication failed")

func (c *ccm) NonceSize() int { return ccmNonce }
func (c *ccm) Overhead() int  { return c.tag }

// Seal implements cipher.AEAD. dst and plaintext may overlap only exactly.
func (c *ccm) Seal(dst, nonce, plaintext, data []byte) []byte {
	if len(nonce) != ccmNonce || len(plaintext) > ccmMax {
		panic("tlspsk: CCM with a wrong nonce or too long a message")
	}
	var tag [ccmBlock]byte
	c.mac(&tag, nonce, plaintext, data)
	at := len(dst)
	dst = append(dst, plaintext...) // copies onto itself when it overlaps
	c.xor(dst[at:], nonce, &tag)
	return append(dst, tag[:c.tag]...)
}

// Open implements cipher.AEAD. dst and ciphertext may overlap only exactly.
func (c *ccm) Open(dst, nonce, ciphertext, data []byte) ([]byte, error) {
	if len(nonce) != ccmNonce || len(ciphertext) < c.tag || len(ciphertext)-c.tag > ccmMax {
		return nil, errOpen
	}
	n := len(ciphertext) - c.tag
	var got, want [ccmBlock]byte
	copy(got[:c.tag], ciphertext[n:])
	at := len(dst)
	dst = append(dst, ciphertext[:n]...)
	plain := dst[at:]
	c.xor(plain, nonce, &got)
	c.mac(&want, nonce, plain, data)
	if subtle.ConstantTimeCompare(got[:c.tag], want[:c.tag]) != 1 {
		clear(plain)
		return nil, errOpen
	}
	return dst, nil
}

// mac is the CBC-MAC of RFC 3610, section 2.2.
func (c *ccm) mac(sum *[ccmBlock]byte, nonce, plain, data []byte) {
	var x [ccmBlock]byte
	x[0] = byte(c.tag-2)/2<<3 | (ccmLength - 1)
	if len(data) > 0 {
		x[0] |= 1 << 6
	}
	copy(x[1:], nonce)
	n := len(plain)
	x[13], x[14], x[15] = byte(n>>16), byte(n>>8), byte(n)
	c.block.Encrypt(sum[:], x[:])
	if len(data) > 0 { // TLS never has as much as 0xFF00 bytes of it
		var first [ccmBlock]byte
		binary.BigEndian.PutUint16(first[:], uint16(len(data)))
		data = data[copy(first[2:], data):]
		c.absorb(sum, first[:])
		c.absorb(sum, data)
	}
	c.absorb(sum, plain)
}

// absorb continues the MAC with p, padded with zeros.
func (c *ccm) absorb(sum *[ccmBlock]byte, p []byte) {
	for len(p) > 0 {
		n := subtle.XORBytes(sum[:], sum[:], p[:min(ccmBlock, len(p))])
		c.block.Encrypt(sum[:], sum[:])
		p = p[n:]
	}
}

// xor turns p and the tag from plain to cipher text, or back (RFC 3610, section 2.3).
func (c *ccm) xor(p, nonce []byte, tag *[ccmBlock]byte) {
	var a, s [ccmBlock]byte
	a[0] = ccmLength - 1
	copy(a[1:], nonce)
	c.block.Encrypt(s[:], a[:])
	subtle.XORBytes(tag[:c.tag], tag[:c.tag], s[:])
	for i := 1; len(p) > 0; i++ {
		a[13], a[14], a[15] = byte(i>>16), byte(i>>8), byte(i)
		c.block.Encrypt(s[:], a[:])
		p = p[subtle.XORBytes(p, p, s[:]):]
	}
}
