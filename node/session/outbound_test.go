package session

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

func clean(window int) *Session {
	return New(Config{Version: mqtt.V5, Window: window, MaxQueued: 3})
}

// TestCleanWindow: what finds a place is sent by the caller, the rest waits, in order; each
// acknowledgement makes room.
func TestCleanWindow(t *testing.T) {
	s := clean(2)
	a, ok1 := s.Slot(1)
	b, ok2 := s.Slot(2)
	if _, ok := s.Slot(1); !ok1 || !ok2 || ok || a != 1 || b != 2 || s.Inflight() != 2 {
		t.Fatalf("slots %d %v, %d %v, in flight %d", a, ok1, b, ok2, s.Inflight())
	}
	s.Enqueue(entry(0, 1, "c"))
	s.Enqueue(entry(0, 0, "d"))
	s.Enqueue(entry(0, 2, "e"))
	s.Enqueue(entry(0, 1, "full"))
	equal(t, "drops", drops(s), "0:queue_full")
	if s.Queued() != 3 {
		t.Errorf("%d wait", s.Queued())
	}
	equal(t, "a full window", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "")
	if seq := s.Puback(a); seq == 0 {
		t.Error("PUBACK means nothing")
	}
	if _, ok := s.Slot(1); ok {
		t.Error("a new message overtakes those that wait")
	}
	equal(t, "pumped", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "c:3 d:0")
	out, commit := s.Pubrec(b, 0, nil)
	equal(t, "PUBREC", said(t, mqtt.V5, out), "PUBREL:2")
	if commit || s.NeedsCommit() || s.Inflight() != 2 {
		t.Error("a clean session has something to commit, or its quota back too early")
	}
	out, _ = s.Pubrec(b, 0, nil)
	equal(t, "PUBREC again", said(t, mqtt.V5, out), "PUBREL:2")
	if s.Pubcomp(b) == 0 || s.Pubcomp(b) != 0 || s.Inflight() != 1 {
		t.Error("PUBCOMP does not count once")
	}
	equal(t, "pumped", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "e:4")
	if n := s.TakeSent(); n != [3]uint64{1, 1, 1} || s.TakeSent() != [3]uint64{} {
		t.Errorf("sent %v", n)
	}
}

// TestStrayAcknowledgements: ids that mean nothing, and acknowledgements of the wrong kind, change
// nothing; PUBREC is told so.
func TestStrayAcknowledgements(t *testing.T) {
	s := clean(5)
	one, _ := s.Slot(1)
	two, _ := s.Slot(2)
	for _, id := range []uint16{0, 3, 65535, two} {
		if s.Puback(id) != 0 {
			t.Errorf("PUBACK %d means something", id)
		}
	}
	for _, id := range []uint16{0, 3, one, two} {
		if s.Pubcomp(id) != 0 {
			t.Errorf("PUBCOMP %d means something", id)
		}
	}
	for _, id := range []uint16{3, one} {
		out, _ := s.Pubrec(id, 0, nil)
		equal(t, "PUBREC", said(t, mqtt.V5, out), fmt.Sprintf("PUBREL:%d/92", id))
	}
	if s.Inflight() != 2 || s.Puback(one) == 0 || s.Puback(one) != 0 {
		t.Error("the window is wrong")
	}
}

// TestRefused: PUBREC with an error ends the exchange [MQTT-4.3.3].
func TestRefused(t *testing.T) {
	s := clean(1)
	id, _ := s.Slot(2)
	out, _ := s.Pubrec(id, mqtt.QuotaExceeded, nil)
	if len(out) > 0 || s.Inflight() != 0 {
		t.Errorf("answered %x, in flight %d", out, s.Inflight())
	}
}

