package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	h "github.com/skein-mqtt/skein/test/harness"
)

// backupHeader is how long what stands before the state in a backup file is.
const backupHeader = 1024

// backedUp orders a backup and reads the state that it holds.
func backedUp(t *testing.T, n *h.Node, file string) *fsm.FSM {
	t.Helper()
	if out, err := n.Skein("backup", file); err != nil {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	state := fsm.New("reader")
	if err := state.Restore(bytes.NewReader(data[backupHeader:])); err != nil {
		t.Fatal(err)
	}
	return state
}

// sessionsOf are all sessions of a state, with queues and the exchanges of both directions.
func sessionsOf(state *fsm.FSM) []*fsm.SessionView {
	var ids []string
	state.Sessions("", func(i fsm.SessionInfo) bool {
		ids = append(ids, i.ClientID)
		return true
	})
	list := make([]*fsm.SessionView, len(ids))
	for i, id := range ids {
		list[i], _ = state.View(id)
	}
	return list
}

func retainedOf(state *fsm.FSM) (list []fsm.Message) {
	state.Retained("#", func(m *fsm.Message) bool {
		list = append(list, *m)
		return true
	})
	return list
}

// sameState wants the sessions and retained messages of a backup in a state that was made from it.
func sameState(t *testing.T, want, got *fsm.FSM) {
	t.Helper()
	old, restored := sessionsOf(want), sessionsOf(got)
	if len(old) != len(restored) {
		t.Fatalf("%d sessions, %d in the backup", len(restored), len(old))
	}
	bad := 0
	for i, w := range old {
		w.Mark = restored[i].Mark // who was connected may have been sent what the window allows
		if !reflect.DeepEqual(w, restored[i]) {
			if bad++; bad <= 3 {
				t.Errorf("session %s:\n%+v\nin the backup:\n%+v", w.ClientID, restored[i], w)
			}
		}
	}
	if bad > 3 {
		t.Errorf("%d of %d sessions differ", bad, len(old))
	}
	if a, b := retainedOf(want), retainedOf(got); !reflect.DeepEqual(a, b) {
		t.Errorf("%d retained messages, %d in the backup, or they differ", len(b), len(a))
	}
}

// halves are exchanges at QoS 2 that stand half-way when the backup is made.
type halves struct {
	publish  h.Packet // of a publisher that has the PUBREC
	released uint16   // of a subscriber that has sent PUBREC, and not PUBCOMP
	sent     h.Packet // to a subscriber that has answered nothing
}

func persistently(id string) h.Packet {
	return h.Packet{ClientID: id, KeepAlive: 60, Props: []h.Property{{ID: h.SessionExpiry, Num: 3600}}}
}

func leaveHalfWay(t *testing.T, n *h.Node) (x halves) {
	released, _ := n.MustConnect(h.V5, persistently("half-released"))
	released.Subscribe(2, "half")
	sent, _ := n.MustConnect(h.V5, persistently("half-sent"))
	sent.Subscribe(2, "half")
	pub, _ := n.MustConnect(h.V5, persistently("half-pub"))
	x.publish = h.Packet{Type: h.PUBLISH, Topic: "half", Payload: "half", QoS: 2, ID: 7}
	pub.MustSend(x.publish)
	pub.Expect(h.PUBREC)
	x.released = released.Expect(h.PUBLISH).ID
	released.MustSend(h.Packet{Type: h.PUBREC, ID: x.released})
	released.Expect(h.PUBREL)
	x.sent = sent.Expect(h.PUBLISH)
	for _, c := range []*h.Client{released, sent, pub} {
		c.Close()
	}
	return x
}

// goOn finishes the exchanges on a cluster that the backup was restored into.
func (x halves) goOn(t *testing.T, nodes []*h.Node) {
	t.Helper()
	at := func(i int) *h.Node { return nodes[i%len(nodes)] }
	connect := func(i int, id string) *h.Client {
		c, ack := at(i).MustConnect(h.V5, persistently(id))
		if !ack.SessionPresent {
			t.Fatalf("%s finds no session", id)
		}
		return c
	}
	pub := connect(0, "half-pub")
	x.publish.Dup = true
	pub.MustSend(x.publish)
	pub.Expect(h.PUBREC)
	pub.MustSend(h.Packet{Type: h.PUBREL, ID: x.publish.ID})
	pub.Expect(h.PUBCOMP)
	released := connect(1, "half-released")
	if p := released.Expect(h.PUBREL); p.ID != x.released {
		t.Errorf("PUBREL %d, want %d", p.ID, x.released)
	}
	released.MustSend(h.Packet{Type: h.PUBCOMP, ID: x.released})
	sent := connect(2, "half-sent")
	if p := sent.Expect(h.PUBLISH); p.ID != x.sent.ID || !p.Dup || p.Payload != "half" {
		t.Errorf("%s, want number %d again", p, x.sent.ID)
	}
	for _, c := range []*h.Client{released, sent, pub} {
		c.Disconnect()
	}
}

// What a backup that is made under load holds is what a cluster of another size has after a restore: sessions,
// queues, retained messages, and the state of exchanges at QoS 2; and clients go on from there.
func TestBackupUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	for _, size := range []struct{ from, to int }{{3, 1}, {1, 3}} {
		t.Run(fmt.Sprintf("from %d to %d", size.from, size.to), func(t *testing.T) {
			beside(t)
			backupUnderLoad(t, h.Start(t, size.from, flags...), size.to)
		})
	}
}

