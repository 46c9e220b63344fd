package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skein-mqtt/skein/proto/adminpb"
	h "github.com/skein-mqtt/skein/test/harness"
)

// drainCommand is a 'skein drain' that is under way.
type drainCommand struct {
	cmd  *exec.Cmd
	over chan struct{} // closed when it has ended
	err  error         // how, once it has

	mu    sync.Mutex
	lines []string // what it has printed
}

func startDrain(t *testing.T, by *h.Node, node string, flags ...string) *drainCommand {
	t.Helper()
	cmd := exec.Command(h.Binary(t), append([]string{"drain", node, "--server", by.Admin}, flags...)...)
	cmd.Env = h.Environment()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &drainCommand{cmd: cmd, over: make(chan struct{})}
	go func() { // ends with the command, which the clean-up ends
		defer close(d.over)
		for s := bufio.NewScanner(out); s.Scan(); {
			d.mu.Lock()
			d.lines = append(d.lines, s.Text())
			d.mu.Unlock()
		}
		d.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-d.over
	})
	return d
}

func (d *drainCommand) said() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// shown are the numbers of clients left that the bar has shown, which must all be of that total.
func (d *drainCommand) shown(t *testing.T, total int) (left []int) {
	t.Helper()
	for _, line := range d.said() {
		i := strings.LastIndex(line, ", ")
		if !strings.HasSuffix(line, "clients left") || i < 0 {
			continue
		}
		var l, of int
		if _, err := fmt.Sscanf(line[i+2:], "%d of %d clients left", &l, &of); err != nil || of != total {
			t.Fatalf("of %d clients the bar says %q", total, line)
		}
		left = append(left, l)
	}
	return left
}

// connectedTo is how many clients 'skein get clients' lists for a node.
func connectedTo(t *testing.T, by *h.Node, node string) int {
	t.Helper()
	out, err := by.Skein("get", "clients", "--node", node, "-o", "name")
	if err != nil {
		t.Fatalf("get clients: %v\n%s", err, out)
	}
	return strings.Count(out, "\n")
}

// progress is what a drain that is under way says when it is asked now.
func progress(t *testing.T, n *h.Node) *adminpb.DrainProgress {
	t.Helper()
	conn, err := grpc.NewClient(n.Admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), h.Patience)
	defer cancel()
	stream, err := adminpb.NewAdminClient(conn).DrainNode(ctx, &adminpb.DrainNodeRequest{Node: n.ID})
	if err != nil {
		t.Fatal(err)
	}
	p, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A node with very many clients is drained under load at QoS 1 and 2: nothing is lost, nothing comes twice. The
