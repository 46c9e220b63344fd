package tlspsk

import (
	"bytes"
	"crypto/aes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantHex(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if !bytes.Equal(got, unhex(t, want)) {
		t.Errorf("%s: %x, want %s", what, got, want)
	}
}

// RFC 8448, section 3.
func TestKeySchedule(t *testing.T) {
	h := sha256.New
	early := extract(h, make([]byte, 32), nil)
	wantHex(t, "early secret", early, "33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a")
	derived := derive(h, early)
	wantHex(t, "derived", derived, "6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba")
	z := unhex(t, "8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d")
	handshake := extract(h, z, derived)
	wantHex(t, "handshake secret", handshake, "1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac")
	hello := unhex(t, "860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8") // transcript up to ServerHello
	client := expandLabel(h, handshake, "c hs traffic", hello, 32)
	wantHex(t, "client handshake traffic secret", client, "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21")
	server := expandLabel(h, handshake, "s hs traffic", hello, 32)
	wantHex(t, "server handshake traffic secret", server, "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
	wantHex(t, "server key", expandLabel(h, server, "key", nil, 16), "3fce516009c21727d0f2e4e86ee403bc")
	wantHex(t, "server iv", expandLabel(h, server, "iv", nil, 12), "5d313eb2671276ee13000b30")
	wantHex(t, "master secret", extract(h, make([]byte, 32), derive(h, handshake)), "18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919")
}

// The vectors that were made for TLS 1.2 when it was new (mailarchive.ietf.org, "Test vectors for
// TLS 1.2 PRF").
func TestPRF(t *testing.T) {
	got := prf(sha256.New, unhex(t, "9bbe436ba940f017b17652849a71db35"), "test label", unhex(t, "a0ba9f936cda311827a6f796ffd5198c"), 100)
	wantHex(t, "P_SHA256", got, `e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0f
		a022f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66`)
	got = prf(sha512.New384, unhex(t, "b80b733d6ceefcdc71566ea48e5567df"), "test label", unhex(t, "cd665cf6a8447dd6ff8b27555edb7465"), 148)
	wantHex(t, "P_SHA384", got, `7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0e534
		cb400fed2700884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d9184259b5bf8cd4d90fa0d31e2dec479e4f1a26066f2eea9
		a69236a3e52655c9e9aee691c8f3a26854308d5eaa3be85e0990703d73e56f`)
}

// RFC 4279, section 2: N zeros, or the result of the key exchange, each behind its length.
func TestPremaster(t *testing.T) {
	wantHex(t, "PSK", premaster(nil, []byte{1, 2, 3}), "0003 000000 0003 010203")
	wantHex(t, "ECDHE_PSK", premaster([]byte{9}, []byte{1, 2, 3}), "0001 09 0003 010203")
}

// NIST SP 800-38C, example 3: the one whose nonce has 12 bytes.
func TestCCMVector(t *testing.T) {
	b, err := aes.NewCipher(unhex(t, "404142434445464748494a4b4c4d4e4f"))
	if err != nil {
		t.Fatal(err)
	}
	c := &ccm{b, 8}
	nonce, data := unhex(t, "101112131415161718191a1b"), unhex(t, "000102030405060708090a0b0c0d0e0f10111213")
	plain := unhex(t, "202122232425262728292a2b2c2d2e2f3031323334353637")
	sealed := c.Seal(nil, nonce, plain, data)
	wantHex(t, "ciphertext", sealed, "e3b201a9f5b71a7a9b1ceaeccd97e70b6176aad9a4428aa5 484392fbc1b09951")
	got, err := c.Open(sealed[:0:len(sealed)], nonce, sealed, data)
	if err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%x %v", got, err)
	}
}

// TestProtections: each suite opens what it sealed, in place, at every length, and nothing else.
func TestProtections(t *testing.T) {
	master, random := bytes.Repeat([]byte{1}, 48), bytes.Repeat([]byte{2}, 32)
	try := func(t *testing.T, in, out protection) {
		for _, n := range []int{0, 1, 15, 16, 17, 31, 255, 1000, maxPlain} {
			plain := bytes.Repeat([]byte{7}, n)
			rec := out.seal([]byte("before"), 5, recordApplication, plain)[len("before"):]
			if whole, err := length(rec); err != nil || whole != len(rec) {
				t.Fatalf("%d bytes: a record of %d bytes says %d, %v", n, len(rec), whole, err)
			}
			typ, got, err := in.open(5, bytes.Clone(rec))
			if err != nil || typ != recordApplication || !bytes.Equal(got, plain) {
				t.Fatalf("%d bytes: type %d, %d bytes, %v", n, typ, len(got), err)
			}
			if _, _, err := in.open(6, bytes.Clone(rec)); err == nil {
				t.Errorf("%d bytes: another sequence number fits", n)
			}
			for _, at := range []int{0, headerSize, min(headerSize+9, len(rec)-1), len(rec) / 2, len(rec) - 1} {
				bad := bytes.Clone(rec)
				bad[at] ^= 1
				if _, _, err := in.open(5, bad); err == nil {
					t.Errorf("%d bytes: byte %d changed, unseen", n, at)
				}
			}
			for cut := headerSize; cut < min(len(rec), headerSize+64); cut++ {
				if _, _, err := in.open(5, bytes.Clone(rec[:cut])); err == nil {
					t.Errorf("%d bytes: cut to %d, unseen", n, cut)
				}
			}
		}
	}
	for i := range suites12 {
		s := &suites12[i]
		t.Run(hex.EncodeToString([]byte{byte(s.id >> 8), byte(s.id)}), func(t *testing.T) {
			in, _, err := s.keys12(master, random, random)
			if err != nil {
				t.Fatal(err)
			}
			again, _, err := s.keys12(master, random, random) // the client's way out is our way in
			if err != nil {
				t.Fatal(err)
			}
			try(t, in, again)
		})
	}
	for i := range suites13 {
		s := &suites13[i]
		t.Run(hex.EncodeToString([]byte{byte(s.id >> 8), byte(s.id)}), func(t *testing.T) {
			in, err := newAEAD13(s, master[:32])
			if err != nil {
				t.Fatal(err)
			}
			out, err := newAEAD13(s, master[:32])
			if err != nil {
				t.Fatal(err)
			}
			try(t, in, out)
		})
	}
}

func TestParseKeys(t *testing.T) {
	k, err := ParseKeys([]byte("# a comment\n\nann:00FF\r\nbob smith:abc\n:x\n"[:len("# a comment\n\nann:00FF\r\nbob smith:abc\n")]))
	if err != nil || k.Len() != 2 || k.Weak() != 2 {
		t.Fatalf("%+v %v", k, err)
	}
	for identity, want := range map[string]string{"ann": "00ff", "bob smith": "0abc"} {
		key, ok := k.Find(identity)
		if !ok {
			t.Errorf("no %q", identity)
		}
		wantHex(t, identity, key, want)
	}
	if _, ok := k.Find("eve"); ok {
		t.Error("eve is known")
	}
	for text, want := range map[string]string{
		"ann":                                 "line 1 wants IDENTITY:KEY",
		":00":                                 "line 1 wants IDENTITY:KEY",
		"\nann:":                              "line 2 has a key",
		"ann:xy":                              "line 1 has a key",
		"ann:00\nann:01":                      "line 2 repeats an identity",
		"\xff:00":                             "line 1 has an identity that is not UTF-8",
		"ann:secret\nb:zz":                    "line 2 has a key",
		"a:" + strings.Repeat("00", maxKey+1): "line 1 has a key",
	} {
		_, err := ParseKeys([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the key: %v", err)
		}
	}
}
