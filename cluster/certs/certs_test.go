package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skein-mqtt/skein/proto/certname"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func create(t *testing.T, cluster string) *Authority {
	t.Helper()
	dir := t.TempDir()
	if _, err := Create(dir, cluster); err != nil {
		t.Fatal(err)
	}
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, name certname.Name, life time.Duration) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new")
	if err := a.Issue(dir, name, []string{"broker.example", "192.0.2.1"}, life); err != nil {
		t.Fatal(err)
	}
	return dir
}

func configOf(dir, node string) Config {
	return Config{Cert: filepath.Join(dir, CertFile), Key: filepath.Join(dir, KeyFile), CA: filepath.Join(dir, CAFile), Cluster: "skein", Node: node}
}

func node(t *testing.T, a *Authority, name string) *Credentials {
	t.Helper()
	c, err := Load(configOf(issue(t, a, certname.Node("skein", name), Life), name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// end is one side of a handshake.
type end func(ctx context.Context, conn net.Conn) (net.Conn, string, error)

const hello = "hello, whoever you are"

// meet has two ends shake hands and say a word each; what each makes of the other.
func meet(t *testing.T, server, client end) (atServer, atClient string, serverErr, clientErr error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	say := func(conn net.Conn, e end) (string, error) {
		defer conn.Close()
		secured, who, err := e(ctx, conn)
		if err != nil {
			return "", err
		}
		defer secured.Close()
		_ = secured.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(secured, hello); err != nil {
			return "", err
		}
		_, err = io.ReadFull(secured, make([]byte, len(hello)))
		return who, err
	}
	var group sync.WaitGroup
	group.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		atServer, serverErr = say(conn, server)
	})
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	atClient, clientErr = say(conn, client)
	group.Wait()
	return atServer, atClient, serverErr, clientErr
}

func TestNodes(t *testing.T) {
	a := create(t, "skein")
	one, two := node(t, a, "node1"), node(t, a, "node/2 ö")
	atServer, atClient, err1, err2 := meet(t, one.Server, two.Client)
	if atServer != "node/2 ö" || atClient != "node1" || err1 != nil || err2 != nil {
		t.Errorf("%q %v, %q %v", atServer, err1, atClient, err2)
	}
}

// rogue is a TLS end that checks nothing and shows what it is given.
func rogue(dir string, protocols ...string) (server, client end) {
	config := &tls.Config{InsecureSkipVerify: true, ClientAuth: tls.RequestClientCert, NextProtos: protocols}
	if dir != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile))
		if err != nil {
			panic(err)
		}
		// Whatever the other end asks for.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		config.Certificates = []tls.Certificate{pair}
	}
	shake := func(ctx context.Context, c *tls.Conn) (net.Conn, string, error) {
		return c, "", c.HandshakeContext(ctx)
	}
	return func(ctx context.Context, conn net.Conn) (net.Conn, string, error) {
			return shake(ctx, tls.Server(conn, config))
		}, func(ctx context.Context, conn net.Conn) (net.Conn, string, error) {
			return shake(ctx, tls.Client(conn, config))
		}
}

// TestRogues: whoever is no node of this cluster is refused as a server and as a client, and reads nothing.
func TestRogues(t *testing.T) {
	a := create(t, "skein")
	good := node(t, a, "node1")
	twin := create(t, "skein") // the same names, another key
	onlyClient := issue(t, a, certname.Operator("skein", "node2", "admin"), Life)
	for _, test := range []struct {
		what string
		dir  string
		alpn string
		want string
	}{
		{"no certificate", "", protocol, "certificate"},
		{"another authority of the same name", issue(t, twin, certname.Node("skein", "node2"), Life), protocol, "unknown authority"},
		{"an operator", onlyClient, protocol, "certificate"},
		{"another cluster of the same authority", reissue(t, a, "other", "node2"), protocol, ErrOtherCluster.Error()},
		{"a certificate that has ended", issue(t, a, certname.Node("skein", "node2"), -time.Minute), protocol, "expired"},
		{"another protocol", issue(t, a, certname.Node("skein", "node2"), Life), "h2", "protocol"},
		{"no protocol", issue(t, a, certname.Node("skein", "node2"), Life), "", ErrProtocol.Error()},
	} {
		var protocols []string
		if test.alpn != "" {
			protocols = []string{test.alpn}
		}
		server, client := rogue(test.dir, protocols...)
		_, _, err, other := meet(t, good.Server, client)
		if err == nil || !strings.Contains(err.Error(), test.want) || other == nil {
			t.Errorf("%s dials: %v, and at its end %v", test.what, err, other)
		}
		if test.dir == "" {
			continue // a server without a certificate can't even begin
		}
		_, _, other, err = meet(t, server, good.Client)
		if err == nil || !strings.Contains(err.Error(), test.want) || other == nil {
			t.Errorf("%s is dialled: %v, and at its end %v", test.what, err, other)
		}
	}
	plain := func(_ context.Context, conn net.Conn) (net.Conn, string, error) { return conn, "", nil }
	if _, _, err, _ := meet(t, good.Server, plain); err == nil {
		t.Error("plain text was taken")
	}
}

