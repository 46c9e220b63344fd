package cluster

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

func connect(id string) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: &fsmpb.Connect{
		ClientId: id, Persistent: true, Expiry: 3600, Protocol: 5, Limits: &fsmpb.Limits{MaxQueue: 100, MaxQueueBytes: 1 << 20, Span: 1024},
	}}}
}

// fillState makes sessions with queues and half-finished exchanges of both directions through a node.
func (n *node) fillState() {
	sub := uint64(n.command(connect("sub")).Epoch)
	pub := uint64(n.command(connect("pub")).Epoch)
	n.command(&fsmpb.Command{Op: &fsmpb.Command_Subscribe{Subscribe: &fsmpb.Subscribe{
		ClientId: "sub", Epoch: sub, Subscriptions: []*fsmpb.Subscription{{Filter: "q/+", Qos: 2}},
	}}})
	for id := uint32(1); id <= 4; id++ {
		n.command(&fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{
			ClientId: "pub", Epoch: pub, Topic: "q/a", Payload: []byte{byte(id)}, Qos: 2, PacketId: id,
		}}})
	}
	n.command(&fsmpb.Command{Op: &fsmpb.Command_Release{Release: &fsmpb.Release{ClientId: "pub", Epoch: pub, PacketId: 1}}})
	n.command(&fsmpb.Command{Op: &fsmpb.Command_Progress{Progress: &fsmpb.Progress{ClientId: "sub", Epoch: sub, Cursor: 1, Received: []uint64{2, 2}}}})
	n.command(&fsmpb.Command{Op: &fsmpb.Command_Disconnect{Disconnect: &fsmpb.Disconnect{ClientId: "sub", Epoch: sub, Clean: true}}})
	n.propose("retained/1")
}

// backup is the state of a node, as an operator would keep it.
func (n *node) backup() []byte {
	n.w.t.Helper()
	must(n.Read(ctx(n.w.t)))
	var b bytes.Buffer
	s := n.fsm.Snapshot()
	defer s.Release()
	must(s.WriteTo(&b))
	return b.Bytes()
}

// likeBackup compares what clients would find with what the backup holds.
func (n *node) likeBackup(data []byte) {
	t := n.w.t
	t.Helper()
	old := fsm.New("old")
	if err := old.Restore(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	seen := 0
	old.Sessions("", func(i fsm.SessionInfo) bool {
		want, _ := old.View(i.ClientID)
		got, ok := n.fsm.View(i.ClientID)
		if !ok {
			t.Errorf("%s: session %s is missing", n.id, i.ClientID)
			return true
		}
		want.Mark = got.Mark // who was connected may have been sent what the window allows
		if !reflect.DeepEqual(want, got) {
			t.Errorf("%s: session %s:\n%+v\nin the backup:\n%+v", n.id, i.ClientID, got, want)
		}
		seen++
		return true
	})
	if sessions := n.fsm.Counts().Sessions; seen != sessions || seen != 2 {
		t.Errorf("%s: %d sessions, %d in the backup", n.id, sessions, seen)
	}
	if !n.has("retained/1") || n.has("mistake") || n.fsm.RetainedCount() != 1 {
		t.Errorf("%s: %d retained messages", n.id, n.fsm.RetainedCount())
	}
}

// A backup of three nodes becomes the state of one that had a longer log of its own, and the other way round;
// afterwards the cluster goes on, also over a restart, and an old epoch means nothing.
func TestRestore(t *testing.T) {
	from := newWorld(t, 3, "n1", "n2", "n3")
	from.serving("n1", "n2", "n3")
	from.nodes["n2"].fillState()
	data := from.nodes["n3"].backup()

	one := newWorld(t, 1, "n2")
	one.serving("n2")
	n := one.nodes["n2"]
	for range 60 {
		n.propose("mistake")
	}
	before := n.Self()
	if err := n.Restore(ctx(t), bytes.NewReader(data[:len(data)-9])); err == nil {
		t.Fatal("a backup that was cut was taken")
	}
	if n.Self() != before || !n.has("mistake") {
		t.Fatal("a backup that can't be read changed something")
	}
	if err := n.Restore(ctx(t), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	one.until("it serves again", func() bool { return n.Self().Incarnation > before.Incarnation })
	one.serving("n2")
	n.likeBackup(data)
	one.until("the other cluster's nodes are forgotten", func() bool { return len(n.fsm.Members()) == 1 })
	r := n.command(connect("sub"))
	if !r.Present || r.Epoch.Index() <= before.Incarnation {
		t.Errorf("%+v", r)
	}
	n.close()
	n.start()
	one.serving("n2")
	if v, ok := n.fsm.View("sub"); !ok || v.Epoch != r.Epoch || !n.has("retained/1") {
		t.Errorf("after a restart: %+v", v)
	}

	// Back into the three, which have gone on: every node takes it, and a follower can't order it.
	leader := from.leader()
	leader.propose("mistake")
	if err := from.follower().Restore(ctx(t), bytes.NewReader(data)); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a follower: %v", err)
	}
	old := from.nodes["n1"].Self()
	if err := from.lead(func(l *node) error { return l.Restore(ctx(t), bytes.NewReader(data)) }); err != nil {
		t.Fatal(err)
	}
	from.until("new incarnations", func() bool {
		for _, n := range from.running() {
			if n.Self().Incarnation <= old.Incarnation+60 && n.has("mistake") || n.Self().Incarnation == 0 {
				return false
			}
		}
		return true
	})
	from.serving("n1", "n2", "n3")
	for _, n := range from.running() {
		must(n.Read(ctx(t)))
		n.likeBackup(data)
	}
	leader = from.leader()
	index := leader.propose("after").Index
	leader.barrier(index)
	hashes := make(map[[32]byte]bool)
	from.until("the replicas are equal", func() bool {
		clear(hashes)
		for _, n := range from.running() {
			hashes[n.fsm.Hash()] = true
		}
		return len(hashes) == 1
	})
}

// A snapshot that an operator orders holds all that was applied.
func TestSnapshotOrdered(t *testing.T) {
	w := newWorld(t, 1, "n1")
	w.serving("n1")
	n := w.nodes["n1"]
	r := n.propose("a")
	if index := must(n.SnapshotLog()); index < r.Index {
		t.Errorf("a snapshot up to %d, after %d", index, r.Index)
	}
}
