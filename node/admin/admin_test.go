package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/node/ring"
	"github.com/skein-mqtt/skein/node/trace"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is what all nodes of a test share: the members and the replicated state.
type world struct {
	mu       sync.Mutex
	nodes    []*adminpb.Node
	sessions []*adminpb.Session
	clients  []*adminpb.Client
	subs     []*adminpb.Subscription
	retained []*adminpb.Retained
	removed  []string
}

// node is one node's own knowledge.
type node struct {
	*world
	id       string
	clients  []*adminpb.Client
	subs     []*adminpb.Subscription
	mu       sync.Mutex
	draining int // calls of DrainStatus since StartDrain
	drains   bool
	block    chan struct{} // closed: lists answer
	server   *Server
	cordoned bool
	shed     int
	settings map[string]string
	events   *event.Log
	tracer   trace.Tracer
	lines    *ring.Ring[Line]
}

func (w *world) Sessions(after string, fn func(*adminpb.Session) bool) {
	for _, s := range w.sessions {
		if s.Id > after && !fn(proto.CloneOf(s)) {
			return
		}
	}
}

func (w *world) Clients(after string, fn func(*adminpb.Client) bool) {
	for _, c := range w.clients {
		if c.Id > after && !fn(proto.CloneOf(c)) {
			return
		}
	}
}

func (w *world) Subscriptions(from string, fn func(*adminpb.Subscription) bool) {
	for _, s := range w.subs {
		if s.Client >= from && !fn(proto.CloneOf(s)) {
			return
		}
	}
}

func (w *world) Retained(_, after string, fn func(*adminpb.Retained) bool) {
	for _, r := range w.retained {
		if r.Topic > after && !fn(proto.CloneOf(r)) {
			return
		}
	}
}

func (w *world) Session(id string) (*adminpb.Session, bool) {
	for _, s := range w.sessions {
		if s.Id == id {
			return proto.CloneOf(s), true
		}
	}
	return nil, false
}

func (w *world) Hash() (uint64, []byte) { return 7, []byte("digest") }

func (n *node) Nodes() []*adminpb.Node {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	var all []*adminpb.Node
	for _, m := range n.nodes {
		all = append(all, proto.CloneOf(m))
	}
	return all
}

func (n *node) leader() bool {
	for _, m := range n.Nodes() {
		if m.Id == n.id {
			return m.Role == "leader"
		}
	}
	return false
}

func (n *node) Remove(_ context.Context, id string, force bool) error {
	if !n.leader() {
		return fmt.Errorf("%w: %s does", ErrNotLeader, "another")
	}
	if !force {
		return fmt.Errorf("%w: drain and stop it first", ErrLive)
	}
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	n.removed = append(n.removed, n.id+" removes "+id)
	return nil
}

func (n *node) Transfer(context.Context, string) (string, error) {
	if !n.leader() {
		return "", ErrNotLeader
	}
	return "node2", nil
}

// local hides the world's methods of the same names.
type local struct{ n *node }

func (l local) Losses(client string) map[string]uint64 {
	if client == "lossy" {
		return map[string]uint64{"expired": 1, l.n.id: 2}
	}
	return nil
}

func (l local) Road(req *adminpb.ExplainRequest) (string, string) {
	return "link", "asked for " + req.Topic
}

func (l local) MayPublish(username, client, _ string) (bool, string) {
	return username != "eve", "user " + username + " as " + client
}

func (l local) MayReceive(client, _ string) bool { return client != "denied" }

func (l local) Disconnect(client string) bool {
	return slices.ContainsFunc(l.n.clients, func(c *adminpb.Client) bool { return c.Id == client })
}

func (l local) DeleteSession(_ context.Context, client string) error {
	if _, ok := l.n.Session(client); !ok {
		return fmt.Errorf("%w: %s", ErrUnknownClient, client)
	}
	return nil
}

func (l local) Publish(_ context.Context, req *adminpb.PublishRequest) (bool, error) {
	l.n.world.mu.Lock()
	defer l.n.world.mu.Unlock()
	l.n.removed = append(l.n.removed, fmt.Sprintf("%s retain=%v %q", req.Topic, req.Retain, req.Payload))
	return true, nil
}

func (l local) Node(row *adminpb.Node) {
	row.State, row.Clients, row.Applied = "ready", uint64(len(l.n.clients)), 42
}

