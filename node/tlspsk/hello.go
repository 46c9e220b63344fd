package tlspsk

import (
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// Extensions (RFC 8446, section 4.2, and what each names).
const (
	extMaxFragment   = 1  // RFC 6066, section 4
	extGroups        = 10 // RFC 8422
	extPoints        = 11 // RFC 8422
	extEncryptMAC    = 22 // RFC 7366
	extMasterSecret  = 23 // RFC 7627
	extRecordSize    = 28 // RFC 8449
	extPreShared     = 41
	extEarlyData     = 42
	extVersions      = 43
	extModes         = 45
	extKeyShare      = 51
	extRenegotiation = 0xff01 // RFC 5746
)

// Values in a list of suites that are none.
const (
	scsvRenegotiation = 0x00FF // RFC 5746, section 3.3
	scsvFallback      = 0x5600 // RFC 7507
)

// share is a KeyShareEntry.
type share struct {
	group uint16
	key   []byte
}

// offered is a key that a client says to have.
type offered struct{ identity, binder []byte }

// clientHello is what a ClientHello says. Its slices lie in raw.
type clientHello struct {
	raw     []byte // header and all
	random  []byte
	session []byte
	suites  []uint16
	zero    bool // no compression is the only one

	groups  []uint16
	tls13   bool
	ems     bool
	etm     bool
	points  bool
	renego  bool
	early   bool
	modes   []byte
	shares  []share
	keys    []offered
	binders int // bytes at the end of raw: the list of binders
	frag    int // max_fragment_length as it came; 0: none
	limit   int // record_size_limit; 0: none
}

// parseHello reads a ClientHello with its header (RFC 5246, section 7.4.1.2; RFC 8446, section 4.1.2).
func parseHello(raw []byte) (*clientHello, error) {
	h := &clientHello{raw: raw}
	malformed := func(what string) (*clientHello, error) {
		return nil, fail(alertDecodeError, "the ClientHello has malformed %s", what)
	}
	s := cryptobyte.String(raw[4:])
	var session, suites, compression, extensions cryptobyte.String
	var version uint16
	if !s.ReadUint16(&version) || !s.ReadBytes(&h.random, 32) || !s.ReadUint8LengthPrefixed(&session) || len(session) > 32 ||
		!s.ReadUint16LengthPrefixed(&suites) || !s.ReadUint8LengthPrefixed(&compression) {
		return malformed("fields")
	}
	if version < 0x0303 {
		return nil, fail(alertProtocolVersion, "the client knows no TLS 1.2")
	}
	if !slices.Contains(compression, 0) {
		return nil, fail(alertIllegalParameter, "the client insists on compression")
	}
	h.session, h.zero = session, len(compression) == 1
	for !suites.Empty() {
		var id uint16
		if !suites.ReadUint16(&id) {
			return malformed("suites")
		}
		h.suites = append(h.suites, id)
	}
	h.renego = slices.Contains(h.suites, scsvRenegotiation)
	if s.Empty() {
		return h, nil
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return malformed("extensions")
	}
	var seen []uint16
	for !extensions.Empty() {
		var id uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&id) || !extensions.ReadUint16LengthPrefixed(&data) {
			return malformed("extensions")
		}
		if slices.Contains(seen, id) || len(seen) >= maxExtensions {
			return nil, fail(alertIllegalParameter, "the ClientHello repeats an extension, or has too many")
		}
		seen = append(seen, id)
		if id == extPreShared && !extensions.Empty() { // RFC 8446, section 4.2.11
			return nil, fail(alertIllegalParameter, "pre_shared_key is not the last extension")
		}
		if !h.extension(id, data) {
			return nil, fail(alertDecodeError, "the ClientHello has a malformed extension %d", id)
		}
	}
	return h, h.consistent(seen)
}

// Bounds of what a stranger may make us look at.
const (
	maxExtensions = 64
	maxOffered    = 32
)

// consistent finds what RFC 8446, sections 4.2.9, 4.2.11 and 9.2, do not allow.
func (h *clientHello) consistent(seen []uint16) error {
	switch {
	case len(h.keys) > 0 && h.modes == nil:
		return fail(alertMissingExtension, "pre_shared_key without psk_key_exchange_modes")
	case h.frag != 0 && slices.Contains(seen, extRecordSize): // RFC 8449, section 5
		h.frag = 0
	}
	return nil
}

