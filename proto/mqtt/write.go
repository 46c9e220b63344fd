package mqtt

import (
	"encoding/binary"
	"unicode/utf8"
)

func varintSize(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

func appendVarint(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func appendUint16(dst []byte, n uint16) []byte { return binary.BigEndian.AppendUint16(dst, n) }

const maxString = 65535

func appendString(dst []byte, s string) []byte {
	if len(s) > maxString {
		end := maxString
		for end > maxString-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return append(appendUint16(dst, uint16(len(s))), s...)
}

func appendBinary(dst, b []byte) []byte {
	b = b[:min(len(b), maxString)]
	return append(appendUint16(dst, uint16(len(b))), b...)
}

// prefixLength puts the length of what was appended since start before it.
func prefixLength(dst []byte, start int) []byte {
	n := len(dst) - start
	k := varintSize(n)
	dst = append(dst, 0, 0, 0, 0)[:len(dst)+k]
	copy(dst[start+k:], dst[start:start+n])
	appendVarint(dst[:start], n)
	return dst
}
