package tlspsk

import (
	"crypto/hkdf"
	"crypto/hmac"
	"hash"
)

type newHash = func() hash.Hash

func digest(h newHash, parts ...[]byte) []byte {
	d := h()
	for _, p := range parts {
		d.Write(p)
	}
	return d.Sum(nil)
}

func mac(h newHash, key []byte, parts ...[]byte) []byte {
	m := hmac.New(h, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// expandLabel is HKDF-Expand-Label (RFC 8446, section 7.1). It fails for lengths alone that no caller
// asks for.
func expandLabel(h newHash, secret []byte, label string, context []byte, n int) []byte {
	info := make([]byte, 0, 4+6+len(label)+len(context))
	info = append(info, byte(n>>8), byte(n), byte(6+len(label)))
	info = append(info, "tls13 "...)
	info = append(info, label...)
	info = append(info, byte(len(context)))
	info = append(info, context...)
	out, err := hkdf.Expand(h, secret, string(info), n)
	if err != nil {
		panic("tlspsk: HKDF-Expand-Label: " + err.Error())
	}
	return out
}

// extract is HKDF-Extract (RFC 5869). It fails for no input.
func extract(h newHash, secret, salt []byte) []byte {
	out, err := hkdf.Extract(h, secret, salt)
	if err != nil {
		panic("tlspsk: HKDF-Extract: " + err.Error())
	}
	return out
}

// derive is the step "Derive-Secret(., "derived", "")" between two Extracts (RFC 8446, section 7.1).
func derive(h newHash, secret []byte) []byte {
	empty := digest(h)
	return expandLabel(h, secret, "derived", empty, len(empty))
}

// finished13 is the verify_data of a Finished, or a binder (RFC 8446, sections 4.4.4 and 4.2.11.2).
func finished13(h newHash, secret, transcript []byte) []byte {
	return mac(h, expandLabel(h, secret, "finished", nil, len(transcript)), transcript)
}

// binder of an external key over a truncated transcript (RFC 8446, section 4.2.11.2).
func binder(h newHash, early, transcript []byte) []byte {
	empty := digest(h)
	return finished13(h, expandLabel(h, early, "ext binder", empty, len(empty)), transcript)
}

// prf is the one of TLS 1.2 (RFC 5246, section 5).
func prf(h newHash, secret []byte, label string, seed []byte, n int) []byte {
	seed = append([]byte(label), seed...)
	a := mac(h, secret, seed)
	out := make([]byte, 0, n+len(a))
	for len(out) < n {
		out = append(out, mac(h, secret, a, seed)...)
		a = mac(h, secret, a)
	}
	return out[:n]
}

// premaster of RFC 4279, section 2, and RFC 5489, section 2: other is the result of ECDH, or as many
// zeros as the key has bytes.
func premaster(other, key []byte) []byte {
	if other == nil {
		other = make([]byte, len(key))
	}
	out := make([]byte, 0, 4+len(other)+len(key))
	out = append(out, byte(len(other)>>8), byte(len(other)))
	out = append(out, other...)
	out = append(out, byte(len(key)>>8), byte(len(key)))
	return append(out, key...)
}