func (l local) Clients(fn func(*adminpb.Client) bool) {
	if l.n.block != nil {
		<-l.n.block
	}
	for _, c := range l.n.clients {
		if !fn(proto.CloneOf(c)) {
			return
		}
	}
}

func (l local) Subscriptions(fn func(*adminpb.Subscription) bool) {
	for _, s := range l.n.subs {
		if !fn(proto.CloneOf(s)) {
			return
		}
	}
}

func (l local) StartDrain(int, time.Duration) error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	l.n.drains = true
	return nil
}

func (l local) DrainStatus() (*adminpb.DrainProgress, error) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.n.draining++; l.n.draining > 2 {
		return &adminpb.DrainProgress{Done: true}, nil
	}
	return &adminpb.DrainProgress{Phase: "leaving", Left: 1, Total: 1}, nil
}

// cluster starts n nodes; node1 leads. It returns a client of each.
func cluster(t *testing.T, w *world, nodes ...*node) []adminpb.AdminClient {
	t.Helper()
	var clients []adminpb.AdminClient
	for i, n := range nodes {
		n.world, n.id = w, fmt.Sprintf("node%d", i+1)
		role := "follower"
		if i == 0 {
			role = "leader"
		}
		n.events, n.lines = event.New(1000), ring.New[Line](10)
		nodes, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(Config{
			Self: n.id, Listen: "127.0.0.1:0", Nodes: nodes, Gather: 300 * time.Millisecond, Version: &adminpb.VersionResponse{Node: n.id},
			Events: n.events, Tracer: &n.tracer, Lines: n.lines,
		}, w, local{n}, n)
		if err != nil {
			t.Fatal(err)
		}
		n.server = s
		w.nodes = append(w.nodes, &adminpb.Node{Id: n.id, Role: role, Incarnation: uint64(i + 1), PeerAddress: nodes.Addr().String()})
		conn, err := grpc.NewClient(s.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			conn.Close()
			s.Close()
		})
		clients = append(clients, adminpb.NewAdminClient(conn))
	}
	return clients
}

// pages reads a whole list of clients in pages of size.
func pages(t *testing.T, c adminpb.AdminClient, size uint32) (ids []string, missing []*adminpb.Missing) {
	t.Helper()
	token := ""
	for range 100 {
		res, err := c.ListClients(t.Context(), &adminpb.ListClientsRequest{Page: &adminpb.Page{Size: size, Token: token}})
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Clients) > int(size) {
			t.Fatalf("a page of %d, asked for %d", len(res.Clients), size)
		}
		for _, c := range res.Clients {
			ids = append(ids, c.Id+"@"+c.Node)
		}
		missing = res.Missing
		if token = res.NextToken; token == "" {
			return ids, missing
		}
	}
	t.Fatal("the list does not end")
	return nil, nil
}

