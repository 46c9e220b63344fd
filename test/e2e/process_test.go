package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// TestOneNodeInOperation runs on one node, healed between its parts.
func TestOneNodeInOperation(t *testing.T) {
	beside(t)
	c := h.Start(t, 1, flags...)
	parts(t, c, []part{
		{"strangers", testStrangers},
		{"malformed", testMalformed},
		{"locked", testLocked},
		{"SIGTERM", testSigterm},
		{"disk low", testDiskLow},
	})
}

// skein runs a command to its end, in an empty folder.
func skein(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), h.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Binary(t), args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(h.Environment(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("skein %s: %v", strings.Join(args, " "), err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// A second process on the same data folder is told whose it is; the first one does not notice.
func testLocked(t *testing.T, c *h.Cluster) {
	n := c.Node(1)
	code, _, said := skein(t, nil, "run", "--data", n.Data, "--listen", "tcp://127.0.0.1:0", "--http", "", "--admin", "",
		"--peer", "127.0.0.1:0", "--gossip", "127.0.0.1:0")
	if code != 1 || !strings.Contains(said, n.Data) || !strings.Contains(said, "in use") {
		t.Errorf("exit code %d and %q; it should be 1, and name the folder that is in use", code, said)
	}
	s := clean(t, n, "still-there", h.V5)
	s.Ping()
	s.Disconnect()
}

// SIGTERM ends a node that has clients, and nothing of them is lost.
func testSigterm(t *testing.T, c *h.Cluster) {
	n := c.Node(1)
	sub := stored(t, n, "term-sub", h.V5)
	sub.Subscribe(2, "term")
	old := stored(t, n, "term-old", h.V311)
	old.Subscribe(1, "term")
	passing := clean(t, n, "term-clean", h.V5)
	pub := clean(t, n, "term-pub", h.V5)
	list := payloads(50)
	publishAll(t, pub, "term", 2, list)
	sub.Receive(len(list))
	ended := make(chan struct{})
	go func() { // the clients hear of it while it ends
		defer close(ended)
		n.Stop()
	}()
	for _, s := range []*h.Session{sub, old, passing, pub} {
		// What a client has not acknowledged holds the node up for a while only, but it does.
		if err := s.Pump(func() bool { return false }); errors.Is(err, h.ErrQuiet) {
			t.Errorf("%s keeps its connection", s.ID)
		} else if s.Version == h.V5 && !strings.HasPrefix(err.Error(), "DISCONNECT") {
			t.Errorf("%s: %v instead of DISCONNECT", s.ID, err)
		}
	}
	<-ended
	n.Start()
	n.WaitReady()
	for _, s := range []*h.Session{sub, old} {
		s.Resume(n)
		s.Receive(len(list))
		s.Quiet(quiet)
		same(t, s.ID, s.Got, list)
		s.Disconnect()
	}
}

// A node whose disk is nearly full says so and sends clients elsewhere.
func testDiskLow(t *testing.T, c *h.Cluster) {
	n := c.Node(1)
	for _, percent := range []string{"0", "99"} { // 0: the bytes alone count; 99: that is less
		n.Stop()
		n.Configure("--set", "disk.low_bytes=1000000TiB", "--set", "disk.low_percent="+percent)
		n.Start()
		var reason string
		h.Await(t, "the node says that its disk is low", func() bool {
			var status int
			status, reason = n.Readiness()
			if status == http.StatusOK {
				t.Fatal("the node is ready")
			}
			return status == http.StatusServiceUnavailable && strings.Contains(reason, "disk")
		})
		t.Log(reason)
		if low := n.Metric("skein_disk_low"); low != 1 {
			t.Errorf("skein_disk_low is %v", low)
		}
	}
	n.Stop()
	n.Configure("--set", "disk.low_bytes=0")
	n.Start()
	n.WaitReady()
}

// What is misspelt is named, with what was probably meant.
func TestWrongUsageIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skein.yml")
	if err := os.WriteFile(file, []byte("mqtt:\n  max_qso: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		args  []string
		env   string
		names []string
	}{
		{args: []string{"rnu"}, names: []string{"rnu", "run"}},
		{args: []string{"run", "--lisen", "x"}, names: []string{"--lisen", "--listen"}},
		{args: []string{"run", "--set", "mqtt.max_qso=1"}, names: []string{"mqtt.max_qso", "mqtt.max_qos"}},
		{args: []string{"run", "--config", file}, names: []string{"skein.yml", "mqtt.max_qso", "mqtt.max_qos"}},
		{args: []string{"run"}, env: "SKEIN_MQTT_MAX_QSO=1", names: []string{"SKEIN_MQTT_MAX_QSO", "SKEIN_MQTT_MAX_QOS"}},
		{args: []string{"run", "--set", "mqtt.max_qos=3"}, names: []string{"mqtt.max_qos"}},
		{args: []string{"run", "--listen", "mqtt5://127.0.0.1:1883"}, names: []string{"mqtt5"}},
		{args: []string{"get", "nodse"}, names: []string{"nodse", "nodes"}},
	} {
		name := strings.Join(append(x.args, x.env), " ")
		code, stdout, stderr := skein(t, []string{x.env}, x.args...)
		if code != 2 || stdout != "" {
			t.Errorf("%s: exit code %d, want 2; stdout %q", name, code, stdout)
		}
		for _, n := range x.names {
			if !strings.Contains(stderr, n) {
				t.Errorf("%s: %q does not name %s", name, stderr, n)
			}
		}
	}
}

// Without any flag, in an empty folder, it is a broker.
func TestRunWithoutFlags(t *testing.T) {
	beside(t)
	for _, port := range []int{1883, 8080, 7883, 7884, 7885} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Skipf("a default port is in use: %v", err)
		}
		_ = l.Close()
	}
	cmd := exec.Command(h.Binary(t), "run")
	cmd.Dir = t.TempDir()
	cmd.Env = h.Environment()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	n := h.At(t, "127.0.0.1:1883", "127.0.0.1:8080")
	h.Await(t, "the node is ready", func() bool { return n.Ready() == http.StatusOK })
	t.Logf("ready after %v", time.Since(begin).Round(time.Millisecond))
	sub := clean(t, n, "sub", h.V5)
	sub.Subscribe(1, "a/b")
	publishAll(t, sub, "a/b", 1, []string{"hello"})
	sub.Receive(1)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if p := sub.ExpectClosed(); p == nil {
		t.Error("the client was not told that the node ends")
	}
	ended = true
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if _, err := os.Stat(filepath.Join(cmd.Dir, "skein-data")); err != nil {
		t.Error(err)
	}
}
