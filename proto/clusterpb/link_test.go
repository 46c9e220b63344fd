package clusterpb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

func randomFrame(r *rand.Rand, sequence *uint64) *Frame {
	f := &Frame{
		ClientID: fmt.Sprintf("c%d", r.IntN(5)), Epoch: 1 + r.Uint64N(3), Topic: strings.Repeat("t", 1+r.IntN(200)),
		Payload: bytes.Repeat([]byte{'p'}, r.IntN(300)), QoS: byte(r.IntN(3)), Plain: r.IntN(2) == 0,
	}
	if f.QoS > 0 {
		*sequence++
		f.Sequence = *sequence
	}
	if r.IntN(3) == 0 {
		f.Expiry = 1 + r.Int64N(1<<40)
	}
	if r.IntN(3) == 0 {
		f.After = 1 + r.Uint64N(1<<60)
	}
	if r.IntN(3) == 0 {
		f.Props = bytes.Repeat([]byte{7}, 1+r.IntN(200))
	}
	for n := r.IntN(4); n > 1; n-- {
		f.Shared = append(f.Shared, SharedPick{Filter: "a/+", Group: fmt.Sprint("g", n)})
	}
	return f
}

// copyOf owns everything that a decoded frame aliases.
func copyOf(f *Frame) *Frame {
	c := *f
	c.Topic, c.Payload, c.Props, c.Shared = strings.Clone(f.Topic), bytes.Clone(f.Payload), bytes.Clone(f.Props), nil
	if c.Payload == nil {
		c.Payload = []byte{}
	}
	for _, s := range f.Shared {
		c.Shared = append(c.Shared, SharedPick{strings.Clone(s.Filter), strings.Clone(s.Group)})
	}
	return &c
}

// decodeAll feeds b in pieces of at most max bytes.
func decodeAll(t testing.TB, b []byte, pieces func() int) []*Frame {
	t.Helper()
	var d LinkDecoder
	var f Frame
	var out []*Frame
	for len(b) > 0 {
		n := min(len(b), pieces())
		d.Feed(bytes.Clone(b[:n]))
		b = b[n:]
		for {
			ok, err := d.Next(&f)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			out = append(out, copyOf(&f))
		}
	}
	if d.Partial() {
		t.Fatal("bytes are left")
	}
	return out
}

func TestLinkFramesSurviveAnyCut(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var e LinkEncoder
	var sequence uint64
	var want []*Frame
	var b []byte
	for range 2000 {
		f := randomFrame(r, &sequence)
		want = append(want, copyOf(f))
		if r.IntN(2) == 0 {
			b = e.Append(b, f)
			continue
		}
		p, _ := Pack(nil, f)
		b = e.AppendPacked(b, &p, f.Expiry)
	}
	for _, limit := range []int{1, 7, 300, 5000, 1 << 30} {
		got := decodeAll(t, b, func() int { return 1 + r.IntN(limit) })
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("pieces up to %d: not what was sent", limit)
		}
	}
}

func TestRelayedFrameStandsAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var sequence uint64
	for range 500 {
		f := randomFrame(r, &sequence)
		p, _ := Pack(nil, f)
		p.Sequence = f.Sequence
		var got Frame
		if err := DecodeRelay(p.AppendRelay(nil, f.Expiry), &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(copyOf(&got), copyOf(f)) {
			t.Fatalf("got %+v, want %+v", got, f)
		}
	}
}

func TestHandlesAreUsedAgain(t *testing.T) {
	var e LinkEncoder
	var d LinkDecoder
	var f Frame
	for i := range 3 * MaxLinkHandles {
		want := fmt.Sprint("client", i)
		d.Feed(e.Append(nil, &Frame{ClientID: want, Epoch: uint64(i + 1), Topic: "t"}))
		if ok, err := d.Next(&f); !ok || err != nil || f.ClientID != want || f.Epoch != uint64(i+1) {
			t.Fatalf("%d: %v %v %+v", i, ok, err, f)
		}
	}
	if len(d.clients) != MaxLinkHandles || len(e.handles) != MaxLinkHandles {
		t.Fatalf("%d and %d handles are kept", len(d.clients), len(e.handles))
	}
}

