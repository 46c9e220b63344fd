package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/cluster"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// idle is a node that does nothing with what it is told.
type idle struct{}

func (idle) Apply([]fsm.Effect)                                       {}
func (idle) Deliver(fsm.NodeRef, *clusterpb.Frame) clusterpb.LinkCode { return clusterpb.LinkTaken }
func (idle) Serving(fsm.NodeRef)                                      {}
func (idle) Ended(fsm.NodeRef)                                        {}
func (idle) LeaseLost(bool)                                           {}
func (idle) LeaseBack()                                               {}

// TestRecover: it looks without changing anything, asks before it does, and refuses what is no stopped node's.
func TestRecover(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	start := func() *cluster.Cluster {
		t.Helper()
		c, err := cluster.Open(t.Context(), cluster.Config{NodeID: "n1", DataDir: dir, PeerBind: "127.0.0.1:0", BootstrapExpect: 1}, fsm.New("n1"), idle{})
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			if in, why := c.InService(); in {
				return c
			} else if time.Now().After(deadline) {
				t.Fatal(why)
			}
		}
	}
	recovers := func(answer string, args ...string) (string, error) {
		var out strings.Builder
		root := newRoot(&Env{Out: &out, Err: &out})
		root.SetIn(strings.NewReader(answer))
		root.SetArgs(append([]string{"recover", "--data", dir}, args...))
		err := root.Execute()
		return out.String(), err
	}
	if _, err := recovers(""); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("no data folder: %v", err)
	}
	c := start()
	if err := os.WriteFile(filepath.Join(dir, "node-id"), []byte("n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := recovers("n1\n", "--force-new-cluster"); err == nil || !strings.Contains(err.Error(), "stop the node first") {
		t.Errorf("a node that runs: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "store-id"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := recovers(""); err != nil || !strings.Contains(out, "0 sessions with 0 queued") || !strings.Contains(out, "Nodes of its cluster: n1.") {
		t.Errorf("a look: %v\n%s", err, out)
	}
	for _, answer := range []string{"", "\n", "yes\n"} {
		if out, err := recovers(answer, "--force-new-cluster"); err == nil || !strings.Contains(err.Error(), "nothing was changed") || !strings.Contains(out, "Lost is whatever") {
			t.Errorf("answer %q: %v\n%s", answer, err, out)
		}
	}
	if _, err := recovers("", "--yes"); err == nil {
		t.Error("--yes alone")
	}
	if after, err := os.ReadFile(filepath.Join(dir, "store-id")); err != nil || string(after) != string(before) {
		t.Errorf("it was changed without a yes: %v", err)
	}
	if out, err := recovers("n1\n", "--force-new-cluster"); err != nil || !strings.Contains(out, "Start it as before") {
		t.Errorf("%v\n%s", err, out)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "store-id")); err != nil || string(after) == string(before) {
		t.Errorf("it has its old identity: %v", err)
	}
	c = start()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
