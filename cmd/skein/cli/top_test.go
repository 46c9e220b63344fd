package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// growing is a cluster whose counters grow by a hundred each time that it is asked.
type growing struct {
	adminpb.UnimplementedAdminServer
	turn uint64
}

func (g *growing) ListNodes(context.Context, *adminpb.ListNodesRequest) (*adminpb.ListNodesResponse, error) {
	g.turn++
	return &adminpb.ListNodesResponse{Nodes: []*adminpb.Node{
		{Id: "node1", State: "ready", Clients: 3, Received: 100 * g.turn, Dropped: map[string]uint64{"expired": g.turn}, Commits: g.turn, CommitNano: 2_000_000 * g.turn},
		{Id: "node2", State: "down"},
	}}, nil
}

func (g *growing) ListClients(context.Context, *adminpb.ListClientsRequest) (*adminpb.ListClientsResponse, error) {
	g.turn++
	return &adminpb.ListClientsResponse{Clients: []*adminpb.Client{
		{Id: "idle", Node: "node1", Epoch: 1}, {Id: "busy", Node: "node1", Epoch: 2, MessagesIn: 50 * g.turn, Queued: 7}, {Id: "gone", Node: "node2", Queued: 1},
	}}, nil
}

func (g *growing) Trace(_ *adminpb.TraceRequest, s grpc.ServerStreamingServer[adminpb.TraceStep]) error {
	for _, topic := range []string{"a", "b", "b"} {
		for _, kind := range []string{"received", "road"} {
			if err := s.Send(&adminpb.TraceStep{Kind: kind, Topic: topic}); err != nil {
				return err
			}
		}
	}
	<-s.Context().Done()
	return nil
}

// What is busiest comes first; how busy depends on how long it took.
func TestTop(t *testing.T) {
	server := serveAdmin(t, &growing{})
	for what, want := range map[string][]string{
		"nodes":   {"NODE STATE CLIENTS", "node1 ready 3", "node2 down -"},
		"clients": {"CLIENT NODE IN/S", "busy node1", "gone node2", "idle node1"},
		"topics":  {"TOPIC MESSAGES/S", "b ", "a "},
	} {
		var out bytes.Buffer
		if err := Execute(t.Context(), Env{Out: &out, Err: &out}, []string{"top", what, "--interval", "300ms", "--server", server}); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != len(want) {
			t.Fatalf("%s:\n%s", what, out.String())
		}
		for i, line := range lines {
			if !strings.HasPrefix(strings.Join(strings.Fields(line), " "), want[i]) {
				t.Errorf("%s: %q, want %q first", what, line, want[i])
			}
		}
		if what == "nodes" && !strings.Contains(lines[1], "2.0ms") {
			t.Errorf("%s", out.String())
		}
	}
}
