package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"reflect"
	"sync"
	"testing"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// fill sets every field of a struct, so that a codec that forgets one is found out.
func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Field(i)
			fill(r, reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem())
		}
	case reflect.Slice:
		s := reflect.MakeSlice(v.Type(), 3, 3)
		for i := range 3 {
			fill(r, s.Index(i))
		}
		v.Set(s)
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", r.Intn(1_000_000)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem())
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(1 + r.Int63n(1<<30))
	default:
		v.SetUint(1 + uint64(r.Intn(200)))
	}
}

// roundTrip encodes with one function and decodes with another.
func roundTrip[T any](t *testing.T, in T, encode func(*encoder, T), decode func(*decoder) T) {
	t.Helper()
	var b bytes.Buffer
	e := newEncoder(&b, snapshotVersion)
	encode(e, in)
	if _, err := e.close(); err != nil {
		t.Fatal(err)
	}
	d, err := newDecoder(&b)
	if err != nil {
		t.Fatal(err)
	}
	out := decode(d)
	d.end()
	if d.err != nil {
		t.Fatal(d.err)
	}
	if !reflect.DeepEqual(in, out) {
		t.Errorf("%T:\n in %+v\nout %+v", in, in, out)
	}
}

// TestEveryFieldSurvives a snapshot, for each type of the state.
func TestEveryFieldSurvives(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 20 {
		member, w, message := &Member{}, &will{}, &Message{}
		for _, v := range []any{member, w, message} {
			fill(r, reflect.ValueOf(v).Elem())
		}
		roundTrip(t, member, (*encoder).member, (*decoder).member)
		roundTrip(t, w, (*encoder).will, (*decoder).will)
		roundTrip(t, message, (*encoder).message, (*decoder).message)

		var entry Entry
		var sub Subscription
		fill(r, reflect.ValueOf(&entry).Elem())
		fill(r, reflect.ValueOf(&sub).Elem())
		roundTrip(t, entry, func(e *encoder, v Entry) { e.entry(&v) }, (*decoder).entry)
		roundTrip(t, sub, func(e *encoder, v Subscription) { e.subscription(&v) }, (*decoder).subscription)

		var inc incarnationRow
		fill(r, reflect.ValueOf(&inc).Elem())
		roundTrip(t, inc, func(e *encoder, v incarnationRow) { e.incarnation(&v) }, func(d *decoder) incarnationRow {
			i := d.incarnation()
			return incarnationRow{i.node, i.number, i.next, i.live, i.endedAt, i.relays}
		})

		s := &sessionRow{}
		fill(r, reflect.ValueOf(s).Elem())
		for i := range s.queue { // one id is one message
			s.queue[i].Message.ID = uint64(i + 1)
		}
		s.bytes, s.expires = 0, 0
		for i := range s.queue {
			m := s.queue[i].Message
			s.bytes += m.size()
			if s.expires == 0 || m.Expires < s.expires {
				s.expires = m.Expires
			}
		}
		s.trimmed, s.counted, s.waiting, s.waitBytes = 0, false, 0, 0
		roundTrip(t, s, (*encoder).session, func(d *decoder) *sessionRow {
			out := d.session()
			if cap(out.queue) != len(out.queue) {
				out.queue = append([]Entry(nil), out.queue...)
			}
			return out
		})
	}
}

// populated is a state with something of everything, in many clients.
func populated(t *testing.T, clients int) *testCluster {
	t.Helper()
	tc := newTestCluster(t, "n1")
	tc.quiet = true
	tc.up("n1")
	tc.up("n2")
	for i := range clients {
		id := fmt.Sprintf("c%05d", i)
		tc.batch("n1", connect(id, 60), subscribe(id, EpochAt(tc.index+1, 0), "t/#"))
	}
	tc.batch("n2", &fsmpb.Command{Op: &fsmpb.Command_Interest{Interest: &fsmpb.Interest{Filter: "t/#", Group: "g", Count: 1}}})
	for i := range 3 {
		tc.batch("n1", &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{
			Topic: fmt.Sprintf("t/%d", i), Payload: bytes.Repeat([]byte("x"), 40_000), Qos: 1, Retain: true,
		}}})
	}
	return tc
}

func connect(id string, expiry uint32) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: &fsmpb.Connect{ClientId: id, Persistent: expiry > 0, Expiry: expiry}}}
}

func subscribe(id string, epoch Epoch, filter string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Subscribe{Subscribe: &fsmpb.Subscribe{
		ClientId: id, Epoch: uint64(epoch), Subscriptions: []*fsmpb.Subscription{{Filter: filter, Qos: 1}},
	}}}
}