// extension reads one; false: it is malformed. Unknown ones are ignored.
func (h *clientHello) extension(id uint16, data cryptobyte.String) bool {
	var list cryptobyte.String
	switch id {
	case extMaxFragment:
		var n uint8
		if !data.ReadUint8(&n) || n < 1 || n > 4 {
			return false
		}
		h.frag = int(n)
	case extRecordSize:
		var n uint16
		if !data.ReadUint16(&n) || n < 64 {
			return false
		}
		h.limit = int(n)
	case extGroups:
		if !data.ReadUint16LengthPrefixed(&list) {
			return false
		}
		for !list.Empty() {
			var g uint16
			if !list.ReadUint16(&g) {
				return false
			}
			h.groups = append(h.groups, g)
		}
	case extPoints:
		h.points = true
		return true
	case extEncryptMAC:
		h.etm = true
	case extMasterSecret:
		h.ems = true
	case extEarlyData:
		h.early = true
	case extRenegotiation: // empty at first (RFC 5746, section 3.6)
		if !data.ReadUint8LengthPrefixed(&list) || len(list) > 0 {
			return false
		}
		h.renego = true
	case extVersions:
		if !data.ReadUint8LengthPrefixed(&list) {
			return false
		}
		for !list.Empty() {
			var v uint16
			if !list.ReadUint16(&v) {
				return false
			}
			h.tls13 = h.tls13 || v == 0x0304
		}
	case extModes:
		if !data.ReadUint8LengthPrefixed(&list) || list.Empty() {
			return false
		}
		h.modes = list
	case extKeyShare:
		return h.keyShares(data)
	case extPreShared:
		return h.preShared(data)
	default:
		return true
	}
	return data.Empty()
}

func (h *clientHello) keyShares(data cryptobyte.String) bool {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || !data.Empty() {
		return false
	}
	for !list.Empty() {
		var group uint16
		var key cryptobyte.String
		if !list.ReadUint16(&group) || !list.ReadUint16LengthPrefixed(&key) || key.Empty() {
			return false
		}
		if slices.ContainsFunc(h.shares, func(s share) bool { return s.group == group }) {
			return false // RFC 8446, section 4.2.8
		}
		h.shares = append(h.shares, share{group, key})
	}
	return true
}

// preShared reads OfferedPsks (RFC 8446, section 4.2.11).
func (h *clientHello) preShared(data cryptobyte.String) bool {
	var identities, binders cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&identities) {
		return false
	}
	h.binders = len(data)
	if !data.ReadUint16LengthPrefixed(&binders) || !data.Empty() {
		return false
	}
	for !identities.Empty() {
		var identity, binder cryptobyte.String
		var age uint32
		if len(h.keys) == maxOffered || !identities.ReadUint16LengthPrefixed(&identity) || identity.Empty() || !identities.ReadUint32(&age) ||
			!binders.ReadUint8LengthPrefixed(&binder) || len(binder) < 32 {
			return false
		}
		h.keys = append(h.keys, offered{identity, binder})
	}
	return binders.Empty() && len(h.keys) > 0
}

// fragment is how much of a record the client takes at a time.
func (h *clientHello) fragment(tls13 bool) int {
	switch {
	case h.limit > 0 && tls13:
		return min(maxPlain, h.limit-1) // the type counts (RFC 8449, section 4)
	case h.limit > 0:
		return min(maxPlain, h.limit)
	case h.frag > 0:
		return 1 << (8 + h.frag) // RFC 6066, section 4
	}
	return maxPlain
}

// appendSizes answers the extensions of sizes.
func (h *clientHello) appendSizes(b *cryptobyte.Builder, tls13 bool) {
	switch {
	case h.limit > 0:
		own := uint16(maxPlain)
		if tls13 {
			own++
		}
		extension(b, extRecordSize, func(b *cryptobyte.Builder) { b.AddUint16(own) })
	case h.frag > 0:
		extension(b, extMaxFragment, func(b *cryptobyte.Builder) { b.AddUint8(uint8(h.frag)) })
	}
}

func extension(b *cryptobyte.Builder, id uint16, fn func(b *cryptobyte.Builder)) {
	b.AddUint16(id)
	b.AddUint16LengthPrefixed(fn)
}
