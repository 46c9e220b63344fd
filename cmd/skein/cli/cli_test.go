package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var clock = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func ago(d time.Duration) int64 { return clock.Add(-d).UnixMilli() }

// fake is an admin service with fixed answers.
type fake struct {
	adminpb.UnimplementedAdminServer
}

func (fake) ListNodes(context.Context, *adminpb.ListNodesRequest) (*adminpb.ListNodesResponse, error) {
	return &adminpb.ListNodesResponse{
		Nodes: []*adminpb.Node{
			{
				Id: "node1", State: "ready", Role: "leader", Incarnation: 3, Version: "v1", Clients: 12, Applied: 99, Started: ago(3 * time.Hour),
				MqttAddress: "10.0.0.1:1883", HttpAddress: "10.0.0.1:8080", AdminAddress: "10.0.0.1:7883", PeerAddress: "10.0.0.1:7884", Features: 1, Received: 9,
			},
			{Id: "node2", State: "unknown", Role: "follower", Incarnation: 4},
			{Id: "node3", State: "down", Role: "follower", Reason: "no lease for 3s"},
		},
		Missing: []*adminpb.Missing{{Node: "node2", Reason: "no answer in time"}},
	}, nil
}

// ListClients has three pages of one.
func (fake) ListClients(_ context.Context, req *adminpb.ListClientsRequest) (*adminpb.ListClientsResponse, error) {
	all := []*adminpb.Client{
		{
			Id: "a", Node: "node1", Address: "192.0.2.1:4000", Username: "u", Protocol: 5, Persistent: true, Keepalive: 60, Connected: ago(192 * time.Second),
			Listener: "tcp://:1883", Subscriptions: 2, Inflight: 1, Queued: 7, MessagesIn: 5, MessagesOut: 6,
			Dropped: map[string]uint64{"queue_full": 3, "expired": 1}, Epoch: 1 << 40,
		},
		{Id: "b", Node: "node2", Protocol: 4, Partial: true},
		{Id: "c\x1b[31m", Node: "node1", Protocol: 3, Address: "[2001:db8::1]:9"},
	}
	if req.Node != "" {
		all = slices.DeleteFunc(all, func(c *adminpb.Client) bool { return c.Node != req.Node })
	}
	for i, c := range all {
		if c.Id > req.Page.Token {
			res := &adminpb.ListClientsResponse{Clients: all[i : i+1], Missing: []*adminpb.Missing{{Node: "node2", Reason: "no answer in time"}}}
			if i+1 < len(all) {
				res.NextToken = c.Id
			}
			return res, nil
		}
	}
	return &adminpb.ListClientsResponse{}, nil
}

func (fake) ListSessions(context.Context, *adminpb.ListSessionsRequest) (*adminpb.ListSessionsResponse, error) {
	return &adminpb.ListSessionsResponse{Sessions: []*adminpb.Session{
		{Id: "a", Node: "node1", Connected: true, Expiry: 1<<32 - 1, Subscriptions: 2, Queued: 7, QueuedBytes: 700, Last: 50, Cursor: 43, HasWill: true, Username: "u", Protocol: 5},
		{Id: "z", Expiry: 90000, Expires: ago(-time.Hour), Protocol: 4},
	}}, nil
}

func (fake) ListSubscriptions(_ context.Context, req *adminpb.ListSubscriptionsRequest) (*adminpb.ListSubscriptionsResponse, error) {
	all := []*adminpb.Subscription{
		{Client: "a", Filter: "x/#", Qos: 2, Persistent: true, Node: "node1", NoLocal: true, RetainHandling: 1, Id: 9},
		{Client: "b", Filter: "y/+", Group: "g", Qos: 1, Node: "node2"},
	}
	if req.Client != "" {
		all = slices.DeleteFunc(all, func(s *adminpb.Subscription) bool { return s.Client != req.Client })
	}
	return &adminpb.ListSubscriptionsResponse{Subscriptions: all}, nil
}

func (fake) ListRoutes(_ context.Context, req *adminpb.ListRoutesRequest) (*adminpb.ListRoutesResponse, error) {
	all := []*adminpb.Route{
		{Filter: "x/#", Nodes: []string{"node1", "node3"}, Clients: 3, Offline: 1, Persistent: 2, Qos: 2, Logged: true},
		{Filter: "y/+", Group: "g", Nodes: []string{"node2"}, Clients: 1, Qos: 1},
	}
	if req.Shared {
		all = all[1:]
	}
	return &adminpb.ListRoutesResponse{Routes: all}, nil
}

