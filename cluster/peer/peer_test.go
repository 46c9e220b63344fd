package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds whatever a test waits for, on a busy machine too.
const patience = time.Minute

// identities is a node's identity in memory.
type identities struct {
	mu sync.Mutex
	id string
}

func (i *identities) Get() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.id
}

func (i *identities) Adopt(id string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.id == "" {
		i.id = id
	}
	return nil
}

// greeter answers Join with the message "server: node", and sends back what links carry.
type greeter struct {
	clusterpb.UnimplementedPeerServer
	name string
}

func (g greeter) Join(_ context.Context, r *clusterpb.JoinRequest) (*clusterpb.JoinReply, error) {
	return &clusterpb.JoinReply{Message: g.name + ": " + r.Node}, nil
}

func (g greeter) Link(s clusterpb.Peer_LinkServer) error {
	for {
		d, err := s.Recv()
		if err != nil {
			return err
		}
		if err := s.Send(&clusterpb.LinkAck{Sequence: uint64(len(d.Frames))}); err != nil {
			return err
		}
	}
}

func open(t *testing.T, server string, change ...func(*Config)) *Port {
	t.Helper()
	cfg := Config{Bind: "127.0.0.1:0", Cluster: "skein", Server: server, Identity: &identities{id: "one"}}
	for _, c := range change {
		c(&cfg)
	}
	p, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	p.Serve(greeter{name: server})
	return p
}

func join(t *testing.T, from *Port, address string) (string, error) {
	t.Helper()
	client, err := from.Control(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := client.Join(ctx, &clusterpb.JoinRequest{Node: from.cfg.Server})
	return r.GetMessage(), err
}

// to finds one server at one address.
func to(server, at string) func(string) (string, string, bool) {
	return func(string) (string, string, bool) { return server, at, true }
}

// echo accepts raft streams and sends back what they say.
func echo(t *testing.T, p *Port) *Streams {
	s := p.Raft(func(string) (string, string, bool) { return "", "", false })
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := s.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() { _ = s.Close(); group.Wait() })
	return s
}

// TestShared: calls and raft's streams share the port.
func TestShared(t *testing.T) {
	for _, bind := range []string{"127.0.0.1:0", "[::1]:0"} {
		if l, err := net.Listen("tcp", bind); err != nil {
			t.Logf("%s: %v", bind, err)
			continue
		} else if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		a := open(t, "a")
		b := open(t, "b", func(c *Config) { c.Bind = bind })
		if got, err := join(t, a, b.Address()); err != nil || got != "b: a" {
			t.Errorf("%q %v", got, err)
		}
		accepts := echo(t, b)
		if accepts.Addr().String() != b.Address() {
			t.Errorf("raft thinks it is at %s", accepts.Addr())
		}
		conn, err := a.Raft(to("b", b.Address())).Dial(raft.ServerAddress(b.Address()), patience)
		if err != nil {
			t.Fatal(err)
		}
		said := strings.Repeat("x", 1<<20)
		var group sync.WaitGroup
		group.Go(func() { _, _ = io.WriteString(conn, said) })
		heard := make([]byte, len(said))
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(conn, heard); err != nil || string(heard) != said {
			t.Errorf("not what was said: %v", err)
		}
		group.Wait()
		_ = conn.Close()
	}
}

// TestOtherCluster: neither a name nor an identity that differs is let in, whichever side has it.
func TestOtherCluster(t *testing.T) {
	a := open(t, "a")
	echo(t, a)
	for _, other := range []*Port{
		open(t, "x", func(c *Config) { c.Cluster = "other" }),
		open(t, "y", func(c *Config) { c.Identity = &identities{id: "two"} }),
	} {
		echo(t, other)
		for _, pair := range [][2]*Port{{a, other}, {other, a}} {
			_, err := join(t, pair[0], pair[1].Address())
			if err == nil || !strings.Contains(err.Error(), "belongs to another cluster") {
				t.Errorf("%s: %v", other.cfg.Server, err)
			}
			_, err = pair[0].Raft(to(pair[1].cfg.Server, pair[1].Address())).Dial("z:1", patience)
			if !errors.Is(err, ErrOtherCluster) {
				t.Errorf("%s: raft: %v", other.cfg.Server, err)
			}
		}
	}
}

// TestBlank: a blank node may ask anybody; whose log it is sent first, it stays with.
func TestBlank(t *testing.T) {
	own := &identities{}
	blank := open(t, "n", func(c *Config) { c.Identity = own })
	echo(t, blank)
	one, two := open(t, "a"), open(t, "b", func(c *Config) { c.Identity = &identities{id: "two"} })
	for _, p := range []*Port{one, two} {
		if _, err := join(t, blank, p.Address()); err != nil {
			t.Error(err)
		}
		if _, err := join(t, p, blank.Address()); err != nil {
			t.Error(err)
		}
	}
	if own.Get() != "" {
		t.Fatalf("a question made it adopt %q", own.Get())
	}
	conn, err := two.Raft(to("n", blank.Address())).Dial("n:1", patience)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if own.Get() != "two" {
		t.Fatalf("it has adopted %q", own.Get())
	}
	if _, err := one.Raft(to("n", blank.Address())).Dial("n:1", patience); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("a second log: %v", err)
	}
}

// TestOtherServer: a raft stream for a server whose address another one has now leads nowhere.
func TestOtherServer(t *testing.T) {
	a, b := open(t, "a"), open(t, "b/new")
	echo(t, b)
	if _, err := a.Raft(to("b/old", b.Address())).Dial("b:1", patience); !errors.Is(err, ErrOtherServer) {
		t.Errorf("got %v", err)
	}
	nobody := func(string) (string, string, bool) { return "", "", false }
	if _, err := a.Raft(nobody).Dial("b:1", patience); !errors.Is(err, ErrOtherServer) {
		t.Errorf("an address that the configuration does not have: %v", err)
	}
}