func TestAHandleSavesTheClientID(t *testing.T) {
	var e LinkEncoder
	f := &Frame{ClientID: strings.Repeat("c", 100), Epoch: 1 << 40, Topic: "t", Payload: []byte("21")}
	first := len(e.Append(nil, f))
	if again := len(e.Append(nil, f)); again > 12 || first < 100 {
		t.Fatalf("first %d bytes, then %d", first, again)
	}
	e.Reset()
	if reset := len(e.Append(nil, f)); reset != first {
		t.Fatalf("%d bytes on a new stream, want %d", reset, first)
	}
}

func TestLinkDecoderRefuses(t *testing.T) {
	record := func(b ...byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }
	hello := record(recordAnnounce, 0, 1, 'c', 9)
	for name, b := range map[string][]byte{
		"empty record":              record(),
		"unknown kind":              record(9),
		"relay on a stream":         record(recordRelay, 0),
		"length without end":        bytes.Repeat([]byte{0xFF}, 11),
		"too long":                  binary.AppendUvarint(nil, MaxLinkFrame+1),
		"handle out of order":       record(recordAnnounce, 1, 1, 'c', 9),
		"announcement with more":    record(recordAnnounce, 0, 1, 'c', 9, 9),
		"announcement cut short":    record(recordAnnounce, 0, 5, 'c'),
		"handle not announced":      record(recordPublish, 0, 0, 1, 't'),
		"QoS 3":                     append(hello, record(recordPublish, 3, 0, 1, 1, 't')...),
		"unknown flag":              append(hello, record(recordPublish, 128, 0, 1, 't')...),
		"QoS 1 without sequence":    append(hello, record(recordPublish, 1, 0, 0, 1, 't')...),
		"no topic":                  append(hello, record(recordPublish, 0, 0, 0)...),
		"topic cut short":           append(hello, record(recordPublish, 0, 0, 9, 't')...),
		"no expiry":                 append(hello, record(recordPublish, flagExpiry, 0, 0, 1, 't')...),
		"more groups than bytes":    append(hello, record(recordPublish, flagShared, 0, 1, 't', 200, 1, 0, 0)...),
		"properties without length": append(hello, record(recordPublish, flagProps, 0, 1, 't')...),
	} {
		var d LinkDecoder
		var f Frame
		d.Feed(b)
		if ok, err := d.Next(&f); ok || !errors.Is(err, ErrLink) {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
}

func TestLinkCodecDoesNotAllocate(t *testing.T) {
	var e LinkEncoder
	var d LinkDecoder
	var got Frame
	f := &Frame{ClientID: "client", Epoch: 5, Topic: "a/b", Payload: make([]byte, 100)}
	b := e.Append(nil, f)
	d.Feed(b)
	if ok, err := d.Next(&got); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if n := testing.AllocsPerRun(100, func() {
		b = e.Append(b[:0], f)
		d.Feed(b)
		if ok, _ := d.Next(&got); !ok {
			t.Fatal("not decoded")
		}
	}); n != 0 {
		t.Fatalf("%v allocations per frame", n)
	}
}

func FuzzLinkDecoder(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	var e LinkEncoder
	var sequence uint64
	var b []byte
	for range 5 {
		b = e.Append(b, randomFrame(r, &sequence))
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var d LinkDecoder
		var frame Frame
		d.Feed(b)
		var again LinkEncoder
		for {
			ok, err := d.Next(&frame)
			if err != nil || !ok {
				return
			}
			want := copyOf(&frame)
			got := decodeAll(t, again.Append(nil, &frame), func() int { return 1 << 30 })
			if len(got) != 1 || !reflect.DeepEqual(got[0], want) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
			again.Reset()
		}
	})
}

func FuzzDecodeRelay(f *testing.F) {
	p, _ := Pack(nil, &Frame{ClientID: "c", Epoch: 1, Topic: "t", Payload: []byte("p")})
	f.Add(p.AppendRelay(nil, 0))
	f.Fuzz(func(_ *testing.T, b []byte) {
		var frame Frame
		_ = DecodeRelay(b, &frame)
	})
}