// TestSnapshotWhileApplying: a snapshot is the state at its index, whatever happens while it is
// written, and two that overlap do not disturb each other.
func TestSnapshotWhileApplying(t *testing.T) {
	const clients = 1000 // several chunks
	tc := populated(t, clients)
	f := tc.replicas["n1"]
	for range 3 {
		want := f.Hash()
		first := f.Snapshot()
		tc.batch("n1", connect("c00500", 60)) // changes before the write begins
		wantSecond := f.Hash()
		second := f.Snapshot()
		r, w := io.Pipe()
		var wg sync.WaitGroup
		wg.Add(2)
		go func() {
			defer wg.Done()
			_, err := first.WriteTo(w)
			w.CloseWithError(err)
		}()
		var written bytes.Buffer
		go func() { // reads bit by bit, so that changes fall in between
			defer wg.Done()
			buf := make([]byte, 4096)
			for {
				n, err := r.Read(buf)
				written.Write(buf[:n])
				if err != nil {
					return
				}
			}
		}()
		for i := 0; i < clients; i += 7 {
			id := fmt.Sprintf("c%05d", clients-1-i)
			switch i % 3 {
			case 0:
				tc.batch("n1", connect(id, 60))
			case 1:
				tc.batch("n1", &fsmpb.Command{Op: &fsmpb.Command_DeleteSession{DeleteSession: &fsmpb.DeleteSession{ClientId: id}}})
			default:
				tc.batch("n1", &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{Topic: "t/1", Payload: []byte(id), Qos: 1}}})
			}
		}
		wg.Wait()
		for _, c := range []struct {
			snapshot *Snapshot
			stream   []byte
			want     [32]byte
		}{{first, written.Bytes(), want}, {second, nil, wantSecond}} {
			if c.stream == nil {
				var b bytes.Buffer
				if _, err := c.snapshot.WriteTo(&b); err != nil {
					t.Fatal(err)
				}
				c.stream = b.Bytes()
			}
			other := New("n1")
			if err := other.Restore(bytes.NewReader(c.stream)); err != nil {
				t.Fatal(err)
			}
			if other.Hash() != c.want || other.Applied() != c.snapshot.Index() {
				t.Fatal("the snapshot is not the state at its index")
			}
			checkState(t, other)
			c.snapshot.Release()
			c.snapshot.Release()
		}
		if len(f.snapshots) != 0 {
			t.Fatal("snapshots are kept")
		}
		checkState(t, f)
	}
}

// TestBadSnapshots: what is cut, changed or newer is refused.
func TestBadSnapshots(t *testing.T) {
	tc := populated(t, 10)
	f := tc.replicas["n1"]
	s := f.Snapshot()
	defer s.Release()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	good := b.Bytes()
	for n := 0; n < len(good); n += 1 + len(good)/200 {
		if err := New("n1").Restore(bytes.NewReader(good[:n])); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d of %d: %v", n, len(good), err)
		}
		flipped := bytes.Clone(good)
		flipped[n] ^= 4
		if err := New("n1").Restore(bytes.NewReader(flipped)); err == nil {
			t.Fatalf("byte %d of %d flipped: not noticed", n, len(good))
		}
	}
	newer := bytes.Clone(good)
	newer[len(snapshotMagic)] = snapshotVersion + 1
	if err := New("n1").Restore(bytes.NewReader(newer)); !errors.Is(err, ErrNewer) {
		t.Fatalf("newer: %v", err)
	}
	other := New("n1")
	generation := other.RouteGeneration()
	if err := other.Restore(bytes.NewReader(append(bytes.Clone(good), "rest"...))); err != nil {
		t.Fatalf("what follows is not ours: %v", err)
	}
	if other.RouteGeneration() == generation {
		t.Error("routes were kept")
	}
	failing := f.Snapshot()
	defer failing.Release()
	if _, err := failing.WriteTo(failWriter{}); err == nil {
		t.Error("a failed write was not reported")
	}
}

type failWriter struct{}

func (failWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestReadsWhileApplying is for the race detector.
func TestReadsWhileApplying(t *testing.T) {
	tc := populated(t, 50)
	f := tc.replicas["n1"]
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, read := range []func(){
		func() { f.Route("t/1"); f.RouteGeneration() },
		func() { f.Counts(); f.Members(); f.NextDue(); f.NeedsReap() },
		func() { f.Retained("t/#", func(*Message) bool { return true }) },
		func() {
			if v, ok := f.View("c00001"); ok {
				for i := range v.Queue {
					_ = v.Queue[i].Message.Topic
				}
				_ = append(v.Queue, Entry{})
				_ = append(v.Inbound, 1)
			}
		},
		func() {
			f.Sessions("", func(SessionInfo) bool { return true })
			f.CleanClients("", func(SessionInfo) bool { return true })
			f.Subscriptions("c0002", func(string, Subscription) bool { return true })
		},
		func() {
			f.ClientEpoch("c00001")
			f.Live("n1")
			f.Incarnation("n1", 1)
			f.NextSequence(NodeRef{"n1", 1})
			f.Now()
		},
	} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-stop:
					return
				default:
					read()
				}
			}
		}()
	}
	for i := range 300 {
		id := fmt.Sprintf("c%05d", i%50)
		epoch := tc.epoch(id)
		v, _ := f.View(id)
		tc.batch("n1", &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{ClientId: id, Epoch: epoch, Topic: "t/1", Payload: []byte("x"), Qos: 2, PacketId: uint32(i + 1)}}},
			&fsmpb.Command{Op: &fsmpb.Command_Progress{Progress: &fsmpb.Progress{ClientId: id, Epoch: epoch, Cursor: v.Last}}},
			&fsmpb.Command{Op: &fsmpb.Command_Release{Release: &fsmpb.Release{ClientId: id, Epoch: epoch, PacketId: uint32(i + 1)}}},
			connect(id, 60))
	}
	close(stop)
	wg.Wait()
	checkState(t, f)
}