// order is interrupted and given again, and what its bar shows is what the lists of clients say.
func TestDrainUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	beside(t)
	c := h.Start(t, 3, append(slices.Clone(flags), "--set", "drain.client_timeout=2m", "--set", "drain.timeout=5m")...)
	one, two := c.Node(1), c.Node(2)
	const flows = 20
	count, holding := heavy(100, 4960), heavy(5, 30)

	tr := newTraffic(t, c)
	tr.pace = time.Duration(heavy(100, 1000)) * time.Millisecond
	tr.use(c.Nodes[1:])
	list := make([]*flow, flows)
	for i := range list {
		list[i] = newFlow(fmt.Sprintf("load/%d", i), byte(1+i%2))
	}
	readers := make([]*reader, count)
	abreast(t, "reader", count, 50, func(i int) error {
		s := h.NewSession(t, fmt.Sprintf("reader-%d", i), []byte{h.V311, h.V5}[i/flows%2])
		f := list[i%flows]
		if _, err := s.Roam(one); err != nil {
			return err
		}
		if err := s.Send(h.Packet{Type: h.SUBSCRIBE, ID: 0xFFF0, Filters: []h.Filter{{Name: f.topic, Options: f.qos}}}); err != nil {
			return err
		}
		readers[i] = &reader{Session: s, f: f, move: make(chan *h.Node, 1)}
		return next(s.Client, h.SUBACK, 0)
	})
	if t.Failed() {
		return
	}
	// Clients that acknowledge only when they are told to: the drain waits for them.
	holders := make([]*h.Session, holding)
	for i := range holders {
		holders[i] = stored(t, one, fmt.Sprintf("holder-%d", i), h.V5)
		holders[i].Subscribe(1, "held")
	}
	pub := clean(t, two, "holders-pub", h.V5)
	publishAll(t, pub, "held", 1, []string{"first"})
	unanswered := make([]h.Packet, holding)
	for i, s := range holders {
		unanswered[i] = s.Expect(h.PUBLISH)
	}
	for i, r := range readers {
		tr.start(r, one)
		if i < flows { // half of the publishers have to move, too
			tr.publish(list[i], c.Nodes[i/2%2], h.NewSession(t, fmt.Sprintf("writer-%d", i), []byte{h.V5, h.V311}[i%2]))
		}
	}
	total := count + holding + flows/2
	list[0].more(t, 2)
	if n := connectedTo(t, two, one.ID); n != total {
		t.Fatalf("%d clients are connected to %s, want %d", n, one.ID, total)
	}
	if out, err := two.Skein("drain", one.ID, "--dry-run"); err != nil || !strings.Contains(out, fmt.Sprintf("would be drained of %d clients", total)) {
		t.Fatalf("dry run: %v\n%s", err, out)
	}

	order := startDrain(t, two, one.ID, "--rate", fmt.Sprint(total/heavy(5, 20)))
	c.Await("a quarter of the clients has left", func() bool {
		left := order.shown(t, total)
		return len(left) > 0 && left[len(left)-1] < total*3/4
	})
	if err := order.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-order.over
	said := order.said()
	if code := order.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said[len(said)-1], "interrupted: the drain goes on") {
		t.Errorf("interrupted: exit code %d, and it says\n%s", code, strings.Join(said, "\n"))
	}
	shown := order.shown(t, total)
	for going := true; going; { // each look is between two lists
		before := connectedTo(t, two, one.ID)
		p := progress(t, one)
		after := connectedTo(t, two, one.ID)
		if int(p.Left) > before || int(p.Left) < after || int(p.Total) != total {
			t.Errorf("the drain says %d of %d, the lists %d before and %d after", p.Left, p.Total, before, after)
		}
		shown = append(shown, int(p.Left))
		going = after > total/2
	}

	order = startDrain(t, two, one.ID, "--rate", fmt.Sprint(total))
	list[0].more(t, 2)
	c.Await("all have left but those that hold it up", func() bool {
		left := order.shown(t, total)
		return len(left) > 0 && left[len(left)-1] <= holding
	})
	if n := connectedTo(t, two, one.ID); n != holding {
		t.Errorf("%d clients are connected to %s, want %d", n, one.ID, holding)
	}
	if p := progress(t, one); int(p.Left) != holding || p.Done {
		t.Errorf("the drain says %v", p)
	}
	shown = append(shown, order.shown(t, total)...)
	for i := range shown[1:] {
		if shown[i+1] > shown[i] {
			t.Errorf("the bar goes back from %d to %d", shown[i], shown[i+1])
		}
	}
	publishAll(t, pub, "held", 1, []string{"second"})
	for i, s := range holders {
		if err := s.Handle(unanswered[i]); err != nil {
			t.Error(err)
		}
	}
	select {
	case <-order.over:
	case <-time.After(h.Patience):
		t.Fatal("the drain does not end")
	}
	if said := order.said(); order.err != nil || said[len(said)-1] != "node/"+one.ID+" drained" {
		t.Errorf("the drain ended with %v:\n%s", order.err, strings.Join(said, "\n"))
	}
	if n := connectedTo(t, two, one.ID); n != 0 {
		t.Errorf("%d clients are connected to %s, want none", n, one.ID)
	}
	for _, s := range holders {
		s.ExpectClosed()
		s.Resume(two)
		s.Receive(2)
		same(t, s.ID, s.Got, []string{"first", "second"})
	}
	list[0].more(t, 2)
	tr.end()
	messages := 0
	for _, r := range readers {
		same(t, r.ID, r.Got, r.f.sent)
		messages += len(r.Got)
	}
	t.Logf("%d clients, %d messages delivered", total, messages)
	c.Each(func(n *h.Node) {
		for line := range strings.Lines(n.Metrics()) {
			if strings.HasPrefix(line, "skein_messages_dropped_total") && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
				t.Errorf("%s: %s", n.ID, line)
			}
		}
	})
}
