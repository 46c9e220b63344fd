package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skein-mqtt/skein/proto/adminpb"
	"github.com/skein-mqtt/skein/test/chaos/disk"
)

// node is one skein process, or the place of one that is not running. Only the goroutine that does
// the faults uses it, but for the fields under the lock.
type node struct {
	id, mqtt, http, admin, peer, gossip string
	proxied                             string     // where the balancer reaches it
	data, log, clock                    string     // clock: a file that says how wrong it is
	relays                              []*relay   // peer, gossip, door
	door                                *relay     // for clients; nil: they reach it by itself
	disk                                *disk.Disk // nil: the machine's
	model                               *Model

	paused  bool
	damaged bool           // its files are: it may end by itself
	told    map[string]int // what the process said last that it did not deliver, by reason

	mu       sync.Mutex
	cmd      *exec.Cmd
	exited   chan struct{}
	expected bool // we are ending it
	ordered  bool // and have told it so
}

func (n *node) running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
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

// pid is the process's, 0 when there is none.
func (n *node) pid() int {
	if !n.running() {
		return 0
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd.Process.Pid
}

// start launches the process and returns at once.
func (n *node) start(binary string, args []string) error {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	fmt.Fprintf(log, "-- chaos: start at %.3f\n", n.model.now().Seconds())
	cmd := exec.Command(binary, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SKEIN_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "CLOCK_OFFSET_FILE="+n.clock)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.id, err)
	}
	exited := make(chan struct{})
	n.mu.Lock()
	n.cmd, n.exited, n.expected, n.ordered, n.paused, n.told = cmd, exited, n.damaged, false, false, nil
	n.mu.Unlock()
	go func() { // ends with the process, which end kills and waits for
		err := cmd.Wait()
		n.model.Died(n.id)
		n.mu.Lock()
		expected := n.expected
		n.mu.Unlock()
		if !expected {
			n.model.Node("%s ended by itself: %v", n.id, err)
			n.model.Violate(Process, nil, "%s ended by itself: %v; its log ends:\n%s", n.id, err, n.tail(40))
		}
		close(exited)
	}()
	return nil
}

// expect says whether the process may end by itself. A start resets it.
func (n *node) expect(end bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expected = end
}

// awaitEnd waits for the process to end by itself, no longer than patience.
func (n *node) awaitEnd(ctx context.Context, patience time.Duration) {
	n.mu.Lock()
	exited := n.exited
	n.mu.Unlock()
	select {
	case <-exited:
	case <-ctx.Done():
	case <-time.After(patience):
	}
}

// endedItself tells whether the process has ended, and not because of a signal.
func (n *node) endedItself() bool {
	return n.cmd != nil && !n.running() && !n.ordered && n.cmd.ProcessState.Exited()
}

// endedWell says what is wrong with how a process ended by itself. It must have told what to do.
func (n *node) endedWell(advice string) error {
	code, tail := n.cmd.ProcessState.ExitCode(), n.tail(12)
	n.model.Node("%s ended by itself with %d", n.id, code)
	if code != 1 || !strings.Contains(tail, advice) {
		return fmt.Errorf("%s ended with %d and does not say %q; its log ends:\n%s", n.id, code, advice, tail)
	}
	return nil
}

// endedFor tells whether the last line of the log names that error.
func (n *node) endedFor(err syscall.Errno) bool { return strings.Contains(n.tail(1), err.Error()) }

// unmount ends the node's own disk.
func (n *node) unmount() error {
	if n.disk == nil {
		return nil
	}
	d := n.disk
	n.disk = nil
	return d.Close()
}

func (n *node) signal(s syscall.Signal) {
	if pid := n.pid(); pid != 0 {
		_ = syscall.Kill(pid, s)
	}
}

// end sends a signal that ends the process and waits.
func (n *node) end(s syscall.Signal, patience time.Duration) error {
	if !n.running() {
		return nil
	}
	n.mu.Lock()
	n.expected, n.ordered = true, true
	exited := n.exited
	n.mu.Unlock()
	n.signal(s)
	select {
	case <-exited:
	case <-time.After(patience):
		_ = n.cmd.Process.Kill()
		<-exited
		return fmt.Errorf("%s did not end within %v after %v; its log ends:\n%s", n.id, patience, s, n.tail(40))
	}
	if code := n.cmd.ProcessState.ExitCode(); s == syscall.SIGTERM && code != 0 {
		return fmt.Errorf("%s ended with %d after SIGTERM; its log ends:\n%s", n.id, code, n.tail(40))
	}
	return nil
}

func (n *node) tail(lines int) string {
	b, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// get asks the node's HTTP port.
func (n *node) get(ctx context.Context, path string, patience time.Duration) (code int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.http+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(b), err
}

// ready is what /readyz says, 0 when nobody answers.
func (n *node) ready(ctx context.Context) int {
	code, _, _ := n.get(ctx, "/readyz", time.Second)
	return code
}

// dropsMetric is how a node counts what it does not deliver.
const dropsMetric = `skein_messages_dropped_total{reason="`

// tally has the model know what the process has not delivered since the last tally.
func (n *node) tally(ctx context.Context, patience time.Duration) error {
	_, body, err := n.get(ctx, "/metrics", patience)
	if err != nil {
		return fmt.Errorf("read the counters of %s: %w", n.id, err)
	}
	told, news := make(map[string]int), make(map[string]int)
	for line := range strings.Lines(body) {
		rest, ok := strings.CutPrefix(line, dropsMetric)
		reason, value, cut := strings.Cut(rest, `"} `)
		if !ok || !cut {
			continue
		}
		count, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			return fmt.Errorf("read the counters of %s: %q: %w", n.id, line, err)
		}
		told[reason] = int(count)
		news[reason] = told[reason] - n.told[reason]
	}
	n.told = told
	n.model.Counted(news)
	return nil
}

// ask calls the admin service.
func (n *node) ask(ctx context.Context, patience time.Duration, fn func(context.Context, adminpb.AdminClient) error) error {
	conn, err := grpc.NewClient(n.admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := fn(ctx, adminpb.NewAdminClient(conn)); err != nil {
		return fmt.Errorf("ask %s: %w", n.id, err)
	}
	return nil
}

func (n *node) members(ctx context.Context) (list []*adminpb.Node, err error) {
	err = n.ask(ctx, 2*time.Second, func(ctx context.Context, c adminpb.AdminClient) error {
		answer, err := c.ListNodes(ctx, &adminpb.ListNodesRequest{})
		list = answer.GetNodes()
		return err
	})
	return list, err
}

func (n *node) hash(ctx context.Context) (applied uint64, digest string, err error) {
	err = n.ask(ctx, 5*time.Second, func(ctx context.Context, c adminpb.AdminClient) error {
		answer, err := c.StateHash(ctx, &adminpb.StateHashRequest{})
		applied, digest = answer.GetApplied(), fmt.Sprintf("%x", answer.GetHash())
		return err
	})
	return applied, digest, err
}

// memory is the resident memory in bytes, 0 when it can't be told.
func (n *node) memory() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.pid()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}

// used is what the data folder holds, in bytes.
func (n *node) used() (size int64) {
	_ = filepath.WalkDir(n.data, func(_ string, e os.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // files come and go
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	return size
}

var errNoNode = errors.New("no node answers")
