package tlspsk

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
)

// Content types (RFC 8446, section 5.1).
const (
	recordChangeCipherSpec = 20
	recordAlert            = 21
	recordHandshake        = 22
	recordApplication      = 23
)

const (
	headerSize = 5
	maxPlain   = 1 << 14
	maxCipher  = maxPlain + 2048 // RFC 5246, section 6.2.3; RFC 8446 allows 256
	// maxUseless is how many records in a row may bring nothing: empty ones, warnings, key updates.
	maxUseless = 16
)

// buffers hold records while they are read or written, and no longer.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

type buffer [headerSize + maxCipher]byte

// input takes records apart. While nothing has come it holds no memory.
type input struct {
	prot  protection
	seq   uint64
	tls13 bool
	buf   *buffer // nil: nothing is kept
	r, w  int     // raw bytes in buf
	idle  int     // records in a row that brought nothing
	skip  int     // bytes of early data that may still be passed over (RFC 8446, section 4.2.10)
	err   error   // for good
}

// record returns the next one as it came. It lies in the memory of in, or in scratch, which it
// prefers, until the next call.
func (in *input) record(nc io.Reader, scratch []byte) ([]byte, error) {
	if in.r == in.w {
		in.release()
	}
	if in.buf == nil && len(scratch) > headerSize {
		n, err := nc.Read(scratch[:min(len(scratch), len(buffer{}))])
		if n == 0 {
			return nil, ended(err, true)
		}
		if whole, err := length(scratch[:n]); err != nil {
			return nil, err
		} else if whole == n {
			return scratch[:n], nil
		}
		in.take()
		in.w = copy(in.buf[:], scratch[:n])
	}
	if in.buf == nil {
		in.take()
	}
	for {
		have := in.buf[in.r:in.w]
		whole, err := length(have)
		if err != nil {
			return nil, err
		}
		if whole > 0 && len(have) >= whole {
			in.r += whole
			return have[:whole], nil
		}
		if in.r > 0 {
			in.w, in.r = copy(in.buf[:], have), 0
		}
		n, err := nc.Read(in.buf[in.w:])
		in.w += n
		if n == 0 {
			return nil, ended(err, in.w == 0)
		}
	}
}

func (in *input) take() {
	in.buf, _ = buffers.Get().(*buffer)
	in.r, in.w = 0, 0
}

// release gives the buffer back. Nothing of it may be in use.
func (in *input) release() {
	if in.buf != nil {
		buffers.Put(in.buf)
		in.buf, in.r, in.w = nil, 0, 0
	}
}

// ended is the error of a read that brought nothing. An end without close_notify is taken for one
// between two records: many clients do no better, and MQTT says itself how long it is.
func ended(err error, between bool) error {
	switch {
	case err == nil:
		return io.ErrNoProgress
	case errors.Is(err, io.EOF) && !between:
		return io.ErrUnexpectedEOF
	}
	return err
}

// length is that of the record at the start of b, 0 when b is too short to tell.
func length(b []byte) (int, error) {
	switch {
	case len(b) > 0 && (b[0] < recordChangeCipherSpec || b[0] > recordApplication), len(b) > 1 && b[1] != 3:
		return 0, fail(alertProtocolVersion, "this is no TLS")
	case len(b) < headerSize:
		return 0, nil
	}
	n := int(b[3])<<8 | int(b[4])
	if n > maxCipher {
		return 0, fail(alertRecordOverflow, "a record has %d bytes", n)
	}
	return headerSize + n, nil
}

// next returns a record's type and content, opened, after those that are nobody's business. middlebox
// says whether change_cipher_spec is one of them (RFC 8446, section 5).
func (in *input) next(nc io.Reader, scratch []byte, middlebox bool) (byte, []byte, error) {
	for {
		rec, err := in.record(nc, scratch)
		if err != nil {
			return 0, nil, err
		}
		if rec[0] == recordChangeCipherSpec && middlebox {
			if len(rec) != headerSize+1 || rec[headerSize] != 1 {
				return 0, nil, fail(alertUnexpectedMessage, "a change_cipher_spec is malformed")
			}
			if err := in.useless(); err != nil {
				return 0, nil, err
			}
			continue
		}
		if in.seq == math.MaxUint64 {
			return 0, nil, fail(alertInternalError, "the sequence numbers are used up")
		}
		early := rec[0] == recordApplication && in.skip >= len(rec)
		typ, plain, err := in.prot.open(in.seq, rec)
		if early && (err != nil || in.prot == plainText{}) {
			in.skip -= len(rec)
			continue
		}
		if err != nil {
			return 0, nil, err
		}
		in.skip = 0
		in.seq++
		if len(plain) > maxPlain {
			return 0, nil, fail(alertRecordOverflow, "a record has %d bytes", len(plain))
		}
		done, err := in.judge(typ, plain)
		if err != nil {
			return 0, nil, err
		}
		if done {
			if typ == recordApplication {
				in.idle = 0
			}
			return typ, plain, nil
		}
		if err := in.useless(); err != nil {
			return 0, nil, err
		}
	}
}

func (in *input) useless() error {
	if in.idle++; in.idle > maxUseless {
		return fail(alertUnexpectedMessage, "%d records in a row bring nothing", in.idle)
	}
	return nil
}

// judge finds what a record is good for: true is something for the caller.
func (in *input) judge(typ byte, plain []byte) (bool, error) {
	switch {
	case typ == recordAlert:
		return false, in.heard(plain)
	case len(plain) > 0:
		return true, nil
	case typ == recordApplication: // empty ones are allowed (RFC 8446, section 5.1)
		return false, nil
	}
	return false, fail(alertUnexpectedMessage, "a record is empty")
}

// heard is what an alert of the client means: nil, when it is a warning. TLS 1.3 knows one alone, which
// announces close_notify (RFC 8446, section 6.1).
func (in *input) heard(plain []byte) error {
	if len(plain) != 2 {
		return fail(alertDecodeError, "an alert has %d bytes", len(plain))
	}
	switch a := alert(plain[1]); {
	case a == alertCloseNotify:
		return io.EOF
	case a == alertUserCanceled, plain[0] == 1 && !in.tls13:
		return nil
	default:
		return fmt.Errorf("%w: %s", ErrAlert, a)
	}
}

// output puts records together. The caller of its methods holds whatever guards it.
type output struct {
	prot  protection
	seq   uint64
	limit int   // bytes of content in a record
	err   error // for good
}

// append adds data as records to dst.
func (out *output) append(dst []byte, typ byte, data []byte) []byte {
	for len(data) > 0 {
		n := min(len(data), out.limit)
		dst = out.prot.seal(dst, out.seq, typ, data[:n])
		out.seq++
		data = data[n:]
	}
	return dst
}
