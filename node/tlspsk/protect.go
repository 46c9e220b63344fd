package tlspsk

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"hash"
)

// protection seals and opens the records of one direction under one set of keys. Its caller counts
// the records, and calls nothing twice at a time.
type protection interface {
	// seal appends the record, header and all, to dst.
	seal(dst []byte, seq uint64, typ byte, plain []byte) []byte
	// open decrypts a whole record in place: what it returns lies in rec.
	open(seq uint64, rec []byte) (typ byte, plain []byte, err error)
}

// plainText is the protection before there are keys.
type plainText struct{}

func (plainText) seal(dst []byte, _ uint64, typ byte, plain []byte) []byte {
	return append(append(dst, typ, 3, 3, byte(len(plain)>>8), byte(len(plain))), plain...)
}

func (plainText) open(_ uint64, rec []byte) (typ byte, plain []byte, err error) {
	return rec[0], rec[headerSize:], nil
}

// aead13 is RFC 8446, section 5.2.
type aead13 struct {
	aead  cipher.AEAD
	iv    [12]byte
	nonce [12]byte
}

func newAEAD13(s *suite, secret []byte) (*aead13, error) {
	a, err := s.aead(expandLabel(s.hash, secret, "key", nil, s.key))
	if err != nil {
		return nil, err
	}
	return &aead13{aead: a, iv: [12]byte(expandLabel(s.hash, secret, "iv", nil, 12))}, nil
}

// counted is the per-record nonce (RFC 8446, section 5.3; RFC 7905, section 2).
func counted(nonce, iv *[12]byte, seq uint64) []byte {
	*nonce = *iv
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(iv[4:])^seq)
	return nonce[:]
}

func (a *aead13) seal(dst []byte, seq uint64, typ byte, plain []byte) []byte {
	at := len(dst)
	n := len(plain) + 1 + a.aead.Overhead()
	dst = append(dst, recordApplication, 3, 3, byte(n>>8), byte(n))
	body := len(dst)
	dst = append(append(dst, plain...), typ)
	return a.aead.Seal(dst[:body], counted(&a.nonce, &a.iv, seq), dst[body:], dst[at:body])
}

func (a *aead13) open(seq uint64, rec []byte) (typ byte, plain []byte, err error) {
	if rec[0] != recordApplication {
		return 0, nil, fail(alertUnexpectedMessage, "a record of type %d is not encrypted", rec[0])
	}
	plain, err = a.aead.Open(rec[headerSize:headerSize], counted(&a.nonce, &a.iv, seq), rec[headerSize:], rec[:headerSize])
	if err != nil {
		return 0, nil, fail(alertBadRecordMAC, "a record can't be authenticated")
	}
	i := len(plain) - 1
	for i >= 0 && plain[i] == 0 { // padding (RFC 8446, section 5.4)
		i--
	}
	if i < 0 {
		return 0, nil, fail(alertUnexpectedMessage, "a record has no type")
	}
	return plain[i], plain[:i], nil
}

// aead12 is RFC 5246, section 6.2.3.3, with the nonces of RFC 5288 and 6655 (explicit) or RFC 7905.
type aead12 struct {
	aead     cipher.AEAD
	iv       [12]byte
	explicit int // bytes of the nonce that the record carries
	nonce    [12]byte
	data     [13]byte
}

func (a *aead12) fill(seq uint64, typ byte, n int) (nonce, data []byte) {
	binary.BigEndian.PutUint64(a.data[:], seq)
	a.data[8], a.data[9], a.data[10] = typ, 3, 3
	binary.BigEndian.PutUint16(a.data[11:], uint16(n))
	if a.explicit > 0 {
		a.nonce = a.iv
		return a.nonce[:], a.data[:]
	}
	return counted(&a.nonce, &a.iv, seq), a.data[:]
}

func (a *aead12) seal(dst []byte, seq uint64, typ byte, plain []byte) []byte {
	nonce, data := a.fill(seq, typ, len(plain))
	n := a.explicit + len(plain) + a.aead.Overhead()
	dst = append(dst, typ, 3, 3, byte(n>>8), byte(n))
	if a.explicit > 0 {
		dst = append(dst, data[:8]...) // the sequence number: unique, and no secret
		copy(nonce[4:], data[:8])
	}
	body := len(dst)
	dst = append(dst, plain...)
	return a.aead.Seal(dst[:body], nonce, dst[body:], data)
}

