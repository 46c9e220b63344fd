package conn

import (
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf8"
)

// WebSocket opcodes (RFC 6455, section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// WebSocket close codes (RFC 6455, section 7.4.1).
const (
	closeNormal      = 1000
	closeProtocol    = 1002
	closeUnsupported = 1003
	closeInvalid     = 1007
	closeTooBig      = 1009
)

// FrameError is a violation of WebSocket that ended a connection.
type FrameError struct {
	Code uint16 // of the close frame that we sent
	Msg  string
}

func (e *FrameError) Error() string { return "websocket: " + e.Msg }

// maxFrame is the longest frame that is read. Frames are never held, so it only has to be beyond
// any packet.
const maxFrame = 1<<28 + 1<<10

// maxControl is the longest payload of a control frame.
const maxControl = 125

// wsReader takes frames apart as their bytes come. What it keeps between two reads is at most a
// frame header or the payload of a control frame.
type wsReader struct {
	// The reader's own.
	early   []byte // came with the handshake
	head    [14]byte
	have    int    // bytes of head that are there
	left    uint64 // bytes of the frame's payload that are to come
	inFrame bool
	inData  bool // a fragmented message is under way
	opcode  byte
	mask    [4]byte
	at      int    // where in mask the next byte stands
	payload []byte // of a control frame
	err     error  // what ended the stream: after it nothing is read

	// Guarded by the connection's mutex.
	pong []byte // a frame to be sent; a newer one takes its place (RFC 6455, section 5.5.3)
	bye  []byte // the payload of the close frame; nil: closeNormal
	gone bool   // the close frame was sent
}

// decode unmasks b in place and returns the data in it, moved together at its start. It answers
// control frames through ba. After an error, which is in w.err, or the client's close frame, the
// rest of b is lost.
func (w *wsReader) decode(c *Conn, ba *Batch, b []byte) []byte {
	n, i := 0, 0
	for i < len(b) && w.err == nil {
		if !w.inFrame {
			i += w.header(b[i:])
			if !w.inFrame {
				continue
			}
		}
		k := int(min(w.left, uint64(len(b)-i)))
		part := b[i : i+k]
		w.at = unmask(part, w.mask, w.at)
		if w.opcode >= opClose {
			w.payload = append(w.payload, part...)
		} else {
			n += copy(b[n:], part)
		}
		i += k
		if w.left -= uint64(k); w.left == 0 {
			w.inFrame = false
			if w.opcode >= opClose {
				w.answer(c, ba)
			}
		}
	}
	if e, ok := w.err.(*FrameError); ok { // the caller ends the connection
		c.mu.Lock()
		w.bye = binary.BigEndian.AppendUint16(nil, e.Code)
		c.mu.Unlock()
	}
	return b[:n]
}

// header collects a frame's header from b and says how many bytes it took. Once it is whole, the
// frame has begun.
func (w *wsReader) header(b []byte) int {
	used := 0
	for used < len(b) {
		w.head[w.have] = b[used]
		w.have++
		used++
		if w.have < 2 {
			continue
		}
		size := int(w.head[1] & 0x7F)
		if w.have == 2 && !w.check(w.head[0], size) {
			return used
		}
		long := 0
		switch size {
		case 126:
			long = 2
		case 127:
			long = 8
		}
		if w.have < 2+long+4 {
			continue
		}
		w.begin(size, w.head[2:2+long], w.head[2+long:2+long+4])
		return used
	}
	return used
}

// check looks at what the first two bytes of a header say.
func (w *wsReader) check(first byte, size int) bool {
	fin, opcode := first&0x80 != 0, first&0x0F
	switch {
	case first&0x70 != 0:
		w.fail(closeProtocol, "reserved bits of a frame are set")
	case w.head[1]&0x80 == 0:
		w.fail(closeProtocol, "frame from a client is not masked")
	case opcode >= opClose && (!fin || size > maxControl):
		w.fail(closeProtocol, "control frame is fragmented or too long")
	case opcode == opText:
		w.fail(closeUnsupported, "text frame: MQTT takes binary frames")
	case opcode == opContinuation && !w.inData:
		w.fail(closeProtocol, "continuation without a message")
	case opcode == opBinary && w.inData:
		w.fail(closeProtocol, "message inside another")
	case opcode > opBinary && opcode < opClose || opcode > opPong:
		w.fail(closeProtocol, fmt.Sprintf("opcode %d is reserved", opcode))
	default:
		w.opcode = opcode
		if opcode < opClose {
			w.inData = !fin
		}
		return true
	}
	return false
}