// TestStrangers: what greets wrongly or not at all takes nothing from the others.
func TestStrangers(t *testing.T) {
	a, b := open(t, "a"), open(t, "b")
	var held []net.Conn
	for _, hello := range []string{"", "GET / HTTP/1.1\r\n\r\n", "SKN\x01", "SKN\x02g\x00\x00\x00", "SKN\x01q\x05skein\x00\x00", "SKN\x01g\xff"} {
		conn, err := net.Dial("tcp", b.Address())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
		if _, err := io.WriteString(conn, hello); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := join(t, a, b.Address()); err != nil {
		t.Error(err)
	}
	for i, conn := range held {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("connection %d was answered", i)
		} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("connection %d is open still", i)
		}
		_ = conn.Close()
	}
	// The other way round: a stranger answers where a node should be.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = conn.Close()
		}
	})
	if _, err := a.Raft(to("c", l.Addr().String())).Dial("c:1", patience); err == nil {
		t.Error("a stranger was taken for a node")
	}
	_ = l.Close()
	group.Wait()
}

// TestBack: a client finds a node again that was away, and large messages pass.
func TestBack(t *testing.T) {
	a, b := open(t, "a"), open(t, "b")
	address := b.Address()
	if _, err := join(t, a, address); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := join(t, a, address); status.Code(err) != codes.Unavailable {
		t.Errorf("it is away: %v", err)
	}
	back := open(t, "b2", func(c *Config) { c.Bind = address })
	deadline := time.Now().Add(patience)
	for {
		got, err := join(t, a, address)
		if err == nil && got == "b2: a" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q %v", got, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	client, err := a.Peer(back.Address())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := client.Link(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20 // twice what gRPC takes by default
	if err := s.Send(&clusterpb.LinkData{Frames: make([]byte, size)}); err != nil {
		t.Fatal(err)
	}
	if ack, err := s.Recv(); err != nil || ack.Sequence != size {
		t.Errorf("%v %v", ack, err)
	}
	cancel()
	_, _ = s.Recv()
}

// TestKeep: connections to nodes that are gone are closed, the others are kept.
func TestKeep(t *testing.T) {
	a, b, c := open(t, "a"), open(t, "b"), open(t, "c")
	for _, p := range []*Port{b, c} {
		if _, err := join(t, a, p.Address()); err != nil {
			t.Fatal(err)
		}
	}
	kept := a.pool[connection{b.Address(), true}]
	a.Keep([]string{b.Address()})
	if len(a.pool) != 1 || a.pool[connection{b.Address(), true}] != kept {
		t.Errorf("%v", a.pool)
	}
	if got, err := join(t, a, c.Address()); err != nil || got != "c: a" {
		t.Errorf("asked again: %q %v", got, err)
	}
}

// TestClose: calls that are under way end, and nothing is given out any more.
func TestClose(t *testing.T) {
	a, b := open(t, "a"), open(t, "b")
	client, err := a.Peer(b.Address())
	if err != nil {
		t.Fatal(err)
	}
	s, err := client.Link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&clusterpb.LinkData{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	b.Quiet()
	if _, err := s.Recv(); err == nil {
		t.Error("the call goes on")
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Peer(a.Address()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := b.Raft(to("a", a.Address())).Dial("a:1", patience); err == nil {
		t.Error("raft dials still")
	}
}

func TestAdvertised(t *testing.T) {
	for _, test := range []struct{ configured, bound, want string }{
		{"", "127.0.0.1:7884", "127.0.0.1:7884"},
		{"", "[::1]:7884", "[::1]:7884"},
		{"node1:7000", "0.0.0.0:7884", "node1:7000"},
		{"node1:0", "[::]:7884", "node1:7884"},
		{"[2001:db8::1]:0", "[::]:7884", "[2001:db8::1]:7884"},
		{"", "0.0.0.0:7884", ""},
		{"", "[::]:7884", ""},
		{"node1", "127.0.0.1:7884", ""},
	} {
		got, err := advertised(test.configured, test.bound)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%+v: %q %v", test, got, err)
		}
	}
	if _, err := Open(Config{Bind: "127.0.0.1:0", Cluster: strings.Repeat("x", 256), Identity: &identities{}}); err == nil {
		t.Error("a name that no greeting can carry")
	}
}

// TestOrders: whoever else serves nodes has connections of its own, under the same greeting.
func TestOrders(t *testing.T) {
	a, b := open(t, "a"), open(t, "b")
	accepted := make(chan net.Conn, 1)
	var group sync.WaitGroup
	group.Go(func() {
		if conn, err := b.Orders().Accept(); err == nil {
			accepted <- conn
		}
		close(accepted)
	})
	conn, err := a.DialOrders(t.Context(), b.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "x"); err != nil {
		t.Fatal(err)
	}
	other := <-accepted
	group.Wait()
	if other == nil {
		t.Fatal("no connection came")
	}
	defer other.Close()
	if got := make([]byte, 1); read(other, got) != nil || got[0] != 'x' {
		t.Errorf("got %q", got)
	}
	x := open(t, "x", func(c *Config) { c.Cluster = "other" })
	if _, err := x.DialOrders(t.Context(), b.Address()); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("another cluster: %v", err)
	}
}

func read(conn net.Conn, b []byte) error {
	_, err := io.ReadFull(conn, b)
	return err
}