// TestPacketIDs: they go round, and none is in use twice, however far ahead others are.
func TestPacketIDs(t *testing.T) {
	s := New(Config{Version: mqtt.V311, Window: 100_000})
	stuck, _ := s.Slot(1)
	for i := 1; i < maxSpan; i++ {
		id, ok := s.Slot(1)
		if !ok || id == stuck || id == 0 {
			t.Fatalf("slot %d: id %d, %v", i, id, ok)
		}
		if s.Puback(id) == 0 {
			t.Fatalf("PUBACK %d means nothing", id)
		}
	}
	if id, ok := s.Slot(1); ok {
		t.Fatalf("id %d is given with all in use", id)
	}
	s.Puback(stuck)
	if id, ok := s.Slot(1); !ok || id != stuck || s.Puback(id) == 0 {
		t.Fatalf("id %d, %v", id, ok)
	}
	resumed, _ := Resume(Config{Version: mqtt.V5, Persistent: true, Window: 9, Span: 100}, &fsm.SessionView{
		Cursor: 65533, Last: 65537, Queue: []fsm.Entry{entry(65534, 1, "a"), entry(65535, 2, "b"), entry(65536, 1, "c"), entry(65537, 1, "d")},
	}, nil)
	equal(t, "around the end", said(t, mqtt.V5, resumed.Pump(nil, 0, plenty)), "a:65534 b:65535 c:1 d:2")
	if resumed.Puback(1) != 65536 || resumed.Puback(65534) != 65534 {
		t.Error("acknowledgements are for other messages")
	}
}

// TestResume: PUBRELs at once and without quota, then what was possibly sent with DUP and its own
// packet ids, then what is new; the window only paces it.
func TestResume(t *testing.T) {
	view := &fsm.SessionView{
		Cursor: 10, Last: 18, Mark: 15, Done: []fsm.Range{{Lo: 12, Hi: 12}}, Received: []fsm.Range{{Lo: 11, Hi: 11}, {Lo: 14, Hi: 14}},
		Queue: []fsm.Entry{
			entry(11, 2, "received"), entry(12, 1, "done"), entry(13, 1, "c"), entry(15, 2, "e"), entry(16, 2, "f"), entry(18, 1, "h"),
		},
	}
	s, out := Resume(Config{Version: mqtt.V5, Persistent: true, Window: 2, Span: 7}, view, nil)
	equal(t, "at once", said(t, mqtt.V5, out), "PUBREL:11 PUBREL:14")
	if s.Clean() || s.Inflight() != 0 || s.Sent() != 10 {
		t.Errorf("clean %v, in flight %d, sent %d", s.Clean(), s.Inflight(), s.Sent())
	}
	equal(t, "first", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "c:13dup e:15dup")
	s.Enqueue(entry(18, 1, "twice"))
	s.Enqueue(entry(19, 1, "i"))
	if s.Pubcomp(14) != 14 || s.Pubcomp(11) != 11 || s.Inflight() != 2 {
		t.Error("PUBCOMP for an earlier connection changes the quota")
	}
	if p := s.TakeProgress(); p.Cursor != 12 || len(p.Done) != 1 || p.Done[0] != (fsm.Range{Lo: 14, Hi: 14}) {
		t.Errorf("progress %+v", p)
	}
	s.Puback(13)
	equal(t, "then", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "f:16")
	if out, commit := s.Pubrec(15, 0, nil); len(out) > 0 || !commit || !s.NeedsCommit() {
		t.Error("PUBREL before the commit")
	}
	if out, _ := s.Pubrec(15, 0, nil); len(out) > 0 {
		t.Error("PUBREL before the commit, after a repeat")
	}
	ranges := s.TakeReceived()
	equal(t, "committed", said(t, mqtt.V5, s.Received(ranges, nil)), "PUBREL:15")
	equal(t, "committed twice", said(t, mqtt.V5, s.Received(ranges, nil)), "")
	s.Pubcomp(15)
	equal(t, "beyond the span", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "")
	if dirty, urgent := s.Dirty(); !dirty || urgent {
		t.Errorf("dirty %v, urgent %v", dirty, urgent)
	}
	s.Committed(s.TakeProgress().Cursor)
	equal(t, "with the cursor committed", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "h:18")
	if s.Sent() != 18 {
		t.Errorf("sent %d", s.Sent())
	}
	s.Puback(18)
	equal(t, "the last", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "i:19")
}

