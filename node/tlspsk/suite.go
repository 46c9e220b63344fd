package tlspsk

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// suite is a cipher suite. Either aead is set or mac, for CBC.
type suite struct {
	id    uint16
	ecdhe bool // TLS 1.2: ECDHE_PSK, not PSK
	key   int
	iv    int // TLS 1.2: what the key block gives, 4 (RFC 5288, 6655) or 12 (RFC 7905)
	hash  func() hash.Hash
	aead  func(key []byte) (cipher.AEAD, error)
	mac   int // of HMAC, with hash
}

func gcm(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

func ccm16(key []byte) (cipher.AEAD, error) { return newCCM(key, 16) }
func ccm8(key []byte) (cipher.AEAD, error)  { return newCCM(key, 8) }

func newCCM(key []byte, tag int) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return &ccm{b, tag}, nil
}

// suites12 are those of TLS 1.2 in our order: forward secrecy first, short tags last.
var suites12 = []suite{
	{id: 0xD001, ecdhe: true, key: 16, iv: 4, hash: sha256.New, aead: gcm},                   // RFC 8442
	{id: 0xD002, ecdhe: true, key: 32, iv: 4, hash: sha512.New384, aead: gcm},                // RFC 8442
	{id: 0xCCAC, ecdhe: true, key: 32, iv: 12, hash: sha256.New, aead: chacha20poly1305.New}, // RFC 7905
	{id: 0xD005, ecdhe: true, key: 16, iv: 4, hash: sha256.New, aead: ccm16},                 // RFC 8442
	{id: 0xD003, ecdhe: true, key: 16, iv: 4, hash: sha256.New, aead: ccm8},                  // RFC 8442
	{id: 0xC037, ecdhe: true, key: 16, hash: sha256.New, mac: 32},                            // RFC 5489
	{id: 0xC038, ecdhe: true, key: 32, hash: sha512.New384, mac: 48},                         // RFC 5489
	{id: 0x00A8, key: 16, iv: 4, hash: sha256.New, aead: gcm},                                // RFC 5487
	{id: 0x00A9, key: 32, iv: 4, hash: sha512.New384, aead: gcm},                             // RFC 5487
	{id: 0xCCAB, key: 32, iv: 12, hash: sha256.New, aead: chacha20poly1305.New},              // RFC 7905
	{id: 0xC0A4, key: 16, iv: 4, hash: sha256.New, aead: ccm16},                              // RFC 6655
	{id: 0xC0A5, key: 32, iv: 4, hash: sha256.New, aead: ccm16},                              // RFC 6655
	{id: 0x00AE, key: 16, hash: sha256.New, mac: 32},                                         // RFC 5487
	{id: 0x00AF, key: 32, hash: sha512.New384, mac: 48},                                      // RFC 5487
	{id: 0xC0A8, key: 16, iv: 4, hash: sha256.New, aead: ccm8},                               // RFC 6655
	{id: 0xC0A9, key: 32, iv: 4, hash: sha256.New, aead: ccm8},                               // RFC 6655
}

// suites13 have SHA-256 alone: an external key belongs to one hash, and that is the one of a key that
// does not say (RFC 8446, section 4.2.11).
var suites13 = []suite{
	{id: 0x1301, key: 16, iv: 12, hash: sha256.New, aead: gcm},
	{id: 0x1303, key: 32, iv: 12, hash: sha256.New, aead: chacha20poly1305.New},
	{id: 0x1304, key: 16, iv: 12, hash: sha256.New, aead: ccm16},
	{id: 0x1305, key: 16, iv: 12, hash: sha256.New, aead: ccm8}, // RFC 8446, appendix B.4
}

// choose13 returns nil when there is nothing in common.
func choose13(h *clientHello) *suite {
	for i := range suites13 {
		if slices.Contains(h.suites, suites13[i].id) {
			return &suites13[i]
		}
	}
	return nil
}

// choose12 returns nil when there is nothing in common.
func choose12(h *clientHello, group uint16) *suite {
	for i := range suites12 {
		s := &suites12[i]
		if slices.Contains(h.suites, s.id) && (!s.ecdhe || group != 0) && (s.mac == 0 || h.etm) {
			return s
		}
	}
	return nil
}

// groups are the curves that we know, the best first.
var groups = []uint16{29, 23, 24, 25}

func curve(group uint16) ecdh.Curve {
	switch group {
	case 29:
		return ecdh.X25519()
	case 23:
		return ecdh.P256()
	case 24:
		return ecdh.P384()
	case 25:
		return ecdh.P521()
	}
	return nil
}

// firstGroup is our first of those that the client knows, 0 if there is none.
func firstGroup(theirs []uint16) uint16 {
	for _, g := range groups {
		if slices.Contains(theirs, g) {
			return g
		}
	}
	return 0
}