func (a *aead12) open(seq uint64, rec []byte) (typ byte, plain []byte, err error) {
	body := rec[headerSize:]
	n := len(body) - a.explicit - a.aead.Overhead()
	if n >= 0 {
		nonce, data := a.fill(seq, rec[0], n)
		if a.explicit > 0 {
			copy(nonce[4:], body[:8])
		}
		body = body[a.explicit:]
		if plain, err = a.aead.Open(body[:0], nonce, body, data); err == nil {
			return rec[0], plain, nil
		}
	}
	return 0, nil, fail(alertBadRecordMAC, "a record can't be authenticated")
}

// cbcETM is CBC of TLS 1.2 under encrypt-then-MAC (RFC 5246, section 6.2.3.2; RFC 7366, section 3).
// Padding is looked at only after the MAC has been checked, so that it tells nobody anything.
type cbcETM struct {
	block cipher.Block
	mac   hash.Hash
	data  [13]byte
	sum   [64]byte
}

func (c *cbcETM) tag(seq uint64, typ byte, body []byte) []byte {
	binary.BigEndian.PutUint64(c.data[:], seq)
	c.data[8], c.data[9], c.data[10] = typ, 3, 3
	binary.BigEndian.PutUint16(c.data[11:], uint16(len(body)))
	c.mac.Reset()
	c.mac.Write(c.data[:])
	c.mac.Write(body)
	return c.mac.Sum(c.sum[:0])
}

func (c *cbcETM) seal(dst []byte, seq uint64, typ byte, plain []byte) []byte {
	pad := aes.BlockSize - len(plain)%aes.BlockSize // 1 to 16 bytes, each says how many follow
	n := aes.BlockSize + len(plain) + pad + c.mac.Size()
	dst = append(dst, typ, 3, 3, byte(n>>8), byte(n))
	body := len(dst)
	var iv [aes.BlockSize]byte
	rand.Read(iv[:])
	dst = append(append(dst, iv[:]...), plain...)
	for range pad {
		dst = append(dst, byte(pad-1))
	}
	text := dst[body+aes.BlockSize:]
	cipher.NewCBCEncrypter(c.block, iv[:]).CryptBlocks(text, text)
	return append(dst, c.tag(seq, typ, dst[body:])...)
}

func (c *cbcETM) open(seq uint64, rec []byte) (typ byte, plain []byte, err error) {
	body := rec[headerSize:]
	n := len(body) - c.mac.Size()
	if n < 2*aes.BlockSize || n%aes.BlockSize != 0 || !hmac.Equal(body[n:], c.tag(seq, rec[0], body[:n])) {
		return 0, nil, fail(alertBadRecordMAC, "a record can't be authenticated")
	}
	text := body[aes.BlockSize:n]
	cipher.NewCBCDecrypter(c.block, body[:aes.BlockSize]).CryptBlocks(text, text)
	pad := text[len(text)-1]
	rest := len(text) - int(pad) - 1
	if rest < 0 {
		return 0, nil, fail(alertBadRecordMAC, "a record's padding is longer than it")
	}
	for _, b := range text[rest:] {
		if b != pad {
			return 0, nil, fail(alertBadRecordMAC, "a record's padding is wrong")
		}
	}
	return rec[0], text[:rest], nil
}

// keys12 are the protections of both directions (RFC 5246, section 6.3).
func (s *suite) keys12(master, clientRandom, serverRandom []byte) (in, out protection, err error) {
	seed := append(append([]byte(nil), serverRandom...), clientRandom...)
	block := prf(s.hash, master, "key expansion", seed, 2*(s.mac+s.key+s.iv))
	take := func(n int) (a, b []byte) {
		a, b, block = block[:n], block[n:2*n], block[2*n:]
		return a, b
	}
	clientMAC, serverMAC := take(s.mac)
	clientKey, serverKey := take(s.key)
	clientIV, serverIV := take(s.iv)
	if in, err = s.protection12(clientMAC, clientKey, clientIV); err != nil {
		return nil, nil, err
	}
	out, err = s.protection12(serverMAC, serverKey, serverIV)
	return in, out, err
}

func (s *suite) protection12(macKey, key, iv []byte) (protection, error) {
	if s.aead == nil {
		b, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		return &cbcETM{block: b, mac: hmac.New(s.hash, macKey)}, nil
	}
	a, err := s.aead(key)
	if err != nil {
		return nil, err
	}
	p := &aead12{aead: a}
	if copy(p.iv[:], iv) == 4 {
		p.explicit = 8
	}
	return p, nil
}