// TestEarlierPubrec: a PUBREC that answers the PUBLISH of an earlier connection is not "unknown":
// the client would forget the packet id, and take the repeat for a new message.
func TestEarlierPubrec(t *testing.T) {
	s, _ := Resume(Config{Version: mqtt.V5, Persistent: true, Window: 1, Span: 10}, &fsm.SessionView{
		Last: 3, Mark: 2, Queue: []fsm.Entry{entry(1, 1, "a"), entry(2, 2, "b"), entry(3, 2, "c")},
	}, nil)
	s.Pump(nil, 0, plenty)
	out, _ := s.Pubrec(2, 0, nil)
	equal(t, "possibly sent", said(t, mqtt.V5, out), "")
	out, _ = s.Pubrec(3, 0, nil)
	equal(t, "never sent", said(t, mqtt.V5, out), "PUBREL:3/92")
	s.Puback(1)
	equal(t, "repeat", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "b:2dup")
}

// TestTombstone: a QoS 2 entry that was possibly sent and has expired ends with PUBREL; one that is
// new, or QoS 1, just goes.
func TestTombstone(t *testing.T) {
	expired := func(seq uint64, qos byte) fsm.Entry {
		e := entry(seq, qos, "x")
		e.Message.Expires = 1000
		return e
	}
	s, _ := Resume(Config{Version: mqtt.V5, Persistent: true, Window: 5, Span: 10}, &fsm.SessionView{
		Last: 4, Mark: 2, Queue: []fsm.Entry{expired(1, 2), expired(2, 1), expired(3, 2), entry(4, 1, "last")},
	}, nil)
	equal(t, "before the drops are committed", said(t, mqtt.V5, s.Pump(nil, 1000, plenty)), "")
	if !s.NeedsCommit() {
		t.Fatal("nothing to commit")
	}
	p, received := s.TakeProgress(), s.TakeReceived()
	equal(t, "drops", drops(s), "1:expired 2:expired 3:expired")
	if p.Cursor != 0 || fmt.Sprint(p.Done, received) != "[{2 3}] [{1 1}]" {
		t.Errorf("progress %+v, received %v", p, received)
	}
	if out, _ := s.Pubrec(1, 0, nil); len(out) > 0 {
		t.Error("PUBREL before the commit")
	}
	s.Committed(p.Cursor)
	equal(t, "PUBREL", said(t, mqtt.V5, s.Received(received, nil)), "PUBREL:1")
	equal(t, "then", said(t, mqtt.V5, s.Pump(nil, 1000, plenty)), "last:4")
	if s.Pubcomp(1) != 1 || s.Inflight() != 1 {
		t.Error("the tombstone counts in the window")
	}
	if p := s.TakeProgress(); p.Cursor != 3 {
		t.Errorf("cursor %d", p.Cursor)
	}
}

// TestQueueFull: drops of a full queue take one place, however many they are, and nothing behind
// them is sent before they are in the log.
func TestQueueFull(t *testing.T) {
	s, _ := Resume(Config{Version: mqtt.V5, Persistent: true, Window: 1, Span: 10, MaxQueued: 2}, &fsm.SessionView{}, nil)
	for seq := uint64(1); seq <= 1000; seq++ {
		s.Enqueue(entry(seq, 1, fmt.Sprint(seq)))
		s.Pump(nil, 0, plenty)
	}
	if n := s.Queued(); n != 3 || s.Inflight() != 1 {
		t.Fatalf("%d wait", n)
	}
	if n := s.Drops(); n != 997 {
		t.Fatalf("%d drops", n)
	}
	s.Puback(1)
	s.Enqueue(entry(1001, 1, "room"))
	equal(t, "a free place", drops(s)[len("4:queue_full"):][:13], " 5:queue_full")
	var all []string
	for range 300 {
		if out := said(t, mqtt.V5, s.Pump(nil, 0, plenty)); out != "" {
			all = append(all, out)
			id, err := strconv.Atoi(out[strings.Index(out, ":")+1:])
			if err != nil || s.Puback(uint16(id)) == 0 {
				t.Fatalf("%q can't be acknowledged", out)
			}
		}
		p := s.TakeProgress()
		s.TakeDrops()
		s.Committed(p.Cursor)
	}
	equal(t, "delivered", strings.Join(all, " "), "2:2 3:3 room:1001")
}

