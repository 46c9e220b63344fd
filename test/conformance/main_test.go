package conformance

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	h "github.com/skein-mqtt/skein/test/harness"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The transcripts wait for nodes rather than compute: more of them than cores may do so at once.
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	h.Main(m)
}

// common are the limits of all nodes, low enough to be reached by a few packets, and leases that a
// starved machine does not lose: what becomes of clients then is no matter of the protocol.
var common = []string{
	"--set", "cluster.lease=6s", "--set", "cluster.drift=1s", "--set", "cluster.grace=15s",
	"--set", "cluster.raft_heartbeat=1500ms", "--set", "cluster.raft_election=1500ms", "--set", "cluster.raft_lease=1s",
	"--set", "mqtt.receive_maximum=8", "--set", "mqtt.max_packet_size=4096", "--set", "mqtt.topic_alias_maximum=4",
	"--set", "mqtt.max_topic_levels=16", "--set", "mqtt.deny_subscribe=denied/#",
}

// limited are those of the node for testdata/limits.
var limited = append([]string{
	"--set", "mqtt.max_qos=1", "--set", "mqtt.retain_available=false", "--set", "mqtt.wildcard_available=false",
	"--set", "mqtt.shared_available=false", "--set", "mqtt.max_keepalive=60", "--set", "mqtt.session_expiry_max=100",
	"--set", "mqtt.legacy_suback=true", "--set", "mqtt.connect_timeout=300ms", "--set", "mqtt.max_topic_length=60",
	"--set", "mqtt.max_subscriptions=3",
}, queues("drop_newest")...)

// queues are the limits of the nodes whose queues fill up.
func queues(policy string) []string {
	return append([]string{
		"--set", "mqtt.queue_policy=" + policy, "--set", "mqtt.max_queued_messages=3", "--set", "mqtt.max_queued_bytes=1KiB",
		"--set", "mqtt.max_inflight=2",
	}, common...)
}

func TestTranscripts(t *testing.T) {
	for _, d := range []struct {
		name  string
		nodes int
		flags []string
		files string
	}{
		{"one", 1, common, "testdata/*.txt"},
		{"three", 3, common, "testdata/*.txt"},
		{"limits", 1, limited, "testdata/limits/*.txt"},
		{"queue_newest", 1, queues("drop_newest"), "testdata/queue_newest/*.txt"},
		{"queue_oldest", 1, queues("drop_oldest"), "testdata/queue_oldest/*.txt"},
		{"queue_disconnect", 1, queues("disconnect"), "testdata/queue_disconnect/*.txt"},
		{"connections", 1, append([]string{"--set", "mqtt.max_connections=3"}, common...), "testdata/connections/*.txt"},
	} {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			if d.nodes > 1 && rewriting() {
				t.Skip("one node has the say in what is written")
			}
			files, err := filepath.Glob(d.files)
			if err != nil || len(files) == 0 {
				t.Fatalf("no transcripts: %v", err)
			}
			nodes := h.Start(t, d.nodes, d.flags...).Nodes
			run := func(path string, parallel bool) {
				t.Run(name(path), func(t *testing.T) {
					if parallel {
						t.Parallel()
					}
					transcript(t, path, nodes)
				})
			}
			// Those that listen to everything have the nodes to themselves, before the others begin.
			for _, path := range files {
				if alone(path) {
					run(path, false)
				}
			}
			for _, path := range files {
				if !alone(path) {
					run(path, true)
				}
			}
		})
	}
}

func name(path string) string { return strings.TrimSuffix(filepath.Base(path), ".txt") }

func alone(path string) bool { return strings.HasPrefix(name(path), "alone") }

func rewriting() bool {
	f := flag.Lookup("rewrite")
	return f != nil && f.Value.String() == "true"
}

// heavy is true in a long run, which has time for long timers.
func heavy() bool { return os.Getenv("TEST_SKEIN_HEAVY") != "" }

// transcript runs one file.
func transcript(t *testing.T, path string, nodes []*h.Node) {
	if strings.HasSuffix(name(path), "heavy") && !heavy() {
		t.Skip("TEST_SKEIN_HEAVY is not set")
	}
	s := newScript(t, name(path), nodes)
	datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
		s.t, s.at = t, d.Pos
		switch d.Cmd {
		case "case":
			if len(d.CmdArgs) != 1 {
				t.Fatalf("%s: a case has one name", d.Pos)
			}
			s.begin(d.CmdArgs[0].Key)
		case "then":
		default:
			t.Fatalf("%s: neither case nor then: %s", d.Pos, d.Cmd)
		}
		for line := range strings.Lines(d.Input) {
			s.line(strings.TrimSpace(line))
		}
		return s.settle(d.Expected)
	})
	s.end()
}
