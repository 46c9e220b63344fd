package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

var update = flag.Bool("update", false, "write docs/operations.md")

const operations = "../../docs/operations.md"

// walk is a chapter that is written while somebody walks through a cluster.
type walk struct {
	t    *testing.T
	node *h.Node
	text strings.Builder
}

func (w *walk) say(text string) { w.text.WriteString(strings.TrimSpace(text) + "\n\n") }

// do runs commands of skein and puts down what they print.
func (w *walk) do(lines ...string) {
	w.t.Helper()
	w.text.WriteString("```console\n")
	for _, line := range lines {
		out, err := w.node.Skein(strings.Fields(line)...)
		if err != nil {
			w.t.Fatalf("%s: %v\n%s", line, err, out)
		}
		fmt.Fprintf(&w.text, "$ skein %s\n%s", line, out)
	}
	w.text.WriteString("```\n\n")
}

// varying is what differs from one walk to the next: times, places, how far the log is.
var varying = []struct{ what, instead string }{
	{`127\.0\.0\.1:\d+`, "ADDRESS"},
	{`\d\d:\d\d:\d\d\.\d{3}`, "TIME"},
	{`\d{4}-\d\d-\d\d`, "DATE"},
	{`[+-]?\d+\.\d+ ?ms`, "MS"},
	{`\b[0-9a-f]{8}\b`, "MESSAGE"},
	{`index \d+`, "INDEX"},
	{`(packet id|number) \d+`, "NUMBER"},
	{`(\d+ messages were|a message was) not delivered`, "LOST"}, // those of one second are told together
	{`\d+ bytes`, "BYTES"},
	{`\b\d+(ms|s|m|h)\b`, "AGE"},
	{`node[123]`, "NODE"}, // who leads is chance
	{`\b(leader|follower)\b`, "ROLE"},
	{`[^\n]*clients left\n`, ""}, // how often it is looked is chance
	{`[ \t]+`, " "},
}

func canonical(s string) string {
	for _, v := range varying {
		s = regexp.MustCompile(v.what).ReplaceAllString(s, v.instead)
	}
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	// What several nodes report at a time comes in any order.
	out := lines[:0]
	var steps []string
	for _, line := range append(lines, "") {
		switch {
		case strings.HasPrefix(line, "MESSAGE NODE MS held"): // a busy machine may cost a node its lease for a moment
			continue
		case strings.HasPrefix(line, "MESSAGE NODE MS"):
			steps = append(steps, line)
			continue
		case len(out) > 0 && out[len(out)-1] == line:
			continue
		}
		slices.Sort(steps)
		out = append(append(out, slices.Compact(steps)...), line)
		steps = nil
	}
	return strings.Join(out, "\n")
}