func TestMaxBytes(t *testing.T) {
	s := New(Config{Version: mqtt.V311, Window: 1, MaxBytes: 10})
	s.Slot(1)
	s.Enqueue(entry(0, 1, strings.Repeat("x", 50))) // nothing waits yet
	s.Enqueue(entry(0, 1, "y"))
	equal(t, "drops", drops(s), "0:queue_full")
	s.Puback(1)
	s.Pump(nil, 0, plenty)
	for range 5 {
		s.Enqueue(entry(0, 1, "z"))
	}
	equal(t, "drops", drops(s), "")
	s.Enqueue(entry(0, 1, "z"))
	equal(t, "drops", drops(s), "0:queue_full")
}

// TestDropsAtDelivery: expired and too large messages, at a client that allows aliases or not.
func TestDropsAtDelivery(t *testing.T) {
	for _, aliases := range []uint16{0, 5} {
		s := New(Config{Version: mqtt.V5, Window: 9, MaxPacket: 20, AliasOut: aliases})
		e := entry(0, 1, "old")
		e.Message.Expires = 500
		s.Enqueue(e)
		s.Enqueue(entry(0, 1, strings.Repeat("x", 13)))
		fits := entry(0, 1, strings.Repeat("y", 12)) // 1+1+3+2+1+12, without an alias
		s.Enqueue(fits)
		left := entry(0, 1, "z")
		left.Message.Expires = 2001
		s.Enqueue(left)
		got := said(t, mqtt.V5, s.Pump(nil, 1000, plenty))
		want := strings.Repeat("y", 12) + ":1 z:2"
		if aliases > 0 {
			want += `alias1="t"`
		}
		equal(t, "sent", got, want+"expiry2")
		equal(t, "drops", drops(s), "0:expired 0:too_large")
		if !s.TooLarge(1, nil, 1, false, 0, 13) || s.TooLarge(1, nil, 1, false, 0, 12) || s.TooLarge(1, nil, 0, false, 0, 14) {
			t.Error("TooLarge is wrong")
		}
	}
	if (&Session{}).TooLarge(1<<16, nil, 2, true, 1<<20, 1<<20) {
		t.Error("without a limit something is too large")
	}
	if SecondsLeft(1000, 1000) != 1 || SecondsLeft(2000, 999) != 2 || SecondsLeft(2000, 1000) != 1 {
		t.Error("SecondsLeft is wrong")
	}
}

// TestMount: what is below the mount point is sent without it, and as large as it is then.
func TestMount(t *testing.T) {
	s := New(Config{Version: mqtt.V5, Window: 9, MaxPacket: 12, Mount: "m/"})
	got, want := s.AppendPublish(nil, mqtt.PublishHeader{}, "m/a/b", nil, nil, []byte("x")), []byte("\x30\x07\x00\x03a/b\x00x")
	if !bytes.Equal(got, want) {
		t.Errorf("% x", got)
	}
	if s.TooLarge(len("m/a/b"), nil, 0, false, 0, 4) || !s.TooLarge(len("m/a/b"), nil, 0, false, 0, 5) {
		t.Error("the mount point counts for Maximum Packet Size")
	}
}