func backupUnderLoad(t *testing.T, from *h.Cluster, to int) {
	at := func(i int) *h.Node { return from.Nodes[i%len(from.Nodes)] }
	tr := newTraffic(t, from)
	var list []*flow
	var readers []*reader
	for i := range 6 {
		f := newFlow(fmt.Sprintf("load/%d", i), byte(1+i%2))
		list = append(list, f)
		readers = append(readers, tr.subscribe(f, at(i+1), h.NewSession(t, fmt.Sprintf("online-%d", i), h.V5)))
	}
	away := make([]*h.Session, heavy(30, 1500))
	abreast(t, "session", len(away), 30, func(i int) error {
		s := h.NewSession(t, fmt.Sprintf("away-%04d", i), []byte{h.V311, h.V5}[i%2])
		away[i] = s
		if _, err := s.Roam(at(i)); err != nil {
			return err
		}
		p := h.Packet{Type: h.SUBSCRIBE, ID: 0xFFF0}
		for _, name := range []string{list[i%len(list)].topic, "mark", "half"} {
			p.Filters = append(p.Filters, h.Filter{Name: name, Options: 2})
		}
		if err := s.Send(p); err != nil {
			return err
		}
		defer s.Disconnect()
		return next(s.Client, h.SUBACK, 0)
	})
	pub := stored(t, at(0), "pub", h.V5)
	keep := func(round string) {
		for i := range heavy(100, 1000) {
			if err := pub.Send(h.Packet{Type: h.PUBLISH, Topic: fmt.Sprintf("kept/%d", i), Payload: round, Retain: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	keep("old")
	x := leaveHalfWay(t, at(1))
	for i, f := range list {
		tr.publish(f, at(i), h.NewSession(t, fmt.Sprintf("writer-%d", i), []byte{h.V5, h.V311}[i%2]))
	}
	list[0].more(t, heavy(100, 300))
	publishAll(t, pub, "mark", 2, []string{"before"})
	keep("new") // on its way while the backup is made
	dir := t.TempDir()
	file := filepath.Join(dir, "skein.backup")
	state := backedUp(t, at(2), file)
	publishAll(t, pub, "mark", 2, []string{"after"})
	list[0].more(t, heavy(100, 300))
	tr.end()
	for _, r := range readers {
		r.once(t)
	}
	from.Each((*h.Node).Kill)

	into := h.Start(t, to, flags...)
	out, err := into.Node(to).Skein("restore", file)
	if err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	total := len(sessionsOf(state))
	if want := fmt.Sprintf("index %d, %d sessions", state.Applied(), total); !strings.Contains(out, want) {
		t.Errorf("%q is not in what it says: %s", want, out)
	}
	var listed []string
	into.Each(func(n *h.Node) {
		var names string
		h.Await(t, n.ID+" has the sessions and serves", func() bool {
			names, err = n.Skein("get", "sessions", "-o", "jsonpath={range.items[*]}{.id} {.queued} {.cursor} {.last} {.connected}{\"\\n\"}{end}")
			return err == nil && strings.Count(names, "\n") == total && !strings.Contains(names, "true")
		})
		n.WaitReady()
		listed = append(listed, names)
	})
	if differ := slices.Compact(listed); len(differ) > 1 {
		t.Errorf("the nodes list different sessions:\n%s", strings.Join(differ, "\n"))
	}
	sameState(t, state, backedUp(t, into.Node(1), filepath.Join(dir, "again.backup")))

	x.goOn(t, into.Nodes)
	abreast(t, "resume", len(away), 30, func(i int) error {
		s := away[i]
		view, _ := state.View(s.ID)
		ack, err := s.Roam(into.Nodes[i%to])
		if err != nil || !ack.SessionPresent {
			return fmt.Errorf("%s: %v %w", s.ID, ack, err)
		}
		if err := s.Pump(func() bool { return len(s.Got) >= len(view.Queue) }); err != nil {
			return fmt.Errorf("%s: %d of %d messages: %w", s.ID, len(s.Got), len(view.Queue), err)
		}
		if err := s.Send(h.Packet{Type: h.PINGREQ}); err != nil {
			return err
		}
		// The answer comes behind everything that the node has for it.
		for answered := false; !answered; {
			p, err := s.Next(h.Patience)
			if err == nil {
				err = s.Handle(p)
			}
			if err != nil {
				return err
			}
			answered = p.Type == h.PINGRESP
		}
		s.Disconnect()
		marks := slices.DeleteFunc(slices.Clone(s.Got), func(p string) bool { return p != "before" && p != "after" && p != "half" })
		flow := slices.DeleteFunc(slices.Clone(s.Got), func(p string) bool { return slices.Contains(marks, p) })
		slices.Sort(marks)
		if !slices.Equal(marks, []string{"before", "half"}) {
			return fmt.Errorf("%s got %q", s.ID, marks)
		}
		sent := list[i%len(list)].sent
		if len(flow) < 50 || len(flow) > len(sent) || !slices.Equal(flow, sent[:len(flow)]) {
			return fmt.Errorf("%s got %d messages of %d that were sent, or others", s.ID, len(flow), len(sent))
		}
		return nil
	})
	t.Logf("%d sessions with %d queued messages, %d retained, at index %d", total, state.Counts().Queued, state.RetainedCount(), state.Applied())
	writer := h.NewSession(t, "writer-0", h.V5) // and who had published goes on
	writer.Resume(into.Node(1))
	publishAll(t, writer, "load/0", 2, []string{"further"})
	last := away[0]
	last.Resume(into.Node(to))
	if err := last.Pump(func() bool { return last.Got[len(last.Got)-1] == "further" }); err != nil {
		t.Errorf("what is published after the restore does not come: %v", err)
	}
}
