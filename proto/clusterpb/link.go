package clusterpb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unsafe"
)

// The frames of a link are a stream of records, cut into LinkData messages wherever it suits the
// sender. A record is a uvarint length and that many bytes:
//
//	announce: 1, handle, client id, epoch
//	publish:  2, flags, handle, [sequence], [expiry], content
//	relay:    3, flags, client id, epoch, [sequence], [expiry], content   (never on a stream)
//	content:  [after], topic, [props], [shared: count, (filter, group)...], payload to the end
//
// Numbers are uvarints, strings a uvarint length and their bytes. An announcement stands before
// the first frame that uses its handle and holds until the handle is announced again, so a frame
// carries two or three bytes instead of a client id and an epoch.

// The bounds of what a decoder takes: beyond them a stream is broken, not large.
const (
	MaxLinkFrame   = 257 << 20 // an MQTT packet of the largest size, with its properties and groups
	MaxLinkHandles = 1 << 15
	maxLinkString  = 1 << 16
)

// ErrLink is what every error of a link decoder wraps: the stream can't be read any further.
var ErrLink = errors.New("clusterpb: malformed link frame")

const (
	recordAnnounce byte = 1
	recordPublish  byte = 2
	recordRelay    byte = 3
)

const (
	flagQoS    byte = 3
	flagPlain  byte = 1 << 2
	flagExpiry byte = 1 << 3
	flagAfter  byte = 1 << 4
	flagProps  byte = 1 << 5
	flagShared byte = 1 << 6
	flagsKnown byte = 1<<7 - 1
)

// Packed is a frame that waits to be sent: its content is encoded, its head is not, because a head
// is different on each stream and time passes on its expiry.
type Packed struct {
	ClientID string
	Epoch    uint64
	Sequence uint64
	Expiry   int64 // ms left, 0: never expires
	flags    byte
	content  []byte
}

// Shared tells whether the frame asks for members of shared groups.
func (p *Packed) Shared() bool { return p.flags&flagShared != 0 }

// Size is about how many bytes the frame takes on the wire.
func (p *Packed) Size() int { return len(p.content) + 16 }

// Pack encodes the content of f at the end of dst, which must not be written again as long as the
// result is used. It returns the result and the longer dst.
func Pack(dst []byte, f *Frame) (Packed, []byte) {
	start := len(dst)
	dst = appendContent(dst, f)
	return Packed{
		ClientID: f.ClientID, Epoch: f.Epoch, Sequence: f.Sequence, Expiry: f.Expiry,
		flags: flagsOf(f), content: dst[start:len(dst):len(dst)],
	}, dst
}

// ContentSize is how many bytes Pack needs for f.
func ContentSize(f *Frame) int {
	n := stringSize(len(f.Topic)) + len(f.Payload)
	if f.After != 0 {
		n += uvarintSize(f.After)
	}
	if len(f.Props) > 0 {
		n += stringSize(len(f.Props))
	}
	if len(f.Shared) > 0 {
		n += uvarintSize(uint64(len(f.Shared)))
		for i := range f.Shared {
			n += stringSize(len(f.Shared[i].Filter)) + stringSize(len(f.Shared[i].Group))
		}
	}
	return n
}

func flagsOf(f *Frame) byte {
	flags := f.QoS & flagQoS
	if f.Plain {
		flags |= flagPlain
	}
	if f.Expiry > 0 {
		flags |= flagExpiry
	}
	if f.After != 0 {
		flags |= flagAfter
	}
	if len(f.Props) > 0 {
		flags |= flagProps
	}
	if len(f.Shared) > 0 {
		flags |= flagShared
	}
	return flags
}

func appendContent(dst []byte, f *Frame) []byte {
	if f.After != 0 {
		dst = binary.AppendUvarint(dst, f.After)
	}
	dst = appendString(dst, f.Topic)
	if len(f.Props) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(f.Props)))
		dst = append(dst, f.Props...)
	}
	if len(f.Shared) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(f.Shared)))
		for i := range f.Shared {
			dst = appendString(dst, f.Shared[i].Filter)
			dst = appendString(dst, f.Shared[i].Group)
		}
	}
	return append(dst, f.Payload...)
}

// LinkEncoder writes the frames of one stream: it gives out the handles. The zero value is ready.
type LinkEncoder struct {
	handles map[string]announcedAs
	owners  []string // by handle
	next    int      // the handle that is given out next, once all are in use
}

type announcedAs struct {
	handle uint64
	epoch  uint64
}

// Reset forgets the handles: what is appended next opens a new stream.
func (e *LinkEncoder) Reset() {
	clear(e.handles)
	clear(e.owners)
	e.owners, e.next = e.owners[:0], 0
}

