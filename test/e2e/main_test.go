package e2e

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

func TestMain(m *testing.M) { h.Main(m) }

// heavy is n, or more in a long run.
func heavy(quick, long int) int {
	if os.Getenv("TEST_SKEIN_HEAVY") != "" {
		return long
	}
	return quick
}

// beside lets a test run beside others, unless they are long and heavy.
func beside(t *testing.T) {
	if heavy(0, 1) == 0 {
		t.Parallel()
	}
}

// flags of all clusters: queues without a limit, so that a count is a count.
var flags = append([]string{"--set", "mqtt.max_queued_messages=0", "--set", "mqtt.max_queued_bytes=0"}, patience()...)

// patience of the nodes with each other. Long tests keep a machine busy with more than its nodes, and
// a node that gets no processor for half a second is rightly taken for dead, with its clean sessions.
func patience() (flags []string) {
	if heavy(0, 1) == 0 {
		return nil
	}
	for _, f := range []string{"lease=2s", "raft_heartbeat=2s", "raft_election=2s", "raft_lease=1500ms", "grace=6s"} {
		flags = append(flags, "--set", "cluster."+f)
	}
	return flags
}

// quiet is how long a test waits to see that nothing more comes.
const quiet = 300 * time.Millisecond

func payloads(count int) []string {
	out := make([]string, count)
	for i := range out {
		out[i] = fmt.Sprintf("%05d", i)
	}
	return out
}

func version(v byte) string { return map[byte]string{h.V31: "3.1", h.V311: "3.1.1", h.V5: "5.0"}[v] }

// clean connects a clean client to a node.
func clean(t testing.TB, n *h.Node, id string, v byte) *h.Session {
	t.Helper()
	s := h.NewSession(t, id, v)
	s.Clean = true
	s.Connect(n)
	return s
}

// stored connects a persistent session to a node.
func stored(t testing.TB, n *h.Node, id string, v byte) *h.Session {
	t.Helper()
	s := h.NewSession(t, id, v)
	s.Connect(n)
	return s
}

// publishAll sends all payloads and waits for their acknowledgements.
func publishAll(t testing.TB, s *h.Session, topic string, qos byte, list []string) {
	t.Helper()
	for _, p := range list {
		if err := s.Publish(topic, p, qos); err != nil {
			t.Fatalf("publish %q at QoS %d: %v", p, qos, err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatalf("acknowledgements at QoS %d: %v, %d are missing", qos, err, s.InFlight())
	}
}

// same wants exactly these messages in this order.
func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("%s: %d messages, want %d; they differ from number %d on: got %.5q, want %.5q",
		what, len(got), len(want), at, got[at:min(len(got), at+5)], want[at:min(len(want), at+5)])
}

// firsts are the first occurrences: what is left of a redelivered QoS 1 stream.
func firsts(list []string) []string {
	seen := make(map[string]bool)
	var out []string
	for _, p := range list {
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}
