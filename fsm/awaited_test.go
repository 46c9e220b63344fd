package fsm

import (
	"testing"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// Each subscription may be awaited, also one that changes no route because its node has others of that filter.
func TestAwaited(t *testing.T) {
	tc := newTestCluster(t, "n1", "n2")
	tc.up("n1")
	f := tc.replicas["n2"]
	interest := func(count uint32) *fsmpb.Command {
		return &fsmpb.Command{Op: &fsmpb.Command_Interest{Interest: &fsmpb.Interest{Filter: "a", Count: count}}}
	}
	tc.batch("n1", connect("s1", 60), connect("s2", 60))
	for _, step := range []struct {
		name           string
		cmd            *fsmpb.Command
		route, awaited bool
	}{
		{"the first of its filter", subscribe("s1", Epoch(tc.epoch("s1")), "a"), true, true},
		{"the second", subscribe("s2", Epoch(tc.epoch("s2")), "a"), false, true},
		{"again", subscribe("s2", Epoch(tc.epoch("s2")), "a"), false, true},
		{"a clean one", interest(1), false, true},
		{"a publish", &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{Topic: "a", Qos: 1}}}, false, false},
	} {
		route, awaited := f.RouteGeneration(), f.AwaitedGeneration()
		tc.batch("n1", step.cmd)
		if got := f.RouteGeneration() != route; got != step.route {
			t.Errorf("%s: the routes changed: %v", step.name, got)
		}
		if got := f.AwaitedGeneration() != awaited; got != step.awaited {
			t.Errorf("%s: it may be awaited: %v", step.name, got)
		}
	}
}