func (fake) ListRetained(_ context.Context, req *adminpb.ListRetainedRequest) (*adminpb.ListRetainedResponse, error) {
	if req.Filter == "a/#/b" {
		return nil, status.Error(codes.InvalidArgument, "filter: # must be the last level")
	}
	return &adminpb.ListRetainedResponse{Retained: []*adminpb.Retained{
		{Topic: "t/text", Qos: 1, Size: 5, Payload: []byte("21 °C"), Stored: ago(time.Minute), Publisher: "a"},
		{Topic: "t/bytes", Size: 3, Payload: []byte{0xff, 0, '\n'}, Stored: ago(50 * time.Hour), Expires: ago(-time.Second)},
	}}, nil
}

func (fake) DrainNode(req *adminpb.DrainNodeRequest, s grpc.ServerStreamingServer[adminpb.DrainProgress]) error {
	if req.Node == "node9" {
		return status.Error(codes.NotFound, "no node \"node9\"")
	}
	for _, left := range []uint64{2, 2, 0} {
		if err := s.Send(&adminpb.DrainProgress{Node: req.Node, Phase: "clients are leaving", Total: 2, Left: left}); err != nil {
			return err
		}
	}
	if req.Node == "node3" {
		return nil // without the last word
	}
	return s.Send(&adminpb.DrainProgress{Node: req.Node, Done: true, Total: 2})
}

func (fake) RemoveNode(_ context.Context, req *adminpb.RemoveNodeRequest) (*adminpb.RemoveNodeResponse, error) {
	if !req.Force {
		return nil, status.Error(codes.FailedPrecondition, "the node is in service: drain and stop it first")
	}
	return &adminpb.RemoveNodeResponse{}, nil
}

func (fake) Version(context.Context, *adminpb.VersionRequest) (*adminpb.VersionResponse, error) {
	return &adminpb.VersionResponse{Node: "node1", Version: "v1", Commit: "abc", Go: "go1"}, nil
}

func (fake) DescribeClient(_ context.Context, req *adminpb.DescribeClientRequest) (*adminpb.DescribeClientResponse, error) {
	switch req.Id {
	case "a":
		return &adminpb.DescribeClientResponse{
			Client: &adminpb.Client{
				Id: "a", Node: "node1", Address: "192.0.2.1:4000", Username: "u", Protocol: 5, Keepalive: 60, Connected: ago(192 * time.Second),
				Listener: "tcp://:1883", Inflight: 1, Queued: 7, MessagesIn: 5, MessagesOut: 6, BytesIn: 70, BytesOut: 80,
			},
			Session:       &adminpb.Session{Id: "a", Expiry: 3600, Queued: 8, QueuedBytes: 900, Cursor: 42, Last: 50, HasWill: true},
			Subscriptions: []*adminpb.Subscription{{Client: "a", Filter: "x/#", Qos: 2, Persistent: true, Node: "node1"}},
			Dropped:       map[string]uint64{"queue_full": 3, "expired": 1},
			Missing:       []*adminpb.Missing{{Node: "node2", Reason: "no answer in time"}},
			Events:        fakeEvents()[2:],
		}, nil
	case "z":
		return &adminpb.DescribeClientResponse{Session: &adminpb.Session{Id: "z", Expiry: 90000, Expires: ago(-time.Hour)}}, nil
	}
	return nil, status.Error(codes.NotFound, "no client \""+req.Id+"\"")
}

func (fake) Explain(_ context.Context, req *adminpb.ExplainRequest) (*adminpb.ExplainResponse, error) {
	if req.Topic == "quiet" {
		return &adminpb.ExplainResponse{Road: "link", Reason: "why"}, nil
	}
	return &adminpb.ExplainResponse{
		Road: "log", Reason: fmt.Sprintf("QoS %d, retain %v, from %q", req.Qos, req.Retain, req.Publisher),
		Subscriptions: []*adminpb.Explained{
			{Subscription: &adminpb.Subscription{Client: "a", Filter: "x/#"}, Qos: 1, Outcome: "delivered by node1", Delivered: true},
			{Subscription: &adminpb.Subscription{Client: "b", Filter: "#"}, Outcome: "not delivered: No Local"},
		},
		Missing: []*adminpb.Missing{{Node: "node2", Reason: "no answer in time"}},
		Refused: req.AsUser && req.Username == "eve", Verdict: map[bool]string{true: fmt.Sprintf("user %q says so", req.Username)}[req.AsUser],
	}, nil
}

func (fake) DisconnectClient(_ context.Context, req *adminpb.DisconnectClientRequest) (*adminpb.DisconnectClientResponse, error) {
	if req.Id != "a" {
		return nil, status.Error(codes.NotFound, "client is not connected")
	}
	return &adminpb.DisconnectClientResponse{Node: "node1"}, nil
}

func (fake) DeleteSession(context.Context, *adminpb.DeleteSessionRequest) (*adminpb.DeleteSessionResponse, error) {
	return &adminpb.DeleteSessionResponse{}, nil
}