// TestOperations is the chapter on operations: a newcomer finds a slow client, learns why a message was not
// delivered, moves a node out of the way and back, and keeps a backup. -update writes it.
func TestOperations(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	beside(t)
	c := h.Start(t, 3, "--set", "mqtt.max_queued_messages=5", "--set", "mqtt.max_inflight=4")
	one, two, three := c.Node(1), c.Node(2), c.Node(3)
	w := &walk{t: t, node: one}

	turtle, ack, err := two.Connect(h.V5, h.Packet{Type: h.CONNECT, ClientID: "turtle", KeepAlive: 60, Props: []h.Property{{ID: h.SessionExpiry, Num: 3600}}})
	if err != nil || ack.Code != 0 {
		t.Fatalf("%v %v", ack, err)
	}
	turtle.Subscribe(1, "meters/#")
	away := stored(t, three, "reader", h.V5)
	away.Client.Subscribe(1, "meters/+")
	away.Disconnect()
	pump := clean(t, three, "pump", h.V5)
	publishAll(t, pump, "meters/7", 1, payloads(12))
	c.Await("the losses", func() bool {
		out, err := one.Skein("describe", "client", "turtle")
		return err == nil && strings.Contains(out, "queue_full")
	})

	w.say("# Operations\n\nA walk through a live cluster of three nodes, written down by a test (`go test ./test/e2e -run TestOperations -update`). Each command asks any of\nthe nodes; `skein --help` lists them, and `skein COMMAND --help` tells what each does.")
	w.say("## Which client is slow?\n\nThe nodes first. Then the clients, the longest queue at the top.")
	w.do("get nodes", "get clients --sort-by -queued -o jsonpath={range.items[*]}{.id}{\"\\t\"}{.inflight}{\"\\t\"}{.queued}{\"\\n\"}{end}")
	w.say("`turtle` does not acknowledge: four messages are in flight (`mqtt.max_inflight`), and its queue is full. What it lost, and when, stands in its\ndescription; events of a kind can be read, or followed with `-w`, for all clients.")
	w.do("describe client turtle", "events --kind dropped --client turtle")
	w.say("## Why did a message not arrive?\n\nWhat would become of one that is published now:")
	w.do("explain meters/7 --qos 1")
	w.say("And what becomes of those that are published, step by step on every node, with the time that each took. The first message:")
	done := make(chan string, 1)
	go func() {
		out, err := one.Skein("trace", "topic", "meters/#", "--steps", "24")
		if err != nil {
			out += err.Error()
		}
		done <- out
	}()
	for n := 0; ; n++ { // equal messages would share a name in the trace
		if err := pump.Publish("meters/7", fmt.Sprintf("%.1f", 41.5+float64(n%100)/10), 1); err != nil {
			t.Fatal(err)
		}
		if err := pump.Flush(); err != nil {
			t.Fatal(err)
		}
		select {
		case out := <-done:
			w.text.WriteString("```console\n$ skein trace topic meters/# --steps 24\n" + firstMessage(out) + "```\n\n")
		case <-time.After(500 * time.Millisecond): // the trace may not have begun
			continue
		}
		break
	}
	w.say("Neither has room for it: the session of `reader`, which is not connected, and the queue of `turtle`. Both ledgers count it.\n`skein trace client reader` follows what is on the way to that client.")
	w.say("## Moving a node out of the way, and back\n\nEvery order has a dry run. A cordoned node keeps its clients and takes no new ones; a drained one has let them go, each when it had\nacknowledged what it was sent.")
	w.do("cordon node2", "get nodes", "uncordon node2", "drain node2 --dry-run", "drain node2 --rate 100", "get nodes")
	w.say("It is stopped, maintained and started; it takes clients again at once.")
	two.Stop()
	two.Start()
	two.WaitReady()
	w.do("get nodes", "upgrade status")
	w.say("## Settings, for now\n\nSome settings can be changed while the nodes run, until they restart:")
	w.do("get settings log.level", "set log.level debug --node node2 --dry-run")
	w.say("## A backup\n\nIt holds all that was acknowledged before, at one index of the log. A cluster of any size can take it; what that has is lost, so it wants\n`--force`.")
	dir := t.TempDir()
	w.do("backup "+filepath.Join(dir, "skein.backup"), "restore "+filepath.Join(dir, "skein.backup")+" --dry-run")
	text := strings.ReplaceAll(w.text.String(), dir+"/", "")
	text = strings.ReplaceAll(text, "jsonpath={range.items[*]}", "jsonpath='{range .items[*]}")
	text = strings.ReplaceAll(text, "{\"\\n\"}{end}\n", "{\"\\n\"}{end}'\n")
	text = strings.TrimSpace(text) + "\n"
	if *update {
		if err := os.WriteFile(operations, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(operations)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := canonical(text), canonical(string(old)); got != want {
		t.Errorf("the chapter tells something else: -update writes it\n%s", firstDifference(want, got))
	}
}

// firstMessage leaves the steps of the first message that was seen from its arrival to its loss at both its receivers, and
// nothing of what is said beside them: a node may join the trace in the middle of one, or after it.
func firstMessage(out string) string {
	head, steps := "", make(map[string]string)
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(line, "skein:"):
			continue
		case name == "MESSAGE":
			head = line
			continue
		}
		steps[name] += line
		if got := steps[name]; strings.Contains(got, "   received   ") && strings.Contains(got, "   committed   ") && strings.Count(got, "   dropped   ") == 2 {
			return head + got
		}
	}
	return out
}

func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return fmt.Sprintf("line %d\nwas: %s\nis:  %s", i+1, a[i], strings.Join(b[min(i, len(b)):min(i+2, len(b))], "\n     "))
		}
	}
	return "there is more at the end"
}
