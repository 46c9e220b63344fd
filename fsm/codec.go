package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A snapshot is a header (magic and version) and a run of blocks: length and CRC-32C, four bytes
// each, then that many bytes. A block of length zero ends it: a stream that was cut is noticed.
// Values are varints and length-prefixed strings; they may cross from one block into the next.

const (
	snapshotMagic   = "skeinfsm"
	snapshotVersion = 2
	blockSize       = 64 << 10
)

type encoder struct {
	w    io.Writer
	buf  []byte
	n    int64
	err  error
	seen map[uint64]struct{} // messages that were written
}

func newEncoder(w io.Writer, version byte) *encoder {
	e := &encoder{w: w, buf: make([]byte, 8, 4096), seen: make(map[uint64]struct{})}
	e.raw(append([]byte(snapshotMagic), version))
	return e
}

func (e *encoder) raw(b []byte) {
	if e.err != nil {
		return
	}
	n, err := e.w.Write(b)
	e.n += int64(n)
	e.err = err
}

// flush writes the block that is being gathered.
func (e *encoder) flush() {
	body := e.buf[8:]
	if len(body) == 0 {
		return
	}
	binary.BigEndian.PutUint32(e.buf, uint32(len(body)))
	binary.BigEndian.PutUint32(e.buf[4:], crc32.Checksum(body, castagnoli))
	e.raw(e.buf)
	e.buf = e.buf[:8]
	if cap(e.buf) > 4*blockSize {
		e.buf = make([]byte, 8, blockSize+4096)
	}
}

func (e *encoder) close() (int64, error) {
	e.flush()
	e.raw(make([]byte, 8))
	return e.n, e.err
}

func (e *encoder) more() {
	if len(e.buf) >= blockSize {
		e.flush()
	}
}

func (e *encoder) uint(v uint64) { e.buf = binary.AppendUvarint(e.buf, v) }
func (e *encoder) int(v int64)   { e.buf = binary.AppendVarint(e.buf, v) }

func (e *encoder) bool(v bool) {
	if v {
		e.buf = append(e.buf, 1)
	} else {
		e.buf = append(e.buf, 0)
	}
}

func (e *encoder) str(s string) {
	e.uint(uint64(len(s)))
	e.buf = append(e.buf, s...)
	e.more()
}

func (e *encoder) bytes(b []byte) {
	e.uint(uint64(len(b)))
	e.buf = append(e.buf, b...)
	e.more()
}

func (e *encoder) ranges(rs []Range) {
	e.uint(uint64(len(rs)))
	for _, r := range rs {
		e.uint(r.Lo)
		e.uint(r.Hi)
		e.more()
	}
}

func (e *encoder) key(k timerKey) {
	e.int(k.due)
	e.uint(k.serial)
}

// message writes a message the first time, and its id alone after that.
func (e *encoder) message(m *Message) {
	e.uint(m.ID)
	if _, ok := e.seen[m.ID]; ok {
		return
	}
	e.seen[m.ID] = struct{}{}
	e.str(m.Topic)
	e.bytes(m.Payload)
	e.bytes(m.Props)
	e.str(m.Publisher)
	e.uint(uint64(m.Epoch))
	e.uint(uint64(m.QoS))
	e.bool(m.Retain)
	e.int(m.Expires)
	e.int(m.Stored)
}

type decoder struct {
	r        io.Reader
	block    []byte
	pos      int
	ended    bool
	err      error
	version  byte
	messages map[uint64]*Message
	strings  map[string]string // those that many records share
}

func newDecoder(r io.Reader) (*decoder, error) {
	d := &decoder{r: r, messages: make(map[uint64]*Message), strings: make(map[string]string)}
	head := make([]byte, len(snapshotMagic)+1)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("%w: snapshot header: %w", ErrCorrupt, err)
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%w: not a snapshot", ErrCorrupt)
	}
	if v := head[len(snapshotMagic)]; v < 1 || v > snapshotVersion {
		return nil, fmt.Errorf("%w: snapshot version %d", ErrNewer, v)
	}
	d.version = head[len(snapshotMagic)]
	return d, nil
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: snapshot: %w", ErrCorrupt, err)
	}
}