func (w *wsReader) begin(size int, long, mask []byte) {
	w.have = 0
	w.left = uint64(size)
	switch len(long) {
	case 2:
		w.left = uint64(binary.BigEndian.Uint16(long))
	case 8:
		w.left = binary.BigEndian.Uint64(long)
	}
	switch {
	case len(long) == 2 && w.left < 126, len(long) == 8 && w.left <= 0xFFFF, w.left>>63 != 0:
		w.fail(closeProtocol, "frame length is malformed")
		return
	case w.left > maxFrame:
		w.fail(closeTooBig, fmt.Sprintf("frame of %d bytes", w.left))
		return
	}
	w.mask, w.at = [4]byte(mask), 0
	w.inFrame = true
}

func (w *wsReader) fail(code uint16, msg string) { w.err = &FrameError{code, msg} }

// answer handles a whole control frame.
func (w *wsReader) answer(c *Conn, ba *Batch) {
	p := w.payload
	w.payload = nil
	switch w.opcode {
	case opPing:
		c.mu.Lock()
		w.pong = append([]byte{0x80 | opPong, byte(len(p))}, p...)
		c.Mark(ba)
		c.mu.Unlock()
	case opClose:
		if !w.validClose(p) {
			return
		}
		c.mu.Lock()
		w.bye = append([]byte{}, p[:min(2, len(p))]...)
		c.mu.Unlock()
		w.err = io.EOF
	}
}

// validClose checks the payload of a close frame (RFC 6455, sections 5.5.1 and 7.4).
func (w *wsReader) validClose(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	if len(p) == 1 {
		w.fail(closeProtocol, "close frame of one byte")
		return false
	}
	switch code := binary.BigEndian.Uint16(p); {
	case code < 1000, code > 1014, code >= 1004 && code <= 1006:
		if code < 3000 || code > 4999 {
			w.fail(closeProtocol, fmt.Sprintf("close code %d", code))
			return false
		}
	}
	if !utf8.Valid(p[2:]) {
		w.fail(closeInvalid, "close reason is not UTF-8")
		return false
	}
	return true
}

// control takes the control frame that waits to be sent, if there is one. Caller holds Lock.
func (w *wsReader) control() []byte {
	p := w.pong
	w.pong = nil
	return p
}

// farewell returns the close frame, once. Caller holds Lock.
func (w *wsReader) farewell() []byte {
	if w.gone {
		return nil
	}
	w.gone = true
	p := w.bye
	if p == nil {
		p = binary.BigEndian.AppendUint16(nil, closeNormal)
	}
	return append([]byte{0x80 | opClose, byte(len(p))}, p...)
}

// unmask applies mask, of which the byte at is next, to b and returns what is next then.
func unmask(b []byte, mask [4]byte, at int) int {
	for ; len(b) > 0 && at&3 != 0; at++ {
		b[0] ^= mask[at&3]
		b = b[1:]
	}
	if len(b) >= 8 {
		m := uint64(binary.LittleEndian.Uint32(mask[:]))
		m |= m << 32
		for ; len(b) >= 8; b = b[8:] {
			binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^m)
		}
	}
	for i := range b {
		b[i] ^= mask[(at+i)&3]
	}
	return (at + len(b)) & 3
}

// wsHeader writes the header of one binary frame into the headRoom of an outbox buffer and says
// where it starts.
func wsHeader(buf []byte) int {
	n := len(buf) - headRoom
	off := headRoom - 2
	switch {
	case n <= 125:
		buf[off+1] = byte(n)
	case n <= 0xFFFF:
		off -= 2
		buf[off+1] = 126
		binary.BigEndian.PutUint16(buf[off+2:], uint16(n))
	default:
		off -= 8
		buf[off+1] = 127
		binary.BigEndian.PutUint64(buf[off+2:], uint64(n))
	}
	buf[off] = 0x80 | opBinary
	return off
}