// handle finds the handle of a connection, announcing it in dst when that is due.
func (e *LinkEncoder) handle(dst []byte, client string, epoch uint64) (uint64, []byte) {
	known, ok := e.handles[client]
	if ok && known.epoch == epoch {
		return known.handle, dst
	}
	if !ok {
		client = strings.Clone(client)
		known.handle = e.free(client)
	}
	known.epoch = epoch
	if e.handles == nil {
		e.handles = make(map[string]announcedAs)
	}
	e.handles[client] = known
	dst = binary.AppendUvarint(dst, uint64(1+uvarintSize(known.handle)+stringSize(len(client))+uvarintSize(epoch)))
	dst = append(dst, recordAnnounce)
	dst = binary.AppendUvarint(dst, known.handle)
	dst = appendString(dst, client)
	return known.handle, binary.AppendUvarint(dst, epoch)
}

// free is a handle for a new client: an unused one, or the one that was given out longest ago.
func (e *LinkEncoder) free(client string) uint64 {
	if len(e.owners) < MaxLinkHandles {
		e.owners = append(e.owners, client)
		return uint64(len(e.owners) - 1)
	}
	h := e.next
	e.next = (e.next + 1) % MaxLinkHandles
	delete(e.handles, e.owners[h])
	e.owners[h] = client
	return uint64(h)
}

// Append writes f.
func (e *LinkEncoder) Append(dst []byte, f *Frame) []byte {
	h, dst := e.handle(dst, f.ClientID, f.Epoch)
	dst = appendHead(dst, flagsOf(f), h, f.Sequence, f.Expiry, ContentSize(f))
	return appendContent(dst, f)
}

// AppendPacked writes p with so many ms left before it expires (which counts only if it expires).
func (e *LinkEncoder) AppendPacked(dst []byte, p *Packed, left int64) []byte {
	h, dst := e.handle(dst, p.ClientID, p.Epoch)
	dst = appendHead(dst, p.flags, h, p.Sequence, left, len(p.content))
	return append(dst, p.content...)
}