// TestAliasOut: the first topics get aliases and keep them.
func TestAliasOut(t *testing.T) {
	s := New(Config{Version: mqtt.V5, Window: 9, AliasOut: 2})
	mounted := New(Config{Version: mqtt.V5, Window: 1, Mount: "m/"})
	if !s.Unshared() || clean(1).Unshared() || !mounted.Unshared() {
		t.Error("Unshared is wrong")
	}
	var out []byte
	for _, topic := range []string{"a", "b", "c", "a", "b", "c"} {
		out = s.AppendPublish(out, mqtt.PublishHeader{}, topic, nil, nil, []byte("x"))
	}
	equal(t, "packets", said(t, mqtt.V5, out), `x:0alias1="a" x:0alias2="b" x:0 x:0alias1="" x:0alias2="" x:0`)

	// A known alias that is longer than its topic, in a packet that has just room.
	s = New(Config{Version: mqtt.V5, Window: 9, AliasOut: 2, MaxPacket: 10})
	out = s.AppendPublish(nil, mqtt.PublishHeader{}, "a", nil, nil, nil)
	out = s.AppendPublish(out, mqtt.PublishHeader{}, "a", nil, nil, []byte("1234"))
	equal(t, "packets", said(t, mqtt.V5, out), `:0alias1="a" 1234:0`)
}

// TestLimit: Pump stops when dst is full, and goes on later.
// TestAliasOwnsItsTopic: what names the topic is the publisher's buffer, which soon holds another one.
func TestAliasOwnsItsTopic(t *testing.T) {
	s := New(Config{Version: mqtt.V5, Window: 9, AliasOut: 2})
	buffer := []byte("first")
	publish := func(topic string) string {
		return said(t, mqtt.V5, s.AppendPublish(nil, mqtt.PublishHeader{}, topic, nil, nil, []byte("m")))
	}
	equal(t, "new", publish(unsafe.String(unsafe.SliceData(buffer), len(buffer))), `m:0alias1="first"`)
	copy(buffer, "other")
	equal(t, "known", publish("first"), `m:0alias1=""`)
}

func TestLimit(t *testing.T) {
	s := clean(9)
	for range 3 {
		s.Enqueue(entry(0, 0, "x"))
	}
	equal(t, "one", said(t, mqtt.V5, s.Pump(nil, 0, 1)), "x:0")
	equal(t, "rest", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "x:0 x:0")
}

// TestLeftover: when a clean member of a shared group ends, others get its QoS 1 messages and what
// it was never sent of QoS 2 [MQTT-4.8.2-5]; what it had, or refused, is settled.
func TestLeftover(t *testing.T) {
	shared := func(qos byte, name string, pick uint64) Shared {
		e := entry(0, qos, name)
		e.Filter, e.Group = "t", "g"
		return Shared{e, pick}
	}
	s := New(Config{Version: mqtt.V5, Window: 6, MaxQueued: 4})
	var ids []uint16
	for i, qos := range []byte{1, 1, 2, 2, 2} {
		id, _ := s.Slot(qos)
		s.KeepShared(shared(qos, fmt.Sprint("sent", i), uint64(10+i)))
		ids = append(ids, id)
	}
	s.Slot(1) // not shared
	s.Puback(ids[0])
	s.Pubrec(ids[2], 0, nil)
	s.Pubrec(ids[3], mqtt.QuotaExceeded, nil)
	s.EnqueueShared(shared(2, "waits", 20))
	s.EnqueueShared(shared(1, "goes", 21))
	s.Enqueue(entry(0, 1, "own"))
	equal(t, "pumped", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "waits:7 goes:8")
	s.EnqueueShared(shared(2, "last", 22))
	for i := range 5 {
		s.EnqueueShared(shared(1, "full", uint64(30+i)))
	}
	equal(t, "settled", fmt.Sprint(s.TakeSettled()), "[10 12 13 32 33 34]")
	reassign, lost := s.Leftover()
	var names []string
	for _, e := range reassign {
		names = append(names, fmt.Sprintf("%s/%d", e.Message.Payload, e.Pick))
	}
	equal(t, "for others", strings.Join(names, " "), "sent1/11 goes/21 last/22 full/30 full/31")
	if lost != 1 {
		t.Errorf("%d lost", lost)
	}
	equal(t, "settled", fmt.Sprint(s.TakeSettled()), "[14 20]")
}

