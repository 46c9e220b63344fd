package e2e

import (
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// TestClusterInOperation runs on one cluster, healed between its parts.
func TestClusterInOperation(t *testing.T) {
	if testing.Short() {
		t.Skip("not in a short run")
	}
	beside(t)
	c := h.Start(t, 3, flags...)
	parts(t, c, []part{
		{"rolling restart", testRolling},
		{"fourth node", testFourth},
		{"shared", testShared},
		{"shared killed", testSharedKilled},
		{"shared handed on", testSharedHandedOn},
		{"crowd taken over", testCrowdTakenOver},
		{"fight", testFight},
		{"wills taken over", testWillsTakenOver},
		{"burst", testBurst},
		{"slow reader", testSlowReader},
	})
}
