package admin

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/node/trace"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

// Asked on any node, the events of all come together in order of time, and who asks for one client gets that.
func TestEvents(t *testing.T) {
	one, two := &node{}, &node{}
	clients := cluster(t, &world{}, one, two)
	one.events.Add(event.Event{Kind: event.Connected, Client: "a", Message: "1"})
	two.events.Add(event.Event{Kind: event.Disconnected, Client: "a", Message: "2", Warning: true})
	two.events.Add(event.Event{Kind: event.Node, Message: "3"})
	for _, c := range clients {
		for _, test := range []struct {
			filter *adminpb.EventFilter
			size   uint32
			want   []string
		}{
			{nil, 0, []string{"node1 1", "node2 2", "node2 3"}},
			{nil, 1, []string{"node2 3"}},
			{&adminpb.EventFilter{Client: "a"}, 0, []string{"node1 1", "node2 2"}},
			{&adminpb.EventFilter{Kinds: []string{"node", "connected"}}, 0, []string{"node1 1", "node2 3"}},
			{&adminpb.EventFilter{Warnings: true}, 0, []string{"node2 2"}},
			{&adminpb.EventFilter{Node: "node1"}, 0, []string{"node1 1"}},
		} {
			res, err := c.ListEvents(t.Context(), &adminpb.ListEventsRequest{Page: &adminpb.Page{Size: test.size}, Filter: test.filter})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range res.Events {
				got = append(got, e.Node+" "+e.Message)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v: %q", test.filter, got)
			}
		}
		d, err := c.DescribeClient(t.Context(), &adminpb.DescribeClientRequest{Id: "a"})
		if err != nil || len(d.Events) != 2 || d.Events[0].Message != "1" {
			t.Errorf("%v %v", d, err)
		}
		for _, f := range []*adminpb.EventFilter{{Kinds: []string{"nonsense"}}, {Node: "node9"}} {
			if _, err := c.ListEvents(t.Context(), &adminpb.ListEventsRequest{Filter: f}); status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.NotFound {
				t.Errorf("%v: %v", f, err)
			}
		}
	}
}

// A watch tells what happens on every node, of one that can't be asked that it is so, and of one that comes
// back what happens from then on.
func TestWatchEvents(t *testing.T) {
	w, one, two := &world{}, &node{}, &node{}
	clients := cluster(t, w, one, two)
	w.mu.Lock()
	w.nodes = append(w.nodes, &adminpb.Node{Id: "node3", Incarnation: 9, PeerAddress: "127.0.0.1:1"})
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := clients[0].WatchEvents(ctx, &adminpb.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() { // the other node may not be followed yet
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				one.events.Add(event.Event{Message: "one"})
				two.events.Add(event.Event{Message: "two"})
			}
		}
	}()
	seen := map[string]bool{}
	last := map[string]uint64{}
	for !seen["node1 one"] || !seen["node2 two"] || !seen["node3 unreachable"] {
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e.Sequence == 0 {
			seen[e.Node+" unreachable"] = true
			continue
		}
		if last[e.Node] != 0 && e.Sequence != last[e.Node]+1 {
			t.Errorf("%s: %d after %d", e.Node, e.Sequence, last[e.Node])
		}
		last[e.Node] = e.Sequence
		seen[e.Node+" "+e.Message] = true
	}
}

// A trace joins the nodes' steps, and leaves nothing behind when it ends.
func TestTrace(t *testing.T) {
	one, two := &node{}, &node{}
	clients := cluster(t, &world{}, one, two)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := clients[1].Trace(ctx, &adminpb.TraceRequest{Filter: "a/+"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s, err := stream.Recv(); err != nil || s.Kind != "joined" {
			t.Fatalf("%v %v", s, err)
		}
	}
	s := trace.Subject{Publisher: "p", Topic: "a/b", Payload: []byte("x"), QoS: 1}
	one.tracer.Active().Step(&s, "received", "p", trace.Step{PacketID: 3, Index: 9, Took: 5, Detail: "d"})
	two.tracer.Active().Step(&s, trace.Sent, "q", trace.Step{})
	got := map[string]*adminpb.TraceStep{}
	for range 2 {
		step, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		got[step.Node+" "+step.Kind] = step
	}
	r, q := got["node1 received"], got["node2 sent"]
	if r == nil || q == nil || r.Message != q.Message || r.Client != "p" || r.Topic != "a/b" || r.PacketId != 3 || r.Index != 9 || r.TookNano != 5 {
		t.Errorf("%v", got)
	}
	cancel()
	for deadline := time.Now().Add(10 * time.Second); one.tracer.Active() != nil || two.tracer.Active() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a trace is still open")
		}
	}
	for _, req := range []*adminpb.TraceRequest{{}, {Filter: "a/#/b"}, {Client: "a", Sample: 2}, {Client: "a", Rate: 1 << 30}} {
		stream, err := clients[0].Trace(t.Context(), req)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", req, err)
		}
	}
}

func TestLogs(t *testing.T) {
	one, two := &node{}, &node{}
	clients := cluster(t, &world{}, one, two)
	for i := range 5 {
		two.lines.Add(Line{Time: int64(i), Level: slog.Level(4 * (i % 2)), Text: fmt.Sprint(i)})
	}
	read := func(req *adminpb.LogsRequest, n int) (got []string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := clients[0].Logs(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			l, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, l.Node+" "+l.Level+" "+l.Text)
		}
		if !req.Follow {
			if l, err := stream.Recv(); err == nil {
				t.Errorf("one more: %v", l)
			}
			return got
		}
		two.lines.Add(Line{Level: slog.LevelError, Text: "new"})
		l, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return append(got, l.Text)
	}
	if got := read(&adminpb.LogsRequest{Node: "node2", Level: "warn"}, 2); !slices.Equal(got, []string{"node2 WARN 1", "node2 WARN 3"}) {
		t.Errorf("%q", got)
	}
	if got := read(&adminpb.LogsRequest{Node: "node2", Tail: 1, Follow: true}, 1); !slices.Equal(got, []string{"node2 INFO 4", "new"}) {
		t.Errorf("%q", got)
	}
	for req, want := range map[*adminpb.LogsRequest]codes.Code{{Node: "node9"}: codes.NotFound, {Level: "loud"}: codes.InvalidArgument} {
		stream, err := clients[0].Logs(t.Context(), req)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != want {
			t.Errorf("%v: %v", req, err)
		}
	}
}
