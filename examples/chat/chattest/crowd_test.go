package chattest

import (
	"encoding/json"
	"fmt"
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

// TestCrowd runs phones and assistants through the balancer while nodes are killed, one after the other, and a
// worker of the pipeline. CHAT_USERS, CHAT_ASSISTANTS and CHAT_FOR say how many and how long, CHAT_EVERY how
// often a node dies, CHAT_TOLERANCE what presence may take beyond the will's delay (much, by default: a busy
// machine is no fault).
func TestCrowd(t *testing.T) {
	heavy(t)
	env := func(name, otherwise string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return otherwise
	}
	users, assistants := env("CHAT_USERS", "200"), env("CHAT_ASSISTANTS", "4")
	length, err := time.ParseDuration(env("CHAT_FOR", "40s"))
	if err != nil {
		t.Fatal(err)
	}
	every, err := time.ParseDuration(env("CHAT_EVERY", "20s"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	phones := filepath.Join(dir, "phones")
	if out, err := exec.Command("go", "build", "-o", phones, "../phones").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(phones, "accounts", "-users", users, "-assistants", assistants, "-dir", dir, "-acl", "../auth/acl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files := t.TempDir() // a node looks at the folder of its access files: nothing else is written there
	for _, name := range []string{"passwords", "acl"} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(files, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := &stack{Cluster: h.Start(t, 3, "--set", "auth.password_file="+files+"/passwords", "--set", "auth.acl_file="+files+"/acl"), t: t, dir: dir}
	var names []string
	for i := range atoi(t, assistants) {
		names = append(names, fmt.Sprintf("assistant%02d", i))
	}
	s.staff = strings.Join(names, ",")
	s.balance()
	workers := []*exec.Cmd{s.worker("one"), s.worker("two")}

	sizes, err := exec.Command(phones, "wire", "-users", users, "-broker", fmt.Sprintf("127.0.0.1:%d", s.mqtt)).CombinedOutput()
	t.Logf("%s", sizes)
	if err != nil {
		t.Fatal(err)
	}

	report := filepath.Join(dir, "report.json")
	crowd := exec.Command(phones, "crowd", "-broker", fmt.Sprintf("127.0.0.1:%d", s.mqtt), "-users", users, "-assistants", assistants,
		"-for", length.String(), "-silence", min(90*time.Second, length/4).String(), "-background", min(45*time.Second, length/6).String(), "-tolerance", env("CHAT_TOLERANCE", "30s"), "-report", report)
	crowd.Stderr, crowd.Stdout = os.Stderr, os.Stderr
	crowd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := crowd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(crowd) })
	ended := make(chan error, 1)
	go func() { ended <- crowd.Wait() }() // ends with the process
	kills, crashes, over := 0, 0, time.After(length)
	var result error
	for next := time.After(every / 2); ; {
		select {
		case <-next:
			if kills%3 == 1 {
				i := crashes % 2
				end(workers[i])
				workers[i] = s.worker([]string{"one", "two"}[i])
				crashes++
			}
			victim := s.Node(kills%3 + 1)
			victim.Kill()
			kills++
			time.Sleep(every / 4)
			victim.Start()
			for deadline := time.Now().Add(time.Minute); victim.Ready() != http.StatusOK; time.Sleep(100 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%s is not ready within a minute", victim.ID) // on a machine that is busy with all these phones
				}
			}
			next = time.After(every * 3 / 4)
			continue
		case <-over:
			next = nil // what was said has to arrive in peace
			continue
		case result = <-ended:
		}
		break
	}
	if result != nil {
		t.Errorf("phones: %v", result)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var r struct{ Messages int }
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if kills < 2 || crashes < 1 {
		t.Errorf("only %d nodes and %d workers were killed", kills, crashes)
	}
	// The transcript has what was said, and nothing twice.
	if got := s.query("SELECT count(*), count(DISTINCT sender || device || n) FROM messages WHERE sender != 'bot' AND at > 0"); !strings.HasPrefix(got, got[strings.Index(got, "|")+1:]+"|") {
		t.Errorf("rows and different messages: %s", got)
	}
	if got := s.query("SELECT count(*) FROM outbox") + " " + s.query("SELECT count(*) FROM early"); got != "0 0" {
		t.Errorf("left in outbox and early: %s", got)
	}
	if t.Failed() {
		t.Logf("last messages of devices:\n%s", s.query("SELECT sender, device, last FROM devices ORDER BY 1"))
	}
	t.Logf("%d nodes and %d workers were killed; %s", kills, crashes, text)
}

func atoi(t *testing.T, s string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return n
}
