package mqtt

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// reader takes a packet body apart. After the first error it is empty and keeps that error.
type reader struct {
	b   []byte
	at  int
	err error
}

var errShort error = &Error{MalformedPacket, "packet ends too early"}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b, r.at = nil, 0
}

func (r *reader) more() bool { return r.at < len(r.b) }

// end fails when bytes are left over.
func (r *reader) end() error {
	if r.more() {
		r.fail(malformed("packet has bytes behind its end"))
	}
	return r.err
}

func (r *reader) byte() byte {
	if r.at >= len(r.b) {
		r.fail(errShort)
		return 0
	}
	c := r.b[r.at]
	r.at++
	return c
}

func (r *reader) uint16() uint16 {
	if len(r.b)-r.at < 2 {
		r.fail(errShort)
		return 0
	}
	n := binary.BigEndian.Uint16(r.b[r.at:])
	r.at += 2
	return n
}

func (r *reader) uint32() uint32 {
	if len(r.b)-r.at < 4 {
		r.fail(errShort)
		return 0
	}
	n := binary.BigEndian.Uint32(r.b[r.at:])
	r.at += 4
	return n
}

// varint reads a variable byte integer: at most four bytes, and no more than needed
// [MQTT-1.5.5-1].
func (r *reader) varint() uint32 {
	var n uint32
	for shift := 0; shift < 28; shift += 7 {
		c := r.byte()
		n |= uint32(c&0x7F) << shift
		if c < 0x80 {
			if c == 0 && shift > 0 {
				break
			}
			return n
		}
	}
	r.fail(malformed("variable byte integer is malformed"))
	return 0
}

// take returns the next n bytes, not copied.
func (r *reader) take(n int) []byte {
	if n > len(r.b)-r.at {
		r.fail(errShort)
		return nil
	}
	b := r.b[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}

func (r *reader) rest() []byte { return r.take(len(r.b) - r.at) }

// binary returns binary data, not copied, and not nil when it is there.
func (r *reader) binary() []byte { return r.take(int(r.uint16())) }

// text returns a UTF-8 string, not copied [MQTT-1.5.4-1] [MQTT-1.5.4-2].
func (r *reader) text() []byte {
	b := r.binary()
	if !utf8.Valid(b) {
		r.fail(malformed("string is not valid UTF-8"))
		return nil
	}
	if bytes.IndexByte(b, 0) >= 0 {
		r.fail(malformed("string contains U+0000"))
		return nil
	}
	return b
}

// name returns a topic name, not copied. An empty one is the caller's to judge.
func (r *reader) name() []byte {
	b := r.binary()
	high := byte(0)
	for _, c := range b {
		if c == '+' || c == '#' || c == 0 {
			r.fail(malformed("topic name contains a wildcard or U+0000")) // [MQTT-3.3.2-2]
			return nil
		}
		high |= c
	}
	if high >= utf8.RuneSelf && !utf8.Valid(b) {
		r.fail(malformed("topic name is not valid UTF-8"))
		return nil
	}
	return b
}

// packetID reads a packet identifier; 0 is none [MQTT-2.2.1-3].
func (r *reader) packetID() uint16 {
	id := r.uint16()
	if id == 0 && r.err == nil {
		r.fail(protocolError("packet identifier is 0"))
	}
	return id
}
