package membership

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// memberlist's Shutdown does not wait for a probe that is under way: it ends by its own time-out.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// patience bounds whatever a test waits for, on a busy machine too.
const patience = time.Minute

func open(t *testing.T, id string, change ...func(*Config)) *Membership {
	t.Helper()
	cfg := Config{
		Bind: "127.0.0.1:0", Cluster: "skein",
		Self: Node{ID: id, Store: "s-" + id, Peer: id + ":1", MQTT: id + ":2", Admin: id + ":3", HTTP: id + ":4", Expect: 3},
	}
	for _, c := range change {
		c(&cfg)
	}
	m, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if m != nil {
			_ = m.Abort() // a second end does nothing
		}
	})
	return m
}

func joining(address ...string) func(*Config) {
	return func(c *Config) { c.Join = append(c.Join, address...) }
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// free is an address that nobody uses now, over TCP or UDP.
func free(t *testing.T) string {
	t.Helper()
	for range 100 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		_ = tcp.Close()
		if err == nil {
			_ = udp.Close()
			return tcp.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

func names(m *Membership) string {
	var out []string
	for _, n := range m.Nodes() {
		out = append(out, n.ID)
	}
	return strings.Join(out, " ")
}

func sees(t *testing.T, m *Membership, want string) {
	t.Helper()
	until(t, m.cfg.Self.ID+" sees "+want, func() bool { return names(m) == want })
}

// TestThree: nodes that know one of them find all, with what each tells about itself, and changes of it.
func TestThree(t *testing.T) {
	t.Parallel()
	a := open(t, "a")
	b := open(t, "b", joining(a.Address()))
	c := open(t, "c", joining(b.Address()))
	sees(t, a, "b c")
	sees(t, b, "a c")
	sees(t, c, "a b")
	if n := a.Nodes()[0]; n != (Node{ID: "b", Store: "s-b", Peer: "b:1", MQTT: "b:2", Admin: "b:3", HTTP: "b:4", Expect: 3, Gossip: b.Address()}) {
		t.Errorf("%+v", n)
	}
	for drained := false; !drained; {
		select {
		case <-a.Changed():
		default:
			drained = true
		}
	}
	self := b.cfg.Self
	self.Exists, self.Founder = true, "a"
	if err := b.Update(self); err != nil {
		t.Fatal(err)
	}
	until(t, "the change", func() bool { return a.Nodes()[0].Exists && c.Nodes()[1].Founder == "a" })
	select {
	case <-a.Changed():
	case <-time.After(patience):
		t.Error("a change that nobody is told of")
	}
	if err := c.Close(); err != nil { // with a farewell
		t.Error(err)
	}
	sees(t, a, "b")
	if err := b.Abort(); err != nil { // without
		t.Error(err)
	}
	sees(t, a, "")
}

// TestLate: the search goes on until somebody is there, and a node that comes back under another address
// is found again.
func TestLate(t *testing.T) {
	t.Parallel()
	address := free(t)
	a := open(t, "a", joining(address))
	b := open(t, "b", func(c *Config) { c.Bind = address })
	sees(t, a, "b")
	sees(t, b, "a")
	if err := b.Abort(); err != nil {
		t.Fatal(err)
	}
	again := open(t, "b", joining(a.Address()))
	until(t, "b at its new address", func() bool { n := a.Nodes(); return len(n) == 1 && n[0].Gossip == again.Address() })
}

// TestNames: a name stands for all its addresses; without a port it is this node's own.
func TestNames(t *testing.T) {
	t.Parallel()
	a := open(t, "a")
	_, port, err := net.SplitHostPort(a.Address())
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, "b", joining("localhost:"+port, "no-such-name.invalid:1"))
	sees(t, b, "a")
	own, own6 := b.resolve("127.0.0.1"), b.resolve("[::1]")
	_, port, _ = net.SplitHostPort(b.Address())
	if len(own) != 1 || own[0] != "127.0.0.1:"+port || len(own6) != 1 || own6[0] != "[::1]:"+port {
		t.Errorf("%v %v", own, own6)
	}
	for _, target := range b.targets() {
		if target == b.Address() || target == a.Address() {
			t.Errorf("it would look for %s, which it knows", target)
		}
	}
}

// TestStrangers: another cluster's nodes are not heard, nor those without the secret.
func TestStrangers(t *testing.T) {
	t.Parallel()
	secret := func(c *Config) { c.Keys = [][]byte{[]byte("0123456789abcdef")} }
	a := open(t, "a", secret)
	other := open(t, "x", secret, joining(a.Address()), func(c *Config) { c.Cluster = "other" })
	plain := open(t, "y", joining(a.Address()))
	b := open(t, "b", secret, joining(a.Address()))
	sees(t, a, "b")
	sees(t, b, "a")
	for range 3 { // each of them tries in these times
		if _, err := other.list.Join([]string{a.Address()}); err == nil {
			t.Error("another cluster was let in")
		}
		if _, err := plain.list.Join([]string{a.Address()}); err == nil {
			t.Error("without the secret it was let in")
		}
	}
	if names(a) != "b" || names(other) != "" || names(plain) != "" {
		t.Errorf("%q, %q, %q", names(a), names(other), names(plain))
	}
}

// TestRekey: keys are replaced while nodes talk; whoever has the old one alone is heard no more.
func TestRekey(t *testing.T) {
	t.Parallel()
	old, young := []byte("0123456789abcdef"), []byte("fedcba9876543210")
	with := func(keys ...[]byte) func(*Config) { return func(c *Config) { c.Keys = keys } }
	a := open(t, "a", with(old))
	b := open(t, "b", with(old), joining(a.Address()))
	sees(t, a, "b")
	for _, keys := range [][][]byte{{old, young}, {young, old}, {young}} {
		for _, m := range []*Membership{a, b} {
			if err := m.Rekey(keys); err != nil {
				t.Fatal(err)
			}
		}
	}
	late := open(t, "c", with(young), joining(a.Address()))
	sees(t, late, "a b")
	stale := open(t, "d", with(old))
	if _, err := stale.list.Join([]string{a.Address()}); err == nil {
		t.Error("the old key opens still")
	}
	if err := a.Rekey(nil); err == nil {
		t.Error("back to plain text")
	}
	if err := a.Rekey([][]byte{[]byte("short")}); err == nil {
		t.Error("a key of five bytes")
	}
	plain := open(t, "e")
	if err := plain.Rekey([][]byte{young}); !errors.Is(err, ErrPlain) || plain.Rekey(nil) != nil {
		t.Errorf("got %v", err)
	}
}

// TestWiped: with another data folder a node is somebody else, at once.
func TestWiped(t *testing.T) {
	t.Parallel()
	a := open(t, "a")
	b := open(t, "b", joining(a.Address()))
	sees(t, a, "b")
	address := b.Address()
	if err := b.Abort(); err != nil {
		t.Fatal(err)
	}
	open(t, "b", joining(a.Address()), func(c *Config) { c.Bind, c.Self.Store = address, "new" })
	until(t, "the new b alone", func() bool { n := a.Nodes(); return len(n) == 1 && n[0].Store == "new" })
}

func TestNotes(t *testing.T) {
	for _, bad := range []string{"", "x", "{}", `{"i":1}`, `[]`} {
		if n, err := decode([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, n)
		}
	}
	long := Node{ID: strings.Repeat("x", 600)}
	if _, err := long.encode(); err == nil || !strings.Contains(err.Error(), "shorten") {
		t.Errorf("got %v", err)
	}
	if _, err := Open(Config{Bind: "127.0.0.1:0", Cluster: "skein", Self: long}); err == nil {
		t.Error("it was opened")
	}
	n := Node{ID: "a", Store: "s", Exists: true, Gossip: "not told"}
	b, err := n.encode()
	if err != nil {
		t.Fatal(err)
	}
	var plain map[string]any
	if err := json.Unmarshal(b, &plain); err != nil || len(plain) != 4 {
		t.Errorf("%s %v", b, err)
	}
	back, err := decode(b)
	if n.Gossip = ""; err != nil || back != n {
		t.Errorf("%+v %v", back, err)
	}
}

func TestAddresses(t *testing.T) {
	for _, bad := range []Config{
		{Bind: "127.0.0.1"},
		{Bind: "127.0.0.1:x"},
		{Bind: "no-such-name.invalid:0"},
		{Bind: "127.0.0.1:0", Advertise: "x"},
		{Bind: "127.0.0.1:0", Advertise: "no-such-name.invalid:1"},
		{Bind: "127.0.0.1:0", Keys: [][]byte{[]byte("short")}},
	} {
		bad.Self = Node{ID: "a", Store: "s"}
		if m, err := Open(bad); err == nil {
			t.Errorf("%+v was taken", bad)
			_ = m.Abort()
		}
	}
	_, port, _ := net.SplitHostPort(free(t))
	m := open(t, "a", func(c *Config) { c.Bind, c.Advertise = "localhost:"+port, "127.0.0.2:7999" })
	if got := m.Address(); got != "127.0.0.2:7999" {
		t.Errorf("advertised as %s", got)
	}
}

// TestLog: memberlist's lines become records, its errors no more than a remark.
func TestLog(t *testing.T) {
	var b strings.Builder
	w := logWriter{slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), new(atomic.Int64)}
	for _, line := range []string{"[ERR] memberlist: no way\n", "[ERR] memberlist: again\n", "[DEBUG] memberlist: fine\n", "bare\n"} {
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("%d %v", n, err)
		}
	}
	for _, want := range []string{`level=INFO msg="gossip: no way"`, `level=DEBUG msg="gossip: again"`, `level=DEBUG msg="gossip: fine"`, `level=DEBUG msg="gossip: bare"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s: no %s", b.String(), want)
		}
	}
}
