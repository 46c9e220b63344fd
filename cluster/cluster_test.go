package cluster

import (
	"testing"
	"time"
)

// TestSingle: a node alone is a whole cluster, at once.
func TestSingle(t *testing.T) {
	begin := time.Now()
	w := newWorld(t, 1, "node1")
	w.serving("node1")
	t.Logf("in service after %s", time.Since(begin))
	n := w.nodes["node1"]
	r := n.propose("a")
	n.barrier(r.Index)
	first := n.Self()
	n.close()
	begin = time.Now()
	n.start()
	w.serving("node1")
	t.Logf("again after %s", time.Since(begin))
	if again := n.Self(); again.Incarnation <= first.Incarnation {
		t.Errorf("incarnation %d after %d", again.Incarnation, first.Incarnation)
	}
	if n.fsm.RetainedCount() != 1 {
		t.Error("the state is gone")
	}
}

// TestThree: three blank nodes found one cluster.
func TestThree(t *testing.T) {
	begin := time.Now()
	w := newWorld(t, 3, "node1", "node2", "node3")
	w.serving("node1", "node2", "node3")
	t.Logf("in service after %s", time.Since(begin))
	for _, n := range w.running() {
		r := n.propose("from/" + n.id)
		n.barrier(r.Index)
		for _, other := range w.running() {
			if other.fsm.Applied() < r.Index {
				t.Errorf("%s has applied %d, less than the barrier of %d", other.id, other.fsm.Applied(), r.Index)
			}
		}
	}
}
