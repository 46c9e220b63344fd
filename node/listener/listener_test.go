package listener

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// greet answers with the client's address and, if it is verified, its name, and ends.
func greet(nc net.Conn, s *Spec, id Identity, done func()) {
	defer done()
	defer nc.Close()
	text := s.Scheme + " " + nc.RemoteAddr().String()
	if id.Verified {
		text += " " + id.Username
	}
	_, _ = io.WriteString(nc, text)
}

func start(t *testing.T, url string, serve func(net.Conn, *Spec, Identity, func()), change ...func(*Config)) *Listener {
	t.Helper()
	s, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Spec: s, Serve: serve, Handshake: time.Minute, look: 5 * time.Millisecond}
	for _, c := range change {
		c(&config)
	}
	l, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	t.Cleanup(func() { l.Close() })
	return l
}

func read(t *testing.T, nc net.Conn) string {
	t.Helper()
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_, _ = io.Copy(&b, nc)
	return b.String()
}

func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	nc, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

func TestPlain(t *testing.T) {
	l := start(t, "tcp://127.0.0.1:0", greet)
	nc := dial(t, l)
	if got, want := read(t, nc), "tcp "+nc.LocalAddr().String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBehindProxy(t *testing.T) {
	l := start(t, "ws://127.0.0.1:0?proxy=v2&proxy_from=127.0.0.1", greet)
	// One that sends half a header keeps nobody waiting.
	slow := dial(t, l)
	defer slow.Close()
	if _, err := slow.Write(proxyproto.SIGV2); err != nil {
		t.Fatal(err)
	}
	nc := dial(t, l)
	if _, err := io.WriteString(nc, header(t, 2, proxyproto.PROXY, "192.0.2.1:4000")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, nc); got != "ws 192.0.2.1:4000" {
		t.Errorf("%q", got)
	}
	nc = dial(t, l)
	if _, err := io.WriteString(nc, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, nc); got != "" {
		t.Errorf("%q without a header", got)
	}
}

func TestUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	// What a killed process leaves behind.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l := start(t, "unix://"+path, greet)
	if got := read(t, dial(t, l)); !strings.HasPrefix(got, "unix ") {
		t.Errorf("%q", got)
	}
	s, err := Parse("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := Open(Config{Spec: s}); err == nil {
		second.Close()
		t.Error("a socket in use was taken over")
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	l := start(t, "tls://127.0.0.1:0?cert="+cert+"&key="+key, greet)
	pool := x509.NewCertPool()
	data, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(data)
	nc, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, nc), "tls "+nc.LocalAddr().String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	l = start(t, "tls://127.0.0.1:0?cert="+cert+"&key="+key+"&ca="+cert+"&require_client_cert=true", greet)
	nc, err = tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: pool})
	if err == nil {
		if got := read(t, nc); got != "" {
			t.Errorf("%q without a certificate", got)
		}
	}
	for _, query := range []string{"cert=/absent&key=" + key, "cert=" + cert + "&key=" + key + "&ca=/absent", "cert=" + cert + "&key=" + key + "&ca=" + key} {
		s, err := Parse("tls://127.0.0.1:0?" + query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Spec: s}); err == nil || !strings.Contains(err.Error(), "listen: tls://") {
			t.Errorf("%s: %v", query, err)
		}
	}
}

// TestClose: it waits for those that are being served and cuts off handshakes.
func TestClose(t *testing.T) {
	serving, end := make(chan struct{}), make(chan struct{})
	l := start(t, "tcp://127.0.0.1:0", func(nc net.Conn, _ *Spec, _ Identity, done func()) {
		defer done()
		close(serving)
		<-end
		nc.Close()
	})
	nc := dial(t, l)
	defer nc.Close()
	<-serving
	closed := make(chan struct{})
	go func() {
		l.Close()
		close(closed)
	}()
	select {
	case <-closed:
		t.Error("closed under a connection")
	case <-time.After(20 * time.Millisecond):
	}
	close(end)
	<-closed

	cert, key := certificate(t, t.TempDir())
	l = start(t, "tls://127.0.0.1:0?cert="+cert+"&key="+key, greet)
	nc = dial(t, l) // never says a word
	l.Close()
	if got := read(t, nc); got != "" {
		t.Errorf("%q", got)
	}
}

func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
