package fsm

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

func sampleBatch(t *testing.T, inc uint64) []byte {
	t.Helper()
	b := &fsmpb.Batch{Origin: "n1", Incarnation: inc, First: 1, Commands: []*fsmpb.Command{
		{Op: &fsmpb.Command_Interest{Interest: &fsmpb.Interest{Filter: "t", Count: 1}}},
	}}
	raw, err := b.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func up(t *testing.T, f *FSM, node string) {
	t.Helper()
	s := &fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: node, Nonce: 1}}}
	if _, err := f.Apply(f.Applied()+1, 1, EncodeSystem(nil, 1000, s)); err != nil {
		t.Fatal(err)
	}
}

// TestBadEntries: what can't be read stops the node and changes nothing.
func TestBadEntries(t *testing.T) {
	f := New("n1")
	up(t, f, "n1")
	good := EncodeBatch([]byte("head"), 2000, sampleBatch(t, 1))[4:]
	reseal := func(change func(e []byte) []byte) []byte {
		e := change(bytes.Clone(good))
		return seal(e, 0)
	}
	unknownField := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 7)
	nested := protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), []byte("x"))
	unknownCommand := append(sampleBatch(t, 1), protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), nested)...)
	subscription := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), unknownField) // Subscribe.subscriptions
	subscribe := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), subscription)    // Command.subscribe
	deep := append(sampleBatch(t, 1), protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), subscribe)...)
	for _, tt := range []struct {
		name  string
		entry []byte
		want  error
	}{
		{"empty", nil, ErrCorrupt},
		{"short", good[:10], ErrCorrupt},
		{"format", reseal(func(e []byte) []byte { e[0] = 2; return e }), ErrNewer},
		{"kind", reseal(func(e []byte) []byte { e[1] = 3; return e }), ErrNewer},
		{"group", reseal(func(e []byte) []byte { e[3] = 1; return e }), ErrNewer},
		{"garbage", reseal(func(e []byte) []byte { return append(e[:entryHeader], 0xFF, 0xFF) }), ErrCorrupt},
		{"unknown field of the batch", EncodeBatch(nil, 2000, append(sampleBatch(t, 1), unknownField...)), ErrNewer},
		{"unknown command", EncodeBatch(nil, 2000, unknownCommand), ErrNewer},
		{"unknown field deep inside", EncodeBatch(nil, 2000, deep), ErrNewer},
		{"unknown system command", reseal(func(e []byte) []byte { e[1] = kindSystem; return append(e[:entryHeader], nested...) }), ErrNewer},
		{"empty system command", reseal(func(e []byte) []byte { e[1] = kindSystem; return e[:entryHeader] }), ErrNewer},
	} {
		before := f.Hash()
		if _, err := f.Apply(2, 1, tt.entry); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if f.Hash() != before {
			t.Errorf("%s changed the state", tt.name)
		}
	}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 0x10
		if _, err := f.Apply(2, 1, flipped); err == nil {
			t.Fatalf("byte %d flipped and not noticed", i)
		}
	}
	if _, err := f.Apply(2, 1, good); err != nil {
		t.Fatal(err)
	}
	if f.Now() != 2000 || f.Applied() != 2 || f.NextSequence(NodeRef{"n1", 1}) != 2 {
		t.Errorf("now %d, applied %d", f.Now(), f.Applied())
	}
	// A log that is replayed from before the snapshot does nothing.
	before := f.Hash()
	if effects, err := f.Apply(2, 1, good); err != nil || len(effects) != 0 || f.Hash() != before {
		t.Errorf("applied twice: %v %v", effects, err)
	}
	// The clock never goes back.
	if _, err := f.Apply(3, 1, EncodeSystem(nil, 1, &fsmpb.System{Op: &fsmpb.System_Tick{Tick: &fsmpb.Tick{}}})); err != nil || f.Now() != 2000 {
		t.Errorf("now %d, %v", f.Now(), err)
	}
	f.Advance(9)
	if f.Applied() != 9 {
		t.Errorf("applied %d", f.Applied())
	}
}

func FuzzApply(f *testing.F) {
	f.Add([]byte{1, 2, 3}, true)
	f.Fuzz(func(t *testing.T, payload []byte, batch bool) {
		m := New("n1")
		up(t, m, "n1")
		kind := byte(kindSystem)
		if batch {
			kind = kindBatch
		}
		entry := seal(append(appendHeader(nil, kind, 2000), payload...), 0)
		if _, err := m.Apply(2, 1, entry); err == nil {
			checkState(t, m)
		}
	})
}