// TestClaims: what the log may still give to another member is not sent, nor is what stands behind it.
func TestClaims(t *testing.T) {
	pick := uint64(10)
	shared := func(name string) Shared {
		e := entry(0, 2, name)
		e.Filter, e.Group = "t", "g"
		pick++
		return Shared{e, pick}
	}
	s := New(Config{Version: mqtt.V5, Window: 6, MaxQueued: 1})
	for _, name := range []string{"a", "b", "c"} {
		if !s.EnqueueClaimed(shared(name)) {
			t.Fatalf("%s was dropped", name)
		}
	}
	s.Enqueue(entry(0, 1, "behind"))
	equal(t, "unclaimed", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "")
	s.Claimed()
	equal(t, "one", said(t, mqtt.V5, s.Pump(nil, 0, plenty)), "a:1")
	s.Claimed()
	reassign, lost := s.Leftover()
	if len(reassign) != 2 || reassign[0].Pick != 12 || reassign[1].Pick != 13 || lost != 1 {
		t.Errorf("left over: %v for others, %d lost; want b and c, 1", reassign, lost)
	}
	equal(t, "settled", fmt.Sprint(s.TakeSettled()), "[11]")
	full := New(Config{Version: mqtt.V5, Window: 1, MaxQueued: 1})
	for _, want := range []bool{true, true, false} {
		if full.EnqueueClaimed(shared("x")) != want {
			t.Fatalf("there was room: %v", !want)
		}
	}
	full.Claimed() // what was dropped has no turn
	full.Claimed()
	equal(t, "first", said(t, mqtt.V5, full.Pump(nil, 0, plenty)), "x:1")
}

// A full queue drops its oldest entry that was never sent, what an earlier connection may have sent stays,
// and the notes of what was dropped take no room.
func TestDropOldest(t *testing.T) {
	v := &fsm.SessionView{Mark: 2}
	for seq := uint64(1); seq <= 3; seq++ {
		v.Queue = append(v.Queue, fsm.Entry{Seq: seq, QoS: 1, Message: &fsm.Message{Topic: "t"}})
	}
	v.Last = 3
	s, _ := Resume(Config{Version: mqtt.V5, Persistent: true, Window: 1, Span: 1000, MaxQueued: 3, Full: DropOldest}, v, nil)
	for seq := uint64(4); seq <= 500; seq++ {
		s.Enqueue(fsm.Entry{Seq: seq, QoS: 1, Message: &fsm.Message{Topic: "t"}})
	}
	var waits []uint64
	for _, it := range s.out.waiting[s.out.head:] {
		if it.Message != nil {
			waits = append(waits, it.Seq)
		}
	}
	if want := []uint64{1, 2, 499, 500}; !slices.Equal(waits, want) {
		t.Errorf("%v wait, want %v", waits, want)
	}
	if n := s.Queued(); n > 5 {
		t.Errorf("%d places are taken for 4 entries", n)
	}
	if d := s.TakeDrops(); len(d) != 496 || d[0].Seq != 3 || d[495].Seq != 498 {
		t.Errorf("%d drops", len(d))
	}
}

// With Disconnect a clean session's entry is dropped, a persistent one's is left to the log.
func TestOverflow(t *testing.T) {
	for _, persistent := range []bool{false, true} {
		s, _ := Resume(Config{Version: mqtt.V5, Persistent: persistent, Window: 1, Span: 10, MaxQueued: 1, Full: Disconnect}, &fsm.SessionView{}, nil)
		for seq := uint64(1); seq <= 3; seq++ {
			if s.Overflowed() {
				t.Fatalf("persistent %v: too early, at %d", persistent, seq)
			}
			s.Enqueue(fsm.Entry{Seq: seq, QoS: 1, Message: &fsm.Message{Topic: "t"}})
		}
		if drops := len(s.TakeDrops()); !s.Overflowed() || (drops == 0) != persistent {
			t.Errorf("persistent %v: overflowed %v, %d drops", persistent, s.Overflowed(), drops)
		}
	}
}