// reissue signs for another cluster, which Issue refuses to.
func reissue(t *testing.T, a *Authority, cluster, node string) string {
	t.Helper()
	forged := *a
	forged.Cluster = cluster
	return issue(t, &forged, certname.Node(cluster, node), Life)
}

// TestReload: new files count for the next handshake; wrong ones change nothing; an authority is replaced by
// way of a time in which both are trusted.
func TestReload(t *testing.T) {
	a, b := create(t, "skein"), create(t, "skein")
	dir := issue(t, a, certname.Node("skein", "node1"), Life)
	one, err := Load(configOf(dir, "node1"))
	if err != nil {
		t.Fatal(err)
	}
	old, young := node(t, a, "node2"), node(t, b, "node3")
	refused := func(who *Credentials) bool {
		t.Helper()
		_, _, err, _ := meet(t, one.Server, who.Client)
		return err != nil
	}
	if refused(old) || !refused(young) {
		t.Fatal("before the change")
	}
	read := func(path string) []byte {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	caPath := filepath.Join(dir, CAFile)
	other := issue(t, b, certname.Node("skein", "node9"), Life)
	both := append(read(caPath), read(filepath.Join(other, CAFile))...)
	if err := WriteFile(caPath, both); err != nil {
		t.Fatal(err)
	}
	one.Reload()
	_, _, err, _ = meet(t, one.Server, old.Client)
	if err != nil {
		t.Errorf("the old authority: %v", err)
	}
	// node3 does not trust node1's certificate yet, but node1 trusts its.
	server, client := rogue(filepath.Dir(young.cfg.Cert), protocol)
	if _, _, err, _ := meet(t, one.Server, client); err != nil {
		t.Errorf("the new authority: %v", err)
	}
	_ = server
	before := one.Until()
	for _, wrong := range []struct{ file, from string }{{CertFile, filepath.Join(other, CertFile)}, {CAFile, filepath.Join(dir, KeyFile)}} {
		kept := read(filepath.Join(dir, wrong.file))
		if err := WriteFile(filepath.Join(dir, wrong.file), read(wrong.from)); err != nil {
			t.Fatal(err)
		}
		one.Reload()
		if one.Until() != before || refused(old) {
			t.Errorf("a wrong %s counts", wrong.file)
		}
		if err := WriteFile(filepath.Join(dir, wrong.file), kept); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOwn: what the others would refuse, the node itself refuses at its start, and says why.
func TestOwn(t *testing.T) {
	a := create(t, "skein")
	good := issue(t, a, certname.Node("skein", "node1"), Life)
	if _, err := Load(configOf(good, "node1")); err != nil {
		t.Fatal(err)
	}
	short := issue(t, a, certname.Node("skein", "node1"), time.Hour)
	if _, err := Load(configOf(short, "node1")); err != nil { // a warning
		t.Error(err)
	}
	for _, test := range []struct {
		what string
		cfg  Config
		want string
	}{
		{"another node's", configOf(good, "node2"), `of node "node1", and this is "node2"`},
		{"an operator's", configOf(issue(t, a, certname.Operator("skein", "ann", "view"), Life), "ann"), ErrNotNode.Error()},
		{"ended", configOf(issue(t, a, certname.Node("skein", "node1"), -time.Minute), "node1"), "expired"},
		{"another cluster's", configOf(reissue(t, a, "other", "node1"), "node1"), ErrOtherCluster.Error()},
		{"no files", configOf(t.TempDir(), "node1"), "cluster.cert"},
	} {
		if _, err := Load(test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.what, err)
		}
	}
}

func TestAuthority(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	a, err := Create(dir, "skein")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, "skein"); !errors.Is(err, ErrExists) {
		t.Errorf("a second one: %v", err)
	}
	if _, err := Create(t.TempDir(), ""); err == nil {
		t.Error("a cluster without a name")
	}
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("an empty folder holds one")
	}
	name := certname.Node("skein", "node1")
	node := issue(t, a, name, Life)
	for _, path := range []string{
		filepath.Join(dir, CAFile), filepath.Join(dir, CAKey), filepath.Join(node, CertFile), filepath.Join(node, KeyFile), filepath.Join(node, CAFile),
	} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, st.Mode(), err)
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(node, CertFile), filepath.Join(node, KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1", "::1", "broker.example", "192.0.2.1"} {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if pair.Leaf.NotBefore.After(time.Now()) || pair.Leaf.IsCA || pair.Leaf.KeyUsage&x509.KeyUsageCertSign != 0 {
		t.Errorf("%+v", pair.Leaf)
	}
	if err := a.Issue(node, certname.Node("other", "node1"), nil, Life); err == nil {
		t.Error("it signs for another cluster")
	}
	if err := a.Issue(t.TempDir(), name, nil, 2*caLife); err == nil || !strings.Contains(err.Error(), "valid until") {
		t.Errorf("longer than the authority: %v", err)
	}
	for what, fresh := range map[string]bool{
		node: true, t.TempDir(): false, issue(t, create(t, "skein"), name, Life): false,
		issue(t, a, certname.Node("skein", "node2"), Life): false, issue(t, a, name, 10*time.Minute): false,
	} {
		if a.Fresh(what, name) != fresh {
			t.Errorf("%s: not %v", what, fresh)
		}
	}
}