func TestClientsOfAllNodes(t *testing.T) {
	var nodes [3]*node
	var want []string
	for i := range nodes {
		nodes[i] = &node{}
		for j := range 7 {
			id := fmt.Sprintf("c%d%d", j, i)
			nodes[i].clients = append(nodes[i].clients, &adminpb.Client{Id: id})
			want = append(want, fmt.Sprintf("%s@node%d", id, i+1))
		}
		slices.Reverse(nodes[i].clients)
	}
	slices.Sort(want)
	clients := cluster(t, &world{}, nodes[:]...)
	for _, size := range []uint32{1, 2, 3, 7, 20, 21, 100} {
		for _, c := range clients {
			got, missing := pages(t, c, size)
			if !slices.Equal(got, want) || len(missing) > 0 {
				t.Errorf("pages of %d: %v, missing %v", size, got, missing)
			}
		}
	}
	res, err := clients[0].ListClients(t.Context(), &adminpb.ListClientsRequest{Node: "node2"})
	if err != nil || len(res.Clients) != 7 || res.Clients[0].Node != "node2" {
		t.Errorf("%v %v", res, err)
	}
	if _, err := clients[0].ListClients(t.Context(), &adminpb.ListClientsRequest{Node: "node9"}); status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
	if _, err := clients[0].ListClients(t.Context(), &adminpb.ListClientsRequest{Page: &adminpb.Page{Size: 6000}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

// TestTakeover: two nodes show the same client for a moment; the newer connection counts.
func TestTakeover(t *testing.T) {
	clients := cluster(t, &world{},
		&node{clients: []*adminpb.Client{{Id: "a", Epoch: 5}}}, &node{clients: []*adminpb.Client{{Id: "a", Epoch: 9}}})
	for _, c := range clients {
		if got, _ := pages(t, c, 10); !slices.Equal(got, []string{"a@node2"}) {
			t.Errorf("got %v", got)
		}
	}
}

// TestSilentNode: a node that does not answer costs no more than the time for gathering; what
// the log knows of its clients is shown.
func TestSilentNode(t *testing.T) {
	w := &world{clients: []*adminpb.Client{{Id: "a", Node: "node1"}, {Id: "b", Node: "node2"}, {Id: "d", Node: "node2"}}}
	block := make(chan struct{})
	clients := cluster(t, w,
		&node{clients: []*adminpb.Client{{Id: "a"}, {Id: "c"}}}, &node{clients: []*adminpb.Client{{Id: "b"}, {Id: "d"}}, block: block})
	defer close(block)
	start := time.Now()
	res, err := clients[0].ListClients(t.Context(), &adminpb.ListClientsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if time.Since(start) > 2*time.Second {
		t.Errorf("it took %v", time.Since(start))
	}
	var got []string
	for _, c := range res.Clients {
		got = append(got, fmt.Sprint(c.Id, c.Partial))
	}
	if want := []string{"a false", "b true", "c false", "d true"}; !slices.Equal(got, []string{"afalse", "btrue", "cfalse", "dtrue"}) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(res.Missing) != 1 || res.Missing[0].Node != "node2" || res.Missing[0].Reason != "no answer in time" {
		t.Errorf("missing %v", res.Missing)
	}
}

func TestNodes(t *testing.T) {
	w := &world{}
	clients := cluster(t, w, &node{clients: []*adminpb.Client{{Id: "a"}}}, &node{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	w.nodes = append(w.nodes,
		&adminpb.Node{Id: "node3", Role: "follower", Incarnation: 3, PeerAddress: gone},
		&adminpb.Node{Id: "node4", Role: "nonvoter", PeerAddress: gone})
	for _, c := range clients {
		res, err := c.ListNodes(t.Context(), &adminpb.ListNodesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range res.Nodes {
			got = append(got, fmt.Sprintf("%s %s %s %d %d", n.Id, n.State, n.Role, n.Clients, n.Applied))
		}
		want := []string{"node1 ready leader 1 42", "node2 ready follower 0 42", "node3 unknown follower 0 0", "node4 down nonvoter 0 0"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		if len(res.Missing) != 1 || res.Missing[0].Node != "node3" {
			t.Errorf("missing %v", res.Missing)
		}
	}
}

func TestSubscriptions(t *testing.T) {
	w := &world{}
	var want []string
	for i := range 5 {
		for j := range 3 {
			s := &adminpb.Subscription{Client: fmt.Sprintf("p%d", i), Filter: fmt.Sprintf("t/%d", 2-j), Persistent: true}
			w.subs = append(w.subs, s)
			want = append(want, subscriptionKey(s))
		}
	}
	a, b := &node{}, &node{}
	for i := range 5 {
		s := &adminpb.Subscription{Client: fmt.Sprintf("c%d", i), Filter: "t/#"}
		s2 := &adminpb.Subscription{Client: fmt.Sprintf("q%d", i), Filter: "t/1", Group: "g"}
		a.subs, b.subs = append(a.subs, s), append(b.subs, s2)
		want = append(want, subscriptionKey(s), subscriptionKey(s2))
	}
	slices.Sort(want)
	clients := cluster(t, w, a, b)
	list := func(req *adminpb.ListSubscriptionsRequest) (keys []string) {
		for range 100 {
			res, err := clients[1].ListSubscriptions(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range res.Subscriptions {
				keys = append(keys, subscriptionKey(s))
			}
			if res.NextToken == "" {
				return keys
			}
			req.Page.Token = res.NextToken
		}
		t.Fatal("the list does not end")
		return nil
	}
	for _, size := range []uint32{1, 2, 4, 7, 25, 100} {
		if got := list(&adminpb.ListSubscriptionsRequest{Page: &adminpb.Page{Size: size}}); !slices.Equal(got, want) {
			t.Errorf("pages of %d: %q", size, got)
		}
		matching := slices.DeleteFunc(slices.Clone(want), func(k string) bool {
			return !strings.Contains(k, "\x00t/1\x00") && !strings.Contains(k, "#")
		})
		if got := list(&adminpb.ListSubscriptionsRequest{Page: &adminpb.Page{Size: size}, Topic: "t/1"}); !slices.Equal(got, matching) {
			t.Errorf("pages of %d, topic: %q", size, got)
		}
		if got := list(&adminpb.ListSubscriptionsRequest{Page: &adminpb.Page{Size: size}, Client: "p3"}); len(got) != 3 {
			t.Errorf("pages of %d, client: %q", size, got)
		}
	}
}

func TestSessions(t *testing.T) {
	w := &world{}
	for i := range 10 {
		w.sessions = append(w.sessions, &adminpb.Session{Id: fmt.Sprintf("s%d", i), Connected: i%2 == 0, Node: fmt.Sprintf("node%d", 1+i%2)})
	}
	c := cluster(t, w, &node{})[0]
	var got []string
	req := &adminpb.ListSessionsRequest{Page: &adminpb.Page{Size: 3}}
	for range 10 {
		res, err := c.ListSessions(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range res.Sessions {
			got = append(got, s.Id)
		}
		if req.Page.Token = res.NextToken; res.NextToken == "" {
			break
		}
	}
	if len(got) != 10 || !slices.IsSorted(got) {
		t.Errorf("got %v", got)
	}
	res, err := c.ListSessions(t.Context(), &adminpb.ListSessionsRequest{Node: "node1"})
	if err != nil || len(res.Sessions) != 5 || res.NextToken != "" {
		t.Errorf("%v %v", res, err)
	}
}

func TestRetained(t *testing.T) {
	w := &world{}
	for i := range 5 {
		w.retained = append(w.retained, &adminpb.Retained{Topic: fmt.Sprintf("t/%d", i), Payload: bytes.Repeat([]byte("x"), 600<<10)})
	}
	c := cluster(t, w, &node{})[0]
	res, err := c.ListRetained(t.Context(), &adminpb.ListRetainedRequest{})
	if err != nil || len(res.Retained) != 5 || res.Retained[0].Size != 600<<10 || len(res.Retained[0].Payload) != 64 {
		t.Errorf("%v %v", len(res.GetRetained()), err)
	}
	n, token := 0, ""
	for range 10 {
		res, err := c.ListRetained(t.Context(), &adminpb.ListRetainedRequest{Payload: true, Page: &adminpb.Page{Token: token}})
		if err != nil {
			t.Fatal(err)
		}
		n += len(res.Retained)
		if proto.Size(res) > 2<<20 {
			t.Errorf("a page of %d bytes", proto.Size(res))
		}
		if token = res.NextToken; token == "" {
			break
		}
	}
	if n != 5 {
		t.Errorf("%d messages", n)
	}
}

func TestOrders(t *testing.T) {
	w := &world{}
	clients := cluster(t, w, &node{}, &node{})
	for i, c := range clients { // the second one forwards to the leader
		if _, err := c.RemoveNode(t.Context(), &adminpb.RemoveNodeRequest{Node: "node2"}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%d: %v", i, err)
		}
		if _, err := c.RemoveNode(t.Context(), &adminpb.RemoveNodeRequest{Node: "node2", Force: true}); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		if _, err := c.RemoveNode(t.Context(), &adminpb.RemoveNodeRequest{Node: "node7"}); status.Code(err) != codes.NotFound {
			t.Errorf("%d: %v", i, err)
		}
		if _, err := c.RemoveNode(t.Context(), &adminpb.RemoveNodeRequest{}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%d: %v", i, err)
		}
		res, err := c.TransferLeader(t.Context(), &adminpb.TransferLeaderRequest{})
		if err != nil || res.Leader != "node2" {
			t.Errorf("%d: %v %v", i, res, err)
		}
		if v, err := c.Version(t.Context(), &adminpb.VersionRequest{}); err != nil || v.Node != fmt.Sprintf("node%d", i+1) {
			t.Errorf("%d: %v %v", i, v, err)
		}
		if h, err := c.StateHash(t.Context(), &adminpb.StateHashRequest{}); err != nil || h.Applied != 7 {
			t.Errorf("%d: %v %v", i, h, err)
		}
	}
	if want := []string{"node1 removes node2", "node1 removes node2"}; !slices.Equal(w.removed, want) {
		t.Errorf("got %q", w.removed)
	}
	w.mu.Lock()
	w.nodes[0].Role = "follower" // nobody leads
	w.mu.Unlock()
	if _, err := clients[1].RemoveNode(t.Context(), &adminpb.RemoveNodeRequest{Node: "node2", Force: true}); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestDrain(t *testing.T) {
	a, b := &node{}, &node{}
	clients := cluster(t, &world{}, a, b)
	for i, c := range clients { // the first one relays
		b.mu.Lock()
		b.draining = 0
		b.mu.Unlock()
		stream, err := c.DrainNode(t.Context(), &adminpb.DrainNodeRequest{Node: "node2"})
		if err != nil {
			t.Fatal(err)
		}
		var last *adminpb.DrainProgress
		n := 0
		for {
			p, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			last = p
			n++
		}
		if last == nil || !last.Done || last.Node != "node2" || n != 3 {
			t.Errorf("%d: %v after %d", i, last, n)
		}
	}
	if a.drains || !b.drains {
		t.Error("the wrong node drained")
	}
}

func TestHealth(t *testing.T) {
	s, err := Open(Config{Self: "node1", Listen: "127.0.0.1:0"}, &world{}, local{&node{world: &world{}}}, &node{world: &world{}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn, err := grpc.NewClient(s.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, ready := range []bool{true, false} {
		s.SetServing(ready)
		res, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "skein.admin.v1.Admin"})
		if err != nil || (res.Status == healthpb.HealthCheckResponse_SERVING) != ready {
			t.Errorf("%v: %v %v", ready, res, err)
		}
	}
	if _, err := Open(Config{Listen: "nonsense"}, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "admin.listen") {
		t.Errorf("got %v", err)
	}
}

func (l local) Cordon(on, dryRun bool) (bool, error) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	changed := l.n.cordoned != on
	if !dryRun {
		l.n.cordoned = on
	}
	return changed, nil
}

func (l local) Shed(_ context.Context, count, rate int, progress func(total, left int)) {
	progress(count, count)
	l.n.mu.Lock()
	l.n.shed += count
	l.n.mu.Unlock()
	progress(count, 0)
}

func (l local) Snapshot(bool) (uint64, error) { return 77, nil }

func (l local) Settings(prefix string) (list []*adminpb.Setting) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	for _, k := range []string{"a.one", "b.two"} {
		if strings.HasPrefix(k, prefix) {
			list = append(list, &adminpb.Setting{Node: l.n.id, Key: k, Value: l.n.settings[k], Changeable: k == "a.one"})
		}
	}
	return list
}

func (l local) Set(key, value string, dryRun bool) (*adminpb.Setting, error) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if key != "a.one" {
		return nil, fmt.Errorf("%s can't be changed", key)
	}
	if !dryRun {
		l.n.settings = map[string]string{key: value}
	}
	return &adminpb.Setting{Node: l.n.id, Key: key, Value: value, Changeable: true}, nil
}

func (n *node) MayRemove(_ string, force bool) error {
	if !n.leader() {
		return ErrNotLeader
	}
	if !force {
		return fmt.Errorf("%w: drain and stop it first", ErrLive)
	}
	return nil
}

func (n *node) MayTransfer(string) error {
	if !n.leader() {
		return ErrNotLeader
	}
	return nil
}

func (n *node) Backup(_ context.Context, begin func(index uint64, time int64) io.Writer) error {
	_, err := begin(42, 43).Write(bytes.Repeat([]byte("state "), 100_000))
	return err
}

func (n *node) Restore(_ context.Context, r io.ReadSeeker, force, dryRun bool) (*adminpb.RestoreResponse, error) {
	if !n.leader() {
		return nil, ErrNotLeader
	}
	b, err := io.ReadAll(r)
	switch {
	case err != nil:
		return nil, err
	case !bytes.HasPrefix(b, []byte("state ")):
		return nil, fmt.Errorf("%w: %q", ErrBadBackup, b)
	case !force:
		return nil, ErrHasState
	case !dryRun:
		n.world.mu.Lock()
		defer n.world.mu.Unlock()
		n.removed = append(n.removed, fmt.Sprintf("%s restores %d bytes", n.id, len(b)))
	}
	return &adminpb.RestoreResponse{BackupIndex: 42}, nil
}