func (fake) Publish(_ context.Context, req *adminpb.PublishRequest) (*adminpb.PublishResponse, error) {
	if strings.ContainsAny(req.Topic, "+#") || !req.Retain {
		return nil, status.Errorf(codes.InvalidArgument, "topic %q: retain %v", req.Topic, req.Retain)
	}
	return &adminpb.PublishResponse{}, nil
}

func (fake) DeleteRetained(context.Context, *adminpb.DeleteRetainedRequest) (*adminpb.DeleteRetainedResponse, error) {
	return &adminpb.DeleteRetainedResponse{Deleted: 12}, nil
}

func serve(t *testing.T) string { return serveAdmin(t, fake{}) }

func serveAdmin(t *testing.T, service adminpb.AdminServer) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	adminpb.RegisterAdminServer(s, service)
	adminpb.RegisterAccessServer(s, fakeAccess{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// TestTranscripts runs the command lines of testdata, each with its output and its exit code.
func TestTranscripts(t *testing.T) {
	server := serve(t)
	ready := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/livez" {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "not ready: no lease")
			return
		}
		fmt.Fprintln(w, "ok")
	}))
	defer ready.Close()
	now = func() time.Time { return clock }
	defer func() { now = time.Now }()
	files := accessFiles(t)
	folder := t.TempDir()
	replace := strings.NewReplacer("$SERVER", server, "$HTTP", strings.TrimPrefix(ready.URL, "http://"))
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		contexts := filepath.Join(folder, filepath.Base(path)+".yaml") // each transcript has its own
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out, errs bytes.Buffer
			env := Env{
				Out: &out, Err: &errs, Environ: []string{"SKEIN_BASE=1", "SKEIN_CONTEXTS=" + contexts},
				Run: func(_ context.Context, c *config.Config) error {
					fmt.Fprintf(&out, "run node %q on %s, max_qos %d\n", c.Node.ID, c.Listen, c.MQTT.MaxQoS)
					if c.Node.ID == "broken" {
						return errors.New("the data folder is locked")
					}
					return nil
				},
			}
			err := Execute(t.Context(), env, strings.Fields(files.Replace(replace.Replace(strings.TrimSpace(d.Input))))[1:])
			text := out.String()
			if err != nil {
				fmt.Fprintf(&errs, "skein: %v\n", err)
			}
			for line := range strings.Lines(errs.String()) {
				text += "stderr: " + line
			}
			if code := ExitCode(err); code != 0 {
				text += fmt.Sprintf("exit %d\n", code)
			}
			for _, name := range []string{"$USERS", "$BAD", "$UNKNOWN", "$OTHER", "$FIXED", "$EMPTY", "$DIR"} {
				text = strings.ReplaceAll(text, files.Replace(name), name)
			}
			text = strings.NewReplacer(contexts, "$CONTEXTS", server, "$SERVER", strings.TrimPrefix(ready.URL, "http://"), "$HTTP").Replace(text)
			// datadriven ends an output at an empty line: tables have none, help texts do.
			lines := strings.Split(text, "\n")
			for i := range lines {
				lines[i] = strings.TrimRight(lines[i], " ")
			}
			return strings.Join(lines, "\n")
		})
	})
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	err = Execute(t.Context(), Env{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}, []string{"get", "nodes", "--server", address})
	if err == nil || ExitCode(err) != 1 || !strings.Contains(err.Error(), "no node answers at "+address) {
		t.Errorf("got %v", err)
	}
}

// TestSilentServer: a node that accepts and says nothing costs no more than the time-out.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = Execute(t.Context(), Env{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}},
		[]string{"get", "nodes", "--server", l.Addr().String(), "--request-timeout", "50ms"})
	if err == nil || !strings.Contains(err.Error(), "did not answer in time") {
		t.Errorf("got %v", err)
	}
}

// TestColumns: every resource has names, and -o name and wide show nothing that a client can
// use to move an operator's cursor.
func TestColumns(t *testing.T) {
	for _, r := range resources() {
		if r.name == "" || r.singular == "" || r.id == nil || len(r.columns) == 0 {
			t.Errorf("%+v", r)
		}
	}
	var b bytes.Buffer
	l := listing{items: []proto.Message{&adminpb.Client{Id: "\x1b[2J\n", Username: "\x07"}}}
	for _, format := range []string{"wide", "name"} {
		if err := l.print(&b, clients(), getOptions{format: format, noHeaders: true}); err != nil {
			t.Fatal(err)
		}
	}
	if strings.ContainsAny(b.String(), "\x1b\x07") || strings.Count(b.String(), "\n") != 2 {
		t.Errorf("%q", b.String())
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", -time.Second: "0s", 59 * time.Second: "59s", 60 * time.Second: "1m", 61 * time.Second: "1m1s",
		2*time.Hour + time.Second: "2h", 25*time.Hour + time.Minute: "1d1h",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
