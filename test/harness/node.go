package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Node is one skein process, or the place of one that is not running. It is used from one
// goroutine at a time.
type Node struct {
	ID     string
	MQTT   string // HOST:PORT, like the others
	WS     string
	HTTP   string
	Admin  string
	Peer   string
	Gossip string
	Data   string
	Log    string

	t      testing.TB
	c      *Cluster
	flags  []string
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
	status error         // how, once it has
	paused bool
}

// At is a node that the test has started by itself: clients may use it, nothing else.
func At(t testing.TB, mqtt, http string) *Node {
	return &Node{ID: "the node at " + mqtt, MQTT: mqtt, HTTP: http, t: t}
}

// Running tells whether the process is there, paused or not.
func (n *Node) Running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// NodeName stands for a node's id in the flags that all nodes of a cluster are started with.
const NodeName = "$NODE"

// Configure adds flags to those that the node is started with from now on.
func (n *Node) Configure(flags ...string) { n.flags = append(slices.Clone(n.flags), flags...) }

// Start launches the process and returns at once.
func (n *Node) Start() {
	n.t.Helper()
	if n.Running() {
		n.t.Fatalf("%s is running", n.ID)
	}
	log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	args := []string{
		"run", "--node-id", n.ID, "--data", n.Data, "--listen", "tcp://" + n.MQTT, "--listen", "ws://" + n.WS,
		"--http", n.HTTP, "--admin", n.Admin, "--peer", n.Peer, "--gossip", n.Gossip,
		"--bootstrap-expect", fmt.Sprint(n.c.expect),
	}
	if join := n.c.gossipOfOthers(n); join != "" {
		args = append(args, "--join", join)
	}
	for _, f := range n.flags {
		args = append(args, strings.ReplaceAll(f, NodeName, n.ID))
	}
	cmd := exec.Command(Binary(n.t), args...)
	cmd.Env = Environment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		n.t.Fatalf("start %s: %v", n.ID, err)
	}
	exited := make(chan struct{})
	n.cmd, n.exited, n.paused = cmd, exited, false
	go func() { // ends with the process, which the cluster's clean-up kills and waits for
		n.status = cmd.Wait()
		close(exited)
	}()
}

// Environment is the test's own without what would configure a node.
func Environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SKEIN_") {
			env = append(env, v)
		}
	}
	return env
}

// Kill is SIGKILL; it returns when the process is gone.
func (n *Node) Kill() {
	n.t.Helper()
	if !n.Running() {
		return
	}
	n.signal(syscall.SIGKILL)
	<-n.exited
}

// Stop is SIGTERM; it returns when the process has ended, which it must do well.
func (n *Node) Stop() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(20 * time.Second):
		n.t.Fatalf("%s does not end after SIGTERM", n.ID)
	}
	if n.status != nil {
		n.t.Fatalf("%s ended after SIGTERM: %v", n.ID, n.status)
	}
}

// Pause is SIGSTOP, Resume SIGCONT. It returns when nothing of the process runs any more, which on a
// busy machine is a while after the signal.
func (n *Node) Pause() {
	n.t.Helper()
	n.signal(syscall.SIGSTOP)
	n.paused = true
	n.await("stopped", func() bool { return stopped(n.cmd.Process.Pid) })
}

// Resume lets a paused process go on.
func (n *Node) Resume() {
	n.t.Helper()
	n.signal(syscall.SIGCONT)
	n.paused = false
}

func (n *Node) signal(s syscall.Signal) {
	n.t.Helper()
	if !n.Running() {
		n.t.Fatalf("%s is not running", n.ID)
	}
	if err := n.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.t.Fatalf("signal %s: %v", n.ID, err)
	}
}

// Wipe removes the data of a node that does not run.
func (n *Node) Wipe() {
	n.t.Helper()
	if n.Running() {
		n.t.Fatalf("%s is running", n.ID)
	}
	if err := os.RemoveAll(n.Data); err != nil {
		n.t.Fatal(err)
	}
}

// Ready is the status of /readyz, 0 when nobody answers.
func (n *Node) Ready() int {
	status, _ := n.Readiness()
	return status
}

// Readiness is what /readyz answers: its status, 0 when nobody answers, and the reason.
func (n *Node) Readiness() (status int, reason string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	status, reason, _ = n.get(ctx, "/readyz")
	return status, strings.TrimSpace(reason)
}

// Metrics is what /metrics says.
func (n *Node) Metrics() string {
	n.t.Helper()
	_, body, err := n.get(n.t.Context(), "/metrics")
	if err != nil {
		n.t.Fatalf("metrics of %s: %v", n.ID, err)
	}
	return body
}

// Metric is the value of one line of /metrics, NAME or NAME{label="value"}.
func (n *Node) Metric(name string) float64 {
	n.t.Helper()
	for line := range strings.Lines(n.Metrics()) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" ")
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			n.t.Fatalf("metric %s of %s: %v", name, n.ID, err)
		}
		return v
	}
	n.t.Fatalf("%s has no metric %s", n.ID, name)
	return 0
}

func (n *Node) get(ctx context.Context, path string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.HTTP+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

// WaitReady returns when the node takes clients.
func (n *Node) WaitReady() {
	n.t.Helper()
	n.await("ready", func() bool { return n.Ready() == http.StatusOK })
}

// WaitUnready returns when the node sends clients elsewhere.
func (n *Node) WaitUnready() {
	n.t.Helper()
	n.await("unready", func() bool { s := n.Ready(); return s != http.StatusOK && s != 0 })
}

func (n *Node) await(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if !n.Running() {
			n.t.Fatalf("%s ended before it was %s: %v", n.ID, what, n.status)
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s is not %s in time", n.ID, what)
		}
	}
}

// Skein runs a command of the binary against this node and returns what it prints.
func (n *Node) Skein(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(n.t), append(args, "--server", n.Admin)...)
	cmd.Env = Environment()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// tail is the end of the node's log.
func (n *Node) tail(lines int) string {
	b, err := os.ReadFile(n.Log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (n *Node) logTail() { n.t.Logf("the log of %s ends:\n%s", n.ID, n.tail(60)) }

// end is the clean-up: whatever state the process is in.
func (n *Node) end() {
	if n.Running() {
		_ = n.cmd.Process.Kill() // a stopped process dies of it, too
		<-n.exited
	}
	if !n.t.Failed() {
		return
	}
	n.logTail()
	if dir := os.Getenv("TEST_SKEIN_LOGS"); dir != "" {
		name := strings.NewReplacer("/", "_", " ", "_").Replace(n.t.Name()) + "." + n.ID + ".log"
		if b, err := os.ReadFile(n.Log); err == nil {
			_ = os.MkdirAll(dir, 0o755)
			_ = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
	}
}
