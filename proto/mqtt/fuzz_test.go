package mqtt

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// FuzzDecode: no input makes a decoder panic, hold more memory than the packet's size allows, or
// return another error than *Error; what is decoded encodes to something that decodes and encodes
// to the same; and only a PUBLISH refers to the input.
func FuzzDecode(f *testing.F) {
	for _, s := range samples {
		f.Add(byte(s.v), unhex(s.hex))
	}
	for _, m := range malformedTable {
		f.Add(byte(m.v), unhex(m.hex))
	}
	f.Fuzz(func(t *testing.T, version byte, b []byte) {
		v := V31 + Version(version%3)
		first, body, n, err := Split(b, 0)
		if err != nil || n == 0 {
			checkError(t, err)
			return
		}
		if n > len(b) || len(body) > n-2 {
			t.Fatalf("Split: %d bytes with a body of %d out of %d", n, len(body), len(b))
		}
		input := bytes.Clone(b[:n])
		p, v, err := decodeWhole(v, input)
		if p == nil {
			return
		}
		if size := footprint(reflect.ValueOf(p).Elem()); size > 512+24*len(input) {
			t.Fatalf("%T of %d bytes holds %d", p, len(input), size)
		}
		sameBytes(t, "input was changed", input, b[:n])
		if err != nil {
			checkError(t, err)
			return
		}
		once := p.Append(nil, v)
		if pub, ok := p.(*Publish); ok {
			checkPublishSize(t, pub, v, once)
		} else {
			clear(input)
			sameBytes(t, "after its input was cleared", p.Append(nil, v), once)
		}
		again, _, err := decodeWhole(v, once)
		if err != nil {
			t.Fatalf("%T %x, encoded as %x: %v", p, b[:n], once, err)
		}
		sameBytes(t, "encoded twice", again.Append(nil, v), once)
		_ = first
	})
}

func checkError(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if err != nil && (!errors.As(err, &e) || e.Code < 0x80 || e.Msg == "") {
		t.Fatalf("error is %#v", err)
	}
}

func checkPublishSize(t *testing.T, p *Publish, v Version, encoded []byte) {
	t.Helper()
	h := PublishHeader{p.Dup, p.QoS, p.Retain, p.PacketID, p.TopicAlias, p.HasExpiry, p.Expiry}
	if n := PublishSize(v, h, len(p.Topic), p.SubscriptionIDs, len(p.Props), len(p.Payload)); n != len(encoded) {
		t.Fatalf("PublishSize is %d, the packet has %d bytes", n, len(encoded))
	}
}

// FuzzSplit: Split on every prefix agrees with Split on the whole.
func FuzzSplit(f *testing.F) {
	f.Add([]byte{0xC0, 0}, 0)
	f.Add([]byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F}, 100)
	f.Add([]byte{0x30, 0x80, 0}, 0)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		first, body, n, err := Split(b, limit)
		for i := range min(len(b), 300) {
			_, part, m, perr := Split(b[:i], limit)
			switch {
			case m > 0 && (m != n || !bytes.Equal(part, body)):
				t.Fatalf("prefix of %d has another packet", i)
			case perr != nil && perr != err:
				t.Fatalf("prefix of %d: %v, all: %v", i, perr, err)
			case m == 0 && perr == nil && Missing(b[:i]) <= 0:
				t.Fatalf("prefix of %d is incomplete, but nothing is missing", i)
			case m == 0 && perr == nil && n > 0 && i+Missing(b[:i]) > n:
				t.Fatalf("prefix of %d misses %d of %d", i, Missing(b[:i]), n)
			}
		}
		if n > 0 && (first != b[0] || limit > 0 && n > limit || Missing(b) != 0) {
			t.Fatalf("packet of %d, limit %d, missing %d", n, limit, Missing(b))
		}
	})
}