func appendHead(dst []byte, flags byte, handle, sequence uint64, expiry int64, content int) []byte {
	n := 2 + uvarintSize(handle) + content
	if flags&flagQoS != 0 {
		n += uvarintSize(sequence)
	}
	if flags&flagExpiry != 0 {
		n += uvarintSize(uint64(expiry))
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = append(dst, recordPublish, flags)
	dst = binary.AppendUvarint(dst, handle)
	return appendNumbers(dst, flags, sequence, expiry)
}

func appendNumbers(dst []byte, flags byte, sequence uint64, expiry int64) []byte {
	if flags&flagQoS != 0 {
		dst = binary.AppendUvarint(dst, sequence)
	}
	if flags&flagExpiry != 0 {
		dst = binary.AppendUvarint(dst, uint64(expiry))
	}
	return dst
}

// AppendRelay writes p, with so many ms left, as the frame of a Relay command: it stands alone.
func (p *Packed) AppendRelay(dst []byte, left int64) []byte {
	dst = append(dst, recordRelay, p.flags)
	dst = appendString(dst, p.ClientID)
	dst = binary.AppendUvarint(dst, p.Epoch)
	dst = appendNumbers(dst, p.flags, p.Sequence, left)
	return append(dst, p.content...)
}

// DecodeRelay reads the frame of a Relay command into f, which then aliases b, all but its ClientID.
func DecodeRelay(b []byte, f *Frame) error {
	r := reader{b: b}
	if kind := r.byte(); kind != recordRelay {
		return fmt.Errorf("%w: kind %d in a relay", ErrLink, kind)
	}
	flags := r.byte()
	client := r.string()
	epoch := r.uvarint()
	r.publish(f, flags)
	f.ClientID, f.Epoch = string(client), epoch
	return r.err()
}

// LinkDecoder reads the frames of one stream. The zero value is ready.
type LinkDecoder struct {
	clients []announced // by handle
	rest    []byte      // of what was fed, not yet decoded
	carry   []byte      // own memory: a record that the last message ended in
}

type announced struct {
	id    string
	epoch uint64
}

// Feed adds a message's frames. Next must have been called until it had no more; frames that it
// returned before are invalid from now on.
func (d *LinkDecoder) Feed(b []byte) {
	if len(d.rest) == 0 {
		d.rest = b
		if cap(d.carry) > 1<<20 {
			d.carry = nil // one large frame must not hold its memory for ever
		}
		return
	}
	if len(d.carry) > 0 && &d.rest[len(d.rest)-1] == &d.carry[len(d.carry)-1] && len(d.rest) == len(d.carry) {
		d.carry = append(d.carry, b...)
	} else {
		d.carry = append(append(make([]byte, 0, len(d.rest)+len(b)), d.rest...), b...)
	}
	d.rest = d.carry
}

// Next decodes the next frame into f, which aliases what was fed and is valid until the next Feed,
// all but its ClientID, which may be kept.
// false: the next frame is not complete. f.Shared's memory is used again.
func (d *LinkDecoder) Next(f *Frame) (bool, error) {
	for len(d.rest) > 0 {
		size, n := binary.Uvarint(d.rest)
		if n < 0 || size > MaxLinkFrame || n == 0 && len(d.rest) >= binary.MaxVarintLen64 {
			return false, fmt.Errorf("%w: its length", ErrLink)
		}
		if n == 0 || uint64(len(d.rest)-n) < size {
			return false, nil
		}
		record := d.rest[n : n+int(size)]
		d.rest = d.rest[n+int(size):]
		r := reader{b: record}
		switch kind := r.byte(); kind {
		case recordAnnounce:
			if err := d.announce(&r); err != nil {
				return false, err
			}
		case recordPublish:
			return d.publish(&r, f)
		default:
			return false, fmt.Errorf("%w: kind %d", ErrLink, kind)
		}
	}
	return false, nil
}

// Partial tells whether what was fed ended inside a record.
func (d *LinkDecoder) Partial() bool { return len(d.rest) > 0 }

func (d *LinkDecoder) announce(r *reader) error {
	handle := r.uvarint()
	client := announced{id: string(r.string()), epoch: r.uvarint()}
	if len(r.b) > 0 {
		r.bad = true
	}
	if err := r.err(); err != nil {
		return err
	}
	switch {
	case handle < uint64(len(d.clients)):
		d.clients[handle] = client
	case handle == uint64(len(d.clients)) && handle < MaxLinkHandles:
		d.clients = append(d.clients, client)
	default:
		return fmt.Errorf("%w: handle %d out of order", ErrLink, handle)
	}
	return nil
}

func (d *LinkDecoder) publish(r *reader, f *Frame) (bool, error) {
	flags := r.byte()
	handle := r.uvarint()
	r.publish(f, flags)
	if err := r.err(); err != nil {
		return false, err
	}
	if handle >= uint64(len(d.clients)) {
		return false, fmt.Errorf("%w: handle %d was not announced", ErrLink, handle)
	}
	f.ClientID, f.Epoch = d.clients[handle].id, d.clients[handle].epoch
	return true, nil
}

// reader takes fields off the front of a record. After the first bad one it returns zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) err() error {
	if r.bad {
		return fmt.Errorf("%w: a field", ErrLink)
	}
	return nil
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(limit uint64) []byte {
	n := r.uvarint()
	if n > limit || n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string() []byte { return r.bytes(maxLinkString) }

// publish reads what stands behind the client of a frame.
func (r *reader) publish(f *Frame, flags byte) {
	*f = Frame{Shared: f.Shared[:0]}
	f.QoS, f.Plain = flags&flagQoS, flags&flagPlain != 0
	if f.QoS > 2 || flags&^flagsKnown != 0 {
		r.fail()
	}
	if f.QoS > 0 {
		if f.Sequence = r.uvarint(); f.Sequence == 0 {
			r.fail()
		}
	}
	if flags&flagExpiry != 0 {
		if f.Expiry = int64(r.uvarint()); f.Expiry <= 0 {
			r.fail()
		}
	}
	if flags&flagAfter != 0 {
		if f.After = r.uvarint(); f.After == 0 {
			r.fail()
		}
	}
	topic := r.string()
	if len(topic) == 0 {
		r.fail()
	}
	f.Topic = alias(topic)
	if flags&flagProps != 0 {
		if f.Props = r.bytes(MaxLinkFrame); len(f.Props) == 0 {
			r.fail()
		}
	}
	if flags&flagShared != 0 {
		r.shared(f)
	}
	f.Payload = r.b
}

func (r *reader) shared(f *Frame) {
	n := r.uvarint()
	if n == 0 || n > uint64(len(r.b)/2) { // each takes two bytes or more
		r.fail()
	}
	for ; n > 0 && !r.bad; n-- {
		filter, group := r.string(), r.string()
		f.Shared = append(f.Shared, SharedPick{Filter: alias(filter), Group: alias(group)})
	}
}

// alias is b as a string without a copy.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

func stringSize(n int) int { return uvarintSize(uint64(n)) + n }

func uvarintSize(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
