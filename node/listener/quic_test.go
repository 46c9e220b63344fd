package listener

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/crypto/ocsp"
)

// dialQUIC opens a connection and, unless silent, its stream.
func dialQUIC(t *testing.T, l *Listener, config *tls.Config, silent bool) (*quic.Conn, *quic.Stream, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	config = config.Clone()
	config.ServerName = "127.0.0.1"
	config.MinVersion = tls.VersionTLS13
	c, err := quic.DialAddr(ctx, l.Addr().String(), config, &quic.Config{})
	if err != nil || silent {
		return c, nil, err
	}
	s, err := c.OpenStreamSync(ctx)
	return c, s, err
}

// TestQUIC: the first stream of a connection is a client's; a certificate is its name; ALPN must fit; a connection
// without a stream is closed in the time of a handshake.
func TestQUIC(t *testing.T) {
	a := newAuthority(t, "ca")
	cert, key := a.server("server")
	l := start(t, "quic://127.0.0.1:0?cert="+cert+"&key="+key+"&ca="+a.ca()+"&require_client_cert=true&use_identity_as_username=true", greet, func(c *Config) {
		c.Handshake = 500 * time.Millisecond
	})
	ann := a.client(pkix.Name{CommonName: "ann"})
	config := &tls.Config{RootCAs: a.pool(), NextProtos: []string{"mqtt"}, Certificates: []tls.Certificate{ann}}
	c, s, err := dialQUIC(t, l, config, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "x"); err != nil {
		t.Fatal(err)
	}
	_ = s.SetReadDeadline(time.Now().Add(time.Minute))
	got, err := io.ReadAll(s)
	if !strings.HasPrefix(string(got), "quic 127.0.0.1:") || !strings.HasSuffix(string(got), " ann") || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if _, err := c.OpenUniStream(); err == nil {
		t.Error("a stream without an answer may be opened")
	}
	_ = c.CloseWithError(0, "")

	for what, wrong := range map[string]*tls.Config{
		"another protocol": {RootCAs: a.pool(), NextProtos: []string{"h3"}, Certificates: []tls.Certificate{ann}},
		"no certificate":   {RootCAs: a.pool(), NextProtos: []string{"mqtt"}},
	} {
		c, s, err := dialQUIC(t, l, wrong, false)
		if err == nil { // a client hears only afterwards that its certificate is missing
			_, _ = io.WriteString(s, "x")
			_ = s.SetReadDeadline(time.Now().Add(time.Minute))
			_, err = s.Read(make([]byte, 1))
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
		if c != nil {
			_ = c.CloseWithError(0, "")
		}
	}
	c, _, err = dialQUIC(t, l, config, true)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Context().Done():
	case <-time.After(time.Minute):
		t.Error("a connection without a stream stays")
	}
}

// TestLimit: a listener has no more connections than it may, and room again when one ends.
func TestLimit(t *testing.T) {
	hold := make(chan struct{})
	l := start(t, "tcp://127.0.0.1:0?max_connections=2", func(nc net.Conn, _ *Spec, _ Identity, done func()) {
		defer done()
		defer nc.Close()
		_, _ = io.WriteString(nc, "in")
		<-hold
	})
	enter := func() (net.Conn, bool) {
		nc := dial(t, l)
		_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
		_, err := io.ReadFull(nc, make([]byte, 2))
		return nc, err == nil
	}
	for range 2 {
		if nc, ok := enter(); !ok {
			t.Fatal("no room for two")
		} else {
			defer nc.Close()
		}
	}
	if nc, ok := enter(); ok || l.Refused() != 1 || l.Active() != 2 {
		t.Errorf("in %v, %d refused, %d there", ok, l.Refused(), l.Active())
	} else {
		nc.Close()
	}
	close(hold)
	for deadline := time.Now().Add(time.Minute); l.Active() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("they are counted still")
		}
	}
	if nc, ok := enter(); !ok {
		t.Error("no room again")
	} else {
		nc.Close()
	}
}

// TestNames: a client gets the certificate of the host that it names, with its proof while that holds, else the first.
func TestNames(t *testing.T) {
	a := newAuthority(t, "ca")
	make1 := func(host string) (cert, key string) {
		c, k := a.make(&x509.Certificate{Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}})
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		cert = a.write(host+".pem", "CERTIFICATE", c.Raw)
		both, err := os.ReadFile(cert)
		if err != nil {
			t.Fatal(err)
		}
		own, err := os.ReadFile(a.ca())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cert, append(both, own...), 0o600); err != nil {
			t.Fatal(err)
		}
		return cert, a.write(host+".key", "PRIVATE KEY", der)
	}
	certA, keyA := make1("a.example")
	certB, keyB := make1("b.example")
	respond := func(cert string, status int, next time.Time) string {
		t.Helper()
		pair, err := tls.LoadX509KeyPair(cert, map[string]string{certA: keyA, certB: keyB}[cert])
		if err != nil {
			t.Fatal(err)
		}
		der, err := ocsp.CreateResponse(a.cert, a.cert, ocsp.Response{
			Status: status, SerialNumber: pair.Leaf.SerialNumber, ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next,
		}, a.key)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(a.dir, big.NewInt(time.Now().UnixNano()).String()+".der")
		if err := os.WriteFile(path, der, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fresh, old := respond(certB, ocsp.Good, time.Now().Add(time.Hour)), respond(certA, ocsp.Good, time.Now().Add(-time.Minute))
	l := start(t, "tls://127.0.0.1:0?cert="+certA+","+certB+"&key="+keyA+","+keyB+"&ocsp="+old+","+fresh, greet)
	for _, test := range []struct {
		host, want string
		stapled    bool
	}{{"a.example", "a.example", false}, {"b.example", "b.example", true}, {"", "a.example", false}, {"c.example", "a.example", false}} {
		nc := dial(t, l)
		c := tls.Client(nc, &tls.Config{ServerName: test.host, InsecureSkipVerify: true})
		if err := c.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		state := c.ConnectionState()
		if got := state.PeerCertificates[0].Subject.CommonName; got != test.want || (len(state.OCSPResponse) > 0) != test.stapled {
			t.Errorf("%q: %s, stapled %v", test.host, got, len(state.OCSPResponse) > 0)
		}
		c.Close()
	}
	for what, path := range map[string]string{
		"revoked": respond(certA, ocsp.Revoked, time.Now().Add(time.Hour)), "another's": fresh, "no response": keyA, "not there": certA + "x",
	} {
		s, err := Parse("tls://127.0.0.1:0?cert=" + certA + "&key=" + keyA + "&ocsp=" + path)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := Open(Config{Spec: s}); err == nil {
			t.Errorf("%s: it was taken", what)
			_ = l.Close()
		}
	}
}
