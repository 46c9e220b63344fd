package fsm

import (
	"fmt"
	"testing"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

func publish(topic, payload string, qos uint32) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{Topic: topic, Payload: []byte(payload), Qos: qos}}}
}

// TestHardCap: an owner that never reports progress does not fill the memory of all nodes.
func TestHardCap(t *testing.T) {
	tc := newTestCluster(t, "n1")
	tc.quiet = true
	tc.up("n1")
	tc.batch("n1", &fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: &fsmpb.Connect{
		ClientId: "a", Persistent: true, Expiry: 60, Limits: &fsmpb.Limits{MaxQueue: 10, Span: 100},
	}}})
	tc.batch("n1", subscribe("a", Epoch(tc.epoch("a")), "t"))
	const limit = 10 + 10000 + 100
	dropped := 0
	for range 11 {
		var cmds []*fsmpb.Command
		for range 1000 {
			cmds = append(cmds, publish("t", "x", 1))
		}
		tc.batch("n1", cmds...)
		for _, e := range tc.effects["n1"] {
			if e.Kind == EffectDropped && e.Reason == ReasonQueueFull {
				dropped += e.N
			}
		}
	}
	v, _ := tc.replicas["n1"].View("a")
	if len(v.Queue) != limit || dropped != 11000-limit || v.Last != limit {
		t.Fatalf("%d queued, %d dropped, last %d", len(v.Queue), dropped, v.Last)
	}
	// The cursor makes room, and a view taken before stays what it was.
	tc.batch("n1", &fsmpb.Command{Op: &fsmpb.Command_Progress{Progress: &fsmpb.Progress{ClientId: "a", Epoch: tc.epoch("a"), Cursor: 9000}}})
	tc.batch("n1", publish("t", "y", 1))
	if v.Queue[0].Seq != 1 || v.Queue[limit-1].Seq != limit {
		t.Fatal("the view was written")
	}
	v, _ = tc.replicas["n1"].View("a")
	if len(v.Queue) != limit-9000+1 || v.Cursor != 9000 {
		t.Fatalf("%d queued, cursor %d", len(v.Queue), v.Cursor)
	}
	checkState(t, tc.replicas["n1"])
}

// TestManySubscriptions: a client with so many that it finds them by a map.
func TestManySubscriptions(t *testing.T) {
	tc := newTestCluster(t, "n1", "n2")
	tc.up("n1")
	tc.batch("n1", connect("a", 60))
	s := &fsmpb.Subscribe{ClientId: "a", Epoch: tc.epoch("a")}
	u := &fsmpb.Unsubscribe{ClientId: "a", Epoch: tc.epoch("a")}
	for i := range 100 {
		one := &fsmpb.Subscription{Filter: fmt.Sprintf("t/%d/+", i), Qos: uint32(i % 3)}
		if i%10 == 0 {
			one.Group = "g"
		}
		s.Subscriptions = append(s.Subscriptions, one)
		if i%3 != 0 {
			u.Subscriptions = append(u.Subscriptions, one)
		}
	}
	tc.batch("n1", &fsmpb.Command{Op: &fsmpb.Command_Subscribe{Subscribe: s}})
	r := tc.batch("n1", &fsmpb.Command{Op: &fsmpb.Command_Subscribe{Subscribe: s}})
	for i, existed := range r[0].Existed {
		if !existed {
			t.Fatalf("%d did not exist", i)
		}
	}
	r = tc.batch("n1", &fsmpb.Command{Op: &fsmpb.Command_Unsubscribe{Unsubscribe: u}}, &fsmpb.Command{Op: &fsmpb.Command_Unsubscribe{Unsubscribe: u}})
	for i := range u.Subscriptions {
		if !r[0].Existed[i] || r[1].Existed[i] {
			t.Fatalf("%d: %v then %v", i, r[0].Existed[i], r[1].Existed[i])
		}
	}
	if n := tc.replicas["n2"].Counts().Subscriptions; n != 100-len(u.Subscriptions) {
		t.Fatalf("%d left", n)
	}
}

func TestMembers(t *testing.T) {
	f := New("n1")
	if _, ok := f.Live("n1"); ok || f.FeatureLevel() != 0 || f.NextSequence(NodeRef{"n1", 1}) != 0 {
		t.Fatal("nobody is there")
	}
	apply := func(index, term uint64, s *fsmpb.System) {
		if _, err := f.Apply(index, term, EncodeSystem(nil, int64(index)*1000, s)); err != nil {
			t.Fatal(err)
		}
	}
	for i, features := range []uint32{3, 2} {
		apply(uint64(i+1), 1, &fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{
			Node: fmt.Sprintf("n%d", i+1), Nonce: 7, PeerAddr: "p", MqttAddr: "m", AdminAddr: "a", HttpAddr: "h",
			Version: "v", Features: features, StoreId: "s",
		}}})
	}
	if ref, ok := f.Live("n2"); !ok || ref.Incarnation != 2 {
		t.Fatalf("live: %v %v", ref, ok)
	}
	if n, ok := f.Incarnation("n2", 7); !ok || n != 2 {
		t.Fatalf("incarnation %d %v", n, ok)
	}
	if _, ok := f.Incarnation("n2", 8); ok {
		t.Fatal("another nonce")
	}
	if f.FeatureLevel() != 2 {
		t.Fatalf("level %d", f.FeatureLevel())
	}
	kept := f.Members()
	apply(3, 5, &fsmpb.System{Op: &fsmpb.System_NodeDown{NodeDown: &fsmpb.NodeDown{Node: "n2", Incarnation: 2, Term: 5, Reason: "silent"}}})
	want := Member{
		ID: "n2", Incarnation: 2, Nonce: 7, StoreID: "s", PeerAddr: "p", MQTTAddr: "m", AdminAddr: "a",
		HTTPAddr: "h", Version: "v", Features: 2, Since: 3000, DownReason: "silent",
	}
	if got := f.Members()[1]; got != want {
		t.Fatalf("%+v", got)
	}
	if !kept[1].Live {
		t.Fatal("an answer was changed afterwards")
	}
	if ref, ok := f.NeedsReap(); !ok || ref != (NodeRef{"n2", 2}) {
		t.Fatalf("needs reap: %v %v", ref, ok)
	}
	apply(4, 5, &fsmpb.System{Op: &fsmpb.System_Reap{Reap: &fsmpb.Reap{Node: "n2", Incarnation: 2}}})
	apply(5, 5, &fsmpb.System{Op: &fsmpb.System_NodeRemoved{NodeRemoved: &fsmpb.NodeRemoved{Node: "n2"}}})
	if _, ok := f.NeedsReap(); ok || len(f.Members()) != 1 || f.FeatureLevel() != 3 {
		t.Fatal("n2 is still there")
	}
}

func TestPacketID(t *testing.T) {
	for seq, want := range map[uint64]uint16{1: 1, 2: 2, 65535: 65535, 65536: 1, 131070: 65535, 131071: 1} {
		if got := PacketID(seq); got != want {
			t.Errorf("%d: %d, want %d", seq, got, want)
		}
	}
	for r := range ReasonCount {
		if r.String() == "" || r.String() == "unknown" {
			t.Errorf("reason %d has no name", r)
		}
	}
	if (ReasonCount + 3).String() != "unknown" {
		t.Error("a reason of the future")
	}
}
