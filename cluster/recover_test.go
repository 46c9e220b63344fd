package cluster

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/skein-mqtt/skein/fsm"
)

// TestRecover: two of three are lost; a new cluster is founded from the third, which has all that was committed;
// an old one that comes back is refused, and joins with an empty folder.
func TestRecover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	survivor, lost := w.nodes["node2"], w.nodes["node1"]
	index := survivor.propose("kept").Index
	survivor.barrier(index)
	if _, err := OpenRecovery(survivor.dir, "node2"); !errors.Is(err, ErrLocked) {
		t.Errorf("of a running node: %v", err)
	}
	if _, err := OpenRecovery(t.TempDir(), "node2"); err == nil {
		t.Error("an empty folder is taken for a node's")
	}
	for _, n := range w.running() {
		n.close()
	}
	look := func() *Recovery {
		t.Helper()
		r, err := OpenRecovery(survivor.dir, "node2")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := look()
	state, last, term := r.Survey()
	if last < index || term == 0 || state.RetainedCount() != 1 {
		t.Errorf("the survey: index %d, term %d, %d retained", last, term, state.RetainedCount())
	}
	var names []string
	for _, m := range r.Members() {
		names = append(names, m.ID+" "+string(m.Role))
	}
	slices.Sort(names)
	if want := []string{"node1 follower", "node2 follower", "node3 follower"}; !slices.Equal(names, want) {
		t.Errorf("members %v", names)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	// Interrupted after the log was written: it does not start, and can be done again.
	r = look()
	if err := r.Force(); err != nil {
		t.Fatal(err)
	}
	if err := r.folder.write(recoveringFile, "0123456789abcdef"); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), w.config(survivor), fsm.New("node2"), &recorder{}); !errors.Is(err, ErrRecovering) {
		t.Errorf("in the middle of a recovery: %v", err)
	}
	r = look()
	if err := errors.Join(r.Force(), r.Close()); err != nil {
		t.Fatal(err)
	}

	survivor.start()
	w.serving("node2")
	if !survivor.has("kept") {
		t.Error("what was committed is gone")
	}
	survivor.barrier(survivor.propose("after").Index)
	if id := survivor.identity.Get(); id != "0123456789abcdef" {
		t.Errorf("identity %s", id)
	}
	lost.start() // it would have a majority with node3, which is away
	w.until("the old members are forgotten", func() bool { return len(survivor.fsm.Members()) == 1 })
	if servers, err := survivor.log.Servers(); err != nil || len(servers) != 1 {
		t.Errorf("members %v %v", servers, err)
	}
	if in, _ := lost.InService(); in || lost.has("after") {
		t.Error("a node of the old cluster serves")
	}
	lost.close()
	if err := os.RemoveAll(lost.dir); err != nil {
		t.Fatal(err)
	}
	lost.start()
	w.serving("node1")
	if !lost.has("kept") || !lost.has("after") {
		t.Error("who joins anew lacks something")
	}
}
