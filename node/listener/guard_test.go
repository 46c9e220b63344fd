package listener

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// hello is what a client that is let in reads; "" is one that is not.
func hello(t *testing.T, l *Listener, c *tls.Config) string {
	t.Helper()
	nc, err := tls.Dial("tcp", l.Addr().String(), c)
	if err != nil {
		return ""
	}
	local := nc.LocalAddr().String()
	return strings.Replace(read(t, nc), " "+local, "", 1)
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

// TestCertificateReplaced: who connects from now on sees the new one, who is connected stays.
func TestCertificateReplaced(t *testing.T) {
	a := newAuthority(t, "ours")
	cert, key := a.server("first")
	var mu sync.Mutex
	var stays net.Conn
	l := start(t, "tls://127.0.0.1:0?cert="+cert+"&key="+key, func(nc net.Conn, _ *Spec, _ Identity, done func()) {
		defer done()
		mu.Lock()
		defer mu.Unlock()
		if stays == nil {
			stays = nc
			return
		}
		nc.Close()
	})
	c := &tls.Config{RootCAs: a.pool()}
	old, err := tls.Dial("tcp", l.Addr().String(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	name := func() string {
		nc, err := tls.Dial("tcp", l.Addr().String(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		return nc.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := name(); got != "first" {
		t.Errorf("%q", got)
	}
	if err := os.WriteFile(cert, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Reload()
	if got := name(); got != "first" {
		t.Errorf("%q after a file that can't be read", got)
	}
	a.server("second")
	await(t, "the new certificate", func() bool { return name() == "second" })
	mu.Lock()
	defer mu.Unlock()
	if _, err := io.WriteString(stays, "still here"); err != nil {
		t.Fatal(err)
	}
	stays.Close()
	if got, err := io.ReadAll(old); string(got) != "still here" || err != nil {
		t.Errorf("%q %v on the connection that stood", got, err)
	}
}

func TestCertificateIsUserName(t *testing.T) {
	a := newAuthority(t, "ours")
	cert, key := a.server("server")
	base := "tls://127.0.0.1:0?cert=" + cert + "&key=" + key + "&ca=" + a.ca() + "&require_client_cert=true"
	ann := a.client(pkix.Name{CommonName: "ann", Organization: []string{"Geese, Inc."}, Country: []string{"SE"}})
	with := func(c ...tls.Certificate) *tls.Config { return &tls.Config{RootCAs: a.pool(), Certificates: c} }

	common := start(t, base+"&use_identity_as_username=true", greet)
	stranger := newAuthority(t, "theirs").client(pkix.Name{CommonName: "ann"})
	for what, c := range map[string]struct {
		cert []tls.Certificate
		want string
	}{
		"hers": {[]tls.Certificate{ann}, "tls ann"}, "none": {nil, ""}, "of another authority": {[]tls.Certificate{stranger}, ""},
		"without a name":      {[]tls.Certificate{a.client(pkix.Name{Organization: []string{"Geese"}})}, ""},
		"a name with a NUL":   {[]tls.Certificate{a.client(pkix.Name{CommonName: "a\x00b"})}, ""},
		"a name beyond ASCII": {[]tls.Certificate{a.client(pkix.Name{CommonName: "Åsa"})}, "tls Åsa"},
	} {
		if got := hello(t, common, with(c.cert...)); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
	whole := start(t, base+"&use_subject_as_username=true", greet)
	if got, want := hello(t, whole, with(ann)), `tls CN=ann,O=Geese\, Inc.,C=SE`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	plain := start(t, base, greet)
	if got := hello(t, plain, with(ann)); got != "tls" {
		t.Errorf("%q: no name was asked for", got)
	}
}

func TestTLSVersion(t *testing.T) {
	a := newAuthority(t, "ours")
	cert, key := a.server("server")
	l := start(t, "tls://127.0.0.1:0?tls_version=1.3&cert="+cert+"&key="+key, greet)
	if got := hello(t, l, &tls.Config{RootCAs: a.pool(), MaxVersion: tls.VersionTLS12}); got != "" {
		t.Errorf("%q over TLS 1.2", got)
	}
	if got := hello(t, l, &tls.Config{RootCAs: a.pool()}); got != "tls" {
		t.Errorf("%q over TLS 1.3", got)
	}
}

func TestRevocation(t *testing.T) {
	a, other := newAuthority(t, "ours"), newAuthority(t, "theirs")
	cert, key := a.server("server")
	good, bad := a.client(pkix.Name{CommonName: "good"}), a.client(pkix.Name{CommonName: "bad"})
	list := a.crl("list.pem", time.Hour)
	var log lines
	s, err := Parse("tls://127.0.0.1:0?cert=" + cert + "&key=" + key + "&ca=" + a.ca() + "&require_client_cert=true&crl=" + list)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(Config{Spec: s, Serve: greet, Logger: slog.New(slog.NewTextHandler(&log, nil)), look: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	defer l.Close()
	// A session that was begun before must not be resumed past the list.
	configs := map[string]*tls.Config{}
	for name, c := range map[string]tls.Certificate{"good": good, "bad": bad} {
		configs[name] = &tls.Config{RootCAs: a.pool(), Certificates: []tls.Certificate{c}, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		if got := hello(t, l, configs[name]); got != "tls" {
			t.Errorf("%s: %q before anything is revoked", name, got)
		}
	}
	a.crl("list.pem", time.Hour, bad)
	await(t, "the revocation", func() bool { return hello(t, l, configs["bad"]) == "" })
	await(t, "a line in the log", func() bool { return strings.Contains(log.String(), "is revoked") })
	if got := hello(t, l, configs["good"]); got != "tls" {
		t.Errorf("%q for the one that is not revoked", got)
	}
	resumed := &tls.Config{RootCAs: a.pool(), Certificates: []tls.Certificate{good}}
	a.crl("list.pem", -time.Hour)
	l.Reload()
	if got := hello(t, l, resumed); got != "" {
		t.Errorf("%q by a list that is out of date", got)
	}
	other.dir = a.dir // a list of somebody else
	other.crl("list.pem", time.Hour)
	l.Reload()
	if got := hello(t, l, resumed); got != "" {
		t.Errorf("%q without a list of the issuer", got)
	}
	forged := newAuthority(t, "ours") // of the same name, but another key
	forged.dir = a.dir
	forged.crl("list.pem", time.Hour)
	l.Reload()
	if got := hello(t, l, resumed); got != "" {
		t.Errorf("%q by a forged list", got)
	}
	a.crl("list.pem", time.Hour)
	l.Reload()
	if got := hello(t, l, resumed); got != "tls" {
		t.Errorf("%q by a good list", got)
	}
}

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestSubject compares with what OpenSSL, and so Mosquitto, makes of a subject.
func TestSubject(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed (apt-get install openssl)")
	}
	oid := func(n ...int) asn1.ObjectIdentifier { return n }
	a := newAuthority(t, "ours")
	for _, name := range []pkix.Name{
		{CommonName: "simple"},
		{CommonName: ` #a,b+"c"\d<e>f; `, Organization: []string{"Gänse GmbH"}, SerialNumber: "12", StreetAddress: []string{"x"}},
		{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: oid(2, 5, 4, 10), Value: "first"},
			{Type: oid(0, 9, 2342, 19200300, 100, 1, 25), Value: "dc"},
			{Type: oid(0, 9, 2342, 19200300, 100, 1, 1), Value: "uid"},
			{Type: oid(1, 2, 840, 113549, 1, 9, 1), Value: "a@b.example"},
			{Type: oid(2, 5, 4, 3), Value: "#last "},
		}},
	} {
		c := a.client(name)
		path := a.write("c.pem", "CERTIFICATE", c.Leaf.Raw)
		out, err := exec.Command(openssl, "x509", "-in", path, "-noout", "-subject", "-nameopt", "RFC2253").Output()
		if err != nil {
			t.Fatal(err)
		}
		want := strings.TrimSuffix(strings.TrimPrefix(string(out), "subject="), "\n")
		got, err := subject(c.Leaf.RawSubject)
		if err != nil || got != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
	if _, err := subject([]byte{1, 2, 3}); err == nil {
		t.Error("garbage has a subject")
	}
}

// TestPSK drives the listener with OpenSSL's client: keys, identities, PROXY protocol, reload.
func TestPSK(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed (apt-get install openssl)")
	}
	file := filepath.Join(t.TempDir(), "keys.psk")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ann:00112233445566778899aabbccddeeff\n")
	connect := func(l *Listener, identity, key string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, openssl, "s_client", "-connect", l.Addr().String(), "-quiet", "-psk", key, "-psk_identity", identity)
		in, err := cmd.StdinPipe() // stays open: s_client would end with its input
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, _ := cmd.Output()
		return string(out)
	}
	named := start(t, "psk://127.0.0.1:0?use_identity_as_username=true&file="+file, greet)
	plain := start(t, "psk://127.0.0.1:0?file="+file, greet)
	const key = "00112233445566778899aabbccddeeff"
	if got := connect(named, "ann", key); !strings.HasPrefix(got, "psk 127.0.0.1:") || !strings.HasSuffix(got, " ann") {
		t.Errorf("%q", got)
	}
	if got := connect(plain, "ann", key); strings.HasSuffix(got, " ann") || got == "" {
		t.Errorf("%q", got)
	}
	if got := connect(named, "ann", "ff"+key[2:]); got != "" {
		t.Errorf("%q with a wrong key", got)
	}
	write("no key\n")
	named.Reload()
	if got := connect(named, "ann", key); !strings.HasSuffix(got, " ann") {
		t.Errorf("%q after a file that can't be read", got)
	}
	write("# ann has left\nbob:" + key + "\n")
	await(t, "the new keys", func() bool { return strings.HasSuffix(connect(named, "bob", key), " bob") })
	if got := connect(named, "ann", key); got != "" {
		t.Errorf("%q with a key that was taken away", got)
	}
	s, err := Parse("psk://127.0.0.1:0?file=/absent")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Spec: s}); err == nil || !strings.Contains(err.Error(), "listen: psk://127.0.0.1:0?file=/absent: file: ") {
		t.Error(err)
	}
}

// TestPSKHandshakes: behind a balancer, cut off by Close, and over when its time is.
func TestPSKHandshakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.psk")
	if err := os.WriteFile(file, []byte("ann:00112233445566778899aabbccddeeff\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := start(t, "psk://127.0.0.1:0?proxy=v2&proxy_from=127.0.0.1&file="+file, greet)
	nc := dial(t, l)
	// What follows the header is answered with an alert of TLS: the header was taken off.
	if _, err := io.WriteString(nc, header(t, 2, proxyproto.PROXY, "192.0.2.1:4000")+"\x16\x03\x01\x00\x04\x01\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, nc); !strings.HasPrefix(got, "\x15\x03\x03\x00\x02\x02") {
		t.Errorf("%q", got)
	}
	silent := dial(t, l)
	defer silent.Close()
	l.Close()
	if got := read(t, silent); got != "" {
		t.Errorf("%q", got)
	}
	s, err := Parse("psk://127.0.0.1:0?file=" + file)
	if err != nil {
		t.Fatal(err)
	}
	l, err = Open(Config{Spec: s, Serve: greet, Handshake: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	defer l.Close()
	if got := read(t, dial(t, l)); got != "" { // the server ends it; read would wait for 10 s
		t.Errorf("%q", got)
	}
}
