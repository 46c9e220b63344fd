package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/cluster/replica"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// newChecked is a cluster of three whose nodes compare their states often.
func newChecked(t *testing.T) *world {
	w := newWorld(t, 3)
	w.check = 50 * time.Millisecond
	for _, id := range []string{"node1", "node2", "node3"} {
		w.add(id)
	}
	w.serving("node1", "node2", "node3")
	return w
}

// diverge has a replica apply something that nobody else has: the entry of that index will not count there.
func (n *node) diverge() {
	entry := fsm.EncodeSystem(nil, n.fsm.Now(), &fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: "stray", Nonce: 1, Features: 9}}})
	for before := n.fsm.Applied(); ; before = n.fsm.Applied() {
		if _, err := n.fsm.Apply(before+1, 1, entry); err != nil {
			n.w.t.Fatal(err)
		}
		for _, m := range n.fsm.Members() {
			if m.ID == "stray" {
				return
			}
		}
	}
}

// busy proposes until something has come true: time passes in the log.
func (w *world) busy(n *node, what string, ok func() bool) {
	w.t.Helper()
	w.until(what, func() bool {
		if self := n.Self(); self.Incarnation != 0 {
			n.propose("busy")
		}
		return ok()
	})
}

// told tells whether the leader has compared all three at some index.
func (w *world) told() bool {
	for _, n := range w.running() {
		n.checks.mu.Lock()
		for _, by := range n.checks.told {
			if len(by) == 3 {
				n.checks.mu.Unlock()
				return true
			}
		}
		n.checks.mu.Unlock()
	}
	return false
}

// TestQuarantine: a replica that is not what the others are stops serving, says why, also after a restart, and comes
// back with a new data folder.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		who  func(w *world) *node
	}{
		{"a follower", (*world).follower},
		{"the leader", (*world).leader},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newChecked(t)
			w.busy(w.nodes["node1"], "a comparison of all", w.told)
			for _, n := range w.running() {
				if why := n.Quarantined(); why != "" {
					t.Fatalf("%s, whose state is as the others': %s", n.id, why)
				}
			}
			bad := test.who(w)
			var good *node
			for _, n := range w.running() {
				if n != bad {
					good = n
				}
			}
			bad.diverge()
			w.busy(good, "the quarantine", func() bool { return bad.Quarantined() != "" })
			w.until("the end of its service", func() bool {
				in, why := bad.InService()
				events := bad.rec.seen()
				return !in && strings.Contains(why, "quarantined") && events[len(events)-1] == "ended" && !bad.Leased()
			})
			w.busy(good, "another leader", func() bool {
				l := w.leader()
				return l != bad && l.Quarantined() == ""
			})
			good.barrier(good.propose("without it").Index) // nobody waits for it
			bad.close()
			_, err := Open(t.Context(), w.config(bad), fsm.New(bad.id), &recorder{})
			if !errors.Is(err, ErrQuarantined) || !strings.Contains(err.Error(), filepath.Join(bad.dir, quarantineFile)) {
				t.Errorf("started again: %v", err)
			}
			if err := os.RemoveAll(bad.dir); err != nil {
				t.Fatal(err)
			}
			bad.start()
			w.serving(bad.id)
			if in, _ := good.InService(); !in || good.Quarantined() != "" {
				t.Error("a sound node is out of service")
			}
		})
	}
}

// TestNewerBinaryIsNotCompared: in the middle of an upgrade a replica may be written differently and yet be the
// same.
func TestNewerBinaryIsNotCompared(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	w.check, w.newer = 50*time.Millisecond, "node3"
	for _, id := range []string{"node1", "node2", "node3"} {
		w.add(id)
	}
	w.serving("node1", "node2", "node3")
	newer := w.nodes["node3"]
	newer.diverge()
	from := newer.fsm.Applied()
	w.busy(w.nodes["node1"], "a comparison of the other two", func() bool {
		for _, n := range w.running() {
			n.checks.mu.Lock()
			for index, by := range n.checks.told {
				if by[serverID(newer.id, newer.folder.store)] != nil {
					t.Errorf("%s told its digest of entry %d", newer.id, index)
				}
				if index > from && len(by) == 2 {
					n.checks.mu.Unlock()
					return true
				}
			}
			n.checks.mu.Unlock()
		}
		return false
	})
	if why := newer.Quarantined(); why != "" {
		t.Error(why)
	}
}

// TestTell: who is judged by whom.
func TestTell(t *testing.T) {
	a, b, c := []byte("a-digest"), []byte("b-digest"), []byte("c-digest")
	three := []replica.Server{{ID: "1", Voter: true}, {ID: "2", Voter: true}, {ID: "3", Voter: true}, {ID: "4"}}
	var k checks
	step := func(id string, index uint64, hash []byte, want clusterpb.CheckReply_Verdict, split bool) {
		t.Helper()
		got, s := k.tell(id, index, hash, three)
		if got != want || (s != "") != split {
			t.Errorf("%s at %d: %v %q", id, index, got, s)
		}
	}
	step("1", 10, a, clusterpb.CheckReply_UNKNOWN, false)
	step("4", 10, b, clusterpb.CheckReply_UNKNOWN, false) // has no say
	step("2", 10, b, clusterpb.CheckReply_UNKNOWN, false)
	step("3", 10, a, clusterpb.CheckReply_EQUAL, false)
	step("2", 10, b, clusterpb.CheckReply_DIFFERS, false)
	step("4", 10, b, clusterpb.CheckReply_DIFFERS, false)
	step("1", 10, a, clusterpb.CheckReply_EQUAL, false)
	step("2", 15, b, clusterpb.CheckReply_DIFFERS, false) // it has not been told yet
	k = checks{}
	step("1", 20, a, clusterpb.CheckReply_UNKNOWN, false)
	step("2", 20, b, clusterpb.CheckReply_UNKNOWN, false)
	step("3", 20, c, clusterpb.CheckReply_UNKNOWN, true)
	step("1", 20, a, clusterpb.CheckReply_UNKNOWN, false) // it was said
	for index := uint64(30); index < 100; index += 10 {
		step("1", index, a, clusterpb.CheckReply_UNKNOWN, false)
	}
	step("2", 10, bytes.Clone(a), clusterpb.CheckReply_UNKNOWN, false) // forgotten
	if len(k.told) > checksKept {
		t.Errorf("%d indexes are kept", len(k.told))
	}
}