// fill reads the next block when the current one is used up.
func (d *decoder) fill() bool {
	if d.err != nil {
		return false
	}
	if d.pos < len(d.block) {
		return true
	}
	var head [8]byte
	if d.ended {
		d.fail(io.ErrUnexpectedEOF)
		return false
	}
	if _, err := io.ReadFull(d.r, head[:]); err != nil {
		d.fail(err)
		return false
	}
	size, sum := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
	if size == 0 {
		d.ended = true
		d.fail(io.ErrUnexpectedEOF)
		return false
	}
	if uint32(cap(d.block)) < size {
		if size > 1<<30 {
			d.fail(errors.New("block is too large"))
			return false
		}
		d.block = make([]byte, size)
	}
	d.block, d.pos = d.block[:size], 0
	if _, err := io.ReadFull(d.r, d.block); err != nil {
		d.fail(err)
		return false
	}
	if crc32.Checksum(d.block, castagnoli) != sum {
		d.fail(errors.New("checksum of a block"))
		return false
	}
	return true
}

// end checks that nothing is left but the end marker.
func (d *decoder) end() {
	if d.err != nil {
		return
	}
	if d.pos < len(d.block) {
		d.fail(errors.New("more than expected"))
		return
	}
	var head [8]byte
	if _, err := io.ReadFull(d.r, head[:]); err != nil {
		d.fail(err)
	} else if head != [8]byte{} {
		d.fail(errors.New("more than expected"))
	}
}

// ReadByte lets encoding/binary read varints.
func (d *decoder) ReadByte() (byte, error) {
	if !d.fill() {
		return 0, d.err
	}
	b := d.block[d.pos]
	d.pos++
	return b, nil
}

func (d *decoder) uint() uint64 {
	v, err := binary.ReadUvarint(d)
	if err != nil {
		d.fail(err)
		return 0
	}
	return v
}

func (d *decoder) int() int64 {
	v, err := binary.ReadVarint(d)
	if err != nil {
		d.fail(err)
		return 0
	}
	return v
}

func (d *decoder) bool() bool {
	b, _ := d.ReadByte()
	return b != 0
}

// bytes is nil for none.
func (d *decoder) bytes() []byte {
	n := d.uint()
	if n == 0 || d.err != nil {
		return nil
	}
	if n > 1<<31 {
		d.fail(errors.New("value is too long"))
		return nil
	}
	var out []byte
	for uint64(len(out)) < n && d.fill() {
		take := min(n-uint64(len(out)), uint64(len(d.block)-d.pos))
		if out == nil && take == n {
			out = make([]byte, 0, n)
		}
		out = append(out, d.block[d.pos:d.pos+int(take)]...)
		d.pos += int(take)
	}
	return out
}

func (d *decoder) str() string { return string(d.bytes()) }

// shared is a string that is likely to come again.
func (d *decoder) shared() string {
	b := d.bytes()
	if s, ok := d.strings[string(b)]; ok {
		return s
	}
	s := string(b)
	d.strings[s] = s
	return s
}

func (d *decoder) ranges() []Range {
	var rs []Range
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		rs = append(rs, Range{d.uint(), d.uint()})
	}
	return rs
}

func (d *decoder) key() timerKey { return timerKey{d.int(), d.uint()} }

func (d *decoder) message() *Message {
	id := d.uint()
	if m := d.messages[id]; m != nil || d.err != nil {
		return m
	}
	m := &Message{
		ID: id, Topic: d.str(), Payload: d.bytes(), Props: d.bytes(), Publisher: d.shared(),
		Epoch: Epoch(d.uint()), QoS: byte(d.uint()), Retain: d.bool(), Expires: d.int(), Stored: d.int(),
	}
	d.messages[id] = m
	return m
}
