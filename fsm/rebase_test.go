package fsm

import (
	"bytes"
	"testing"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// The time in which nobody kept a state does not count for sessions that wait, no batch of the old nodes is
// taken any more, and what they left is cleaned up as after a death.
func TestRebase(t *testing.T) {
	tc := newTestCluster(t, "n1", "n2")
	tc.up("n1")
	tc.up("n2")
	tc.batch("n1", connect("waits", 100))
	tc.batch("n1", connect("there", 50))
	tc.batch("n1", &fsmpb.Command{Op: &fsmpb.Command_Disconnect{Disconnect: &fsmpb.Disconnect{ClientId: "waits", Epoch: tc.epoch("waits"), Clean: true}}})
	var b bytes.Buffer
	s := tc.replicas["n1"].Snapshot()
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	s.Release()
	f := New("n1")
	if err := f.Restore(bytes.NewReader(b.Bytes())); err != nil {
		t.Fatal(err)
	}
	old, _ := f.Session("waits")
	now := f.Now() + 3_600_000
	f.Rebase(now)
	if got, _ := f.Session("waits"); old.ExpiresAt == 0 || got.ExpiresAt != roundUp(old.ExpiresAt+3_600_000) {
		t.Errorf("expires at %d, before at %d", got.ExpiresAt, old.ExpiresAt)
	}
	if len(f.Members()) != 0 || f.Now() != now {
		t.Errorf("members %v, now %d", f.Members(), f.Now())
	}
	if _, live := f.Live("n1"); live {
		t.Error("a node of the old cluster is live")
	}
	g := restored(t, f)
	if g.Hash() != f.Hash() {
		t.Error("what is restored from it is something else")
	}
	for ref, ok := g.NeedsReap(); ok; ref, ok = g.NeedsReap() {
		entry := EncodeSystem(nil, now, &fsmpb.System{Op: &fsmpb.System_Reap{Reap: &fsmpb.Reap{Node: ref.Node, Incarnation: ref.Incarnation}}})
		if _, err := g.Apply(g.Applied()+1, 1, entry); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok := g.Session("there"); !ok || got.Connected || got.ExpiresAt != roundUp(now+50_000) {
		t.Errorf("%+v", got)
	}
	checkState(t, g)
}
