package chattest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

func TestMain(m *testing.M) { h.Main(m) }

// demoStaff are the assistants of auth/acl.
const demoStaff = "ann,ben"

// stack is the chat as examples/chat/run starts it, on free ports.
type stack struct {
	*h.Cluster
	t        *testing.T
	dir      string
	staff    string // names of the assistants, separated by commas
	mqtt, ws int    // the balancer's
}

// heavy skips what takes long, unless asked for.
func heavy(t *testing.T) {
	t.Helper()
	if os.Getenv("TEST_SKEIN_HEAVY") == "" {
		t.Skip("takes longer: examples/chat/test runs it")
	}
}

func start(t *testing.T, nodes int, flags ...string) *stack {
	t.Helper()
	auth, err := filepath.Abs("../auth")
	if err != nil {
		t.Fatal(err)
	}
	flags = append([]string{
		"--set", "auth.password_file=" + auth + "/passwords", "--set", "auth.acl_file=" + auth + "/acl",
		"--set", "auth.allow_anonymous=true",
	}, flags...)
	return &stack{Cluster: h.Start(t, nodes, flags...), t: t, dir: t.TempDir(), staff: demoStaff}
}

// process starts a program that is killed with the test. Its output is shown when the test fails.
func (s *stack) process(name, program string, args ...string) *exec.Cmd {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", name, err)
	}
	s.t.Cleanup(func() {
		end(cmd)
		if s.t.Failed() {
			s.t.Logf("%s said:\n%s", name, s.log(name))
		}
	})
	return cmd
}

func (s *stack) log(name string) string {
	b, _ := os.ReadFile(filepath.Join(s.dir, name+".log"))
	return string(b)
}

// end is SIGKILL; it may be called again.
func end(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// balance starts HAProxy before the nodes.
func (s *stack) balance() {
	s.t.Helper()
	path := "/usr/sbin/haproxy"
	if p, err := exec.LookPath("haproxy"); err == nil {
		path = p
	} else if _, err := os.Stat(path); err != nil {
		s.t.Skip("there is no haproxy (apt-get install haproxy)")
	}
	s.mqtt, s.ws = h.FreePort(s.t), h.FreePort(s.t)
	var b strings.Builder
	b.WriteString("defaults\n mode tcp\n timeout connect 2s\n timeout client 1h\n timeout server 1h\n timeout check 2s\n" +
		" default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions\n")
	for name, port := range map[string]int{"mqtt": s.mqtt, "ws": s.ws} {
		fmt.Fprintf(&b, "frontend %s\n bind 127.0.0.1:%d\n default_backend %s\nbackend %s\n balance leastconn\n", name, port, name, name)
		b.WriteString(" option httpchk GET /readyz\n http-check disable-on-404\n")
		for _, n := range s.Nodes {
			address := n.MQTT
			if name == "ws" {
				address = n.WS
			}
			_, health, _ := net.SplitHostPort(n.HTTP)
			fmt.Fprintf(&b, " server %s %s check port %s\n", n.ID, address, health)
		}
	}
	config := filepath.Join(s.dir, "haproxy.cfg")
	if err := os.WriteFile(config, []byte(b.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.process("haproxy", path, "-db", "-f", config)
	for _, port := range []int{s.mqtt, s.ws} {
		s.listens(port)
	}
}

func (s *stack) listens(port int) {
	s.t.Helper()
	s.Await(fmt.Sprintf("port %d", port), func() bool {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// python is an interpreter that has paho.
func python(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(p, "-c", "import paho.mqtt.client").Run() == nil {
			return p
		}
	}
	t.Skip("there is no python3 with paho (apt-get install python3-paho-mqtt)")
	return ""
}

// worker starts a worker of the pipeline, through the balancer where there is one.
func (s *stack) worker(name string) *exec.Cmd {
	s.t.Helper()
	port := fmt.Sprint(s.mqtt)
	if s.mqtt == 0 {
		_, port, _ = net.SplitHostPort(s.Node(1).MQTT)
	}
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte("pipeline\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	before := strings.Count(s.log(name), "connected, session")
	cmd := s.process(name, python(s.t), "../pipeline/pipeline.py", "--name", name, "--port", port,
		"--password-file", secret, "--database", s.database(), "--assistants", s.staff)
	s.Await(name+" connects", func() bool { return strings.Count(s.log(name), "connected, session") > before })
	return cmd
}

func (s *stack) database() string { return filepath.Join(s.dir, "transcript.db") }

// query asks the transcript; it answers with a line for each row, its columns separated by a bar.
func (s *stack) query(sql string) string {
	s.t.Helper()
	out, err := exec.Command(python(s.t), "-c", `
import sqlite3, sys
for row in sqlite3.connect(sys.argv[1], timeout=20).execute(sys.argv[2]):
    print("|".join(map(str, row)))`, s.database(), sql).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", sql, err, out)
	}
	return strings.TrimSpace(string(out))
}
