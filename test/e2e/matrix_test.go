package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	h "github.com/skein-mqtt/skein/test/harness"
)

// login is a CONNECT of a clean session; without a user it names none.
func login(version byte, user, password string) []byte {
	text := func(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }
	connectFlags := byte(2)
	if user != "" {
		connectFlags |= 0xC0
	}
	body := text("MQTT") + string([]byte{version, connectFlags, 0, 60})
	if version == 3 {
		body = text("MQIsdp") + string([]byte{version, connectFlags, 0, 60})
	}
	if version == 5 {
		body += "\x00"
	}
	body += text("matrix")
	if user != "" {
		body += text(user) + text(password)
	}
	return append([]byte{0x10, byte(len(body))}, body...)
}

// code is the reason in the CONNACK to a CONNECT; -1: there was none.
func code(t *testing.T, nc io.ReadWriteCloser, connect []byte) int {
	t.Helper()
	defer nc.Close()
	if d, ok := nc.(interface{ SetDeadline(time.Time) error }); ok {
		_ = d.SetDeadline(time.Now().Add(h.Patience))
	}
	if _, err := nc.Write(connect); err != nil {
		return -1
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(nc, head); err != nil || head[0] != 0x20 {
		return -1
	}
	return int(head[3])
}

// TestListenerMatrix: each kind of listener lets in whom it should by each method, on each version, and says why not.
func TestListenerMatrix(t *testing.T) {
	beside(t)
	s := &secured{t: t, dir: t.TempDir()}
	s.cert, s.key = s.issue("ca", &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	s.issue("server", &x509.Certificate{Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	s.issue("ann", &x509.Certificate{Subject: pkix.Name{CommonName: "ann"}})
	s.write("users", passwords)
	certificate := fmt.Sprintf("cert=%s&key=%s", s.path("server.pem"), s.path("server.key"))
	mutual := certificate + "&ca=" + s.path("ca.pem") + "&require_client_cert=true&use_identity_as_username=true"
	at := make(map[string]string)
	args := append(flags[:len(flags):len(flags)], "--set", "auth.password_file="+s.path("users"))
	for _, l := range []struct{ kind, scheme, query string }{
		{"tcp", "tcp", ""},
		{"tls", "tls", certificate},
		{"tls by certificate", "tls", mutual},
		{"quic", "quic", certificate},
		{"quic by certificate", "quic", mutual},
		{"5.0 alone", "tcp", "protocol_versions=5.0"},
		{"open", "tcp", "allow_anonymous=true"},
		{"two at most", "tcp", "max_connections=2"},
	} {
		at[l.kind] = fmt.Sprintf("127.0.0.1:%d", h.FreePort(t))
		args = append(args, "--listen", l.scheme+"://"+at[l.kind]+"?"+l.query)
	}
	socket := filepath.Join(t.TempDir(), "s")
	h.Start(t, 1, append(args, "--listen", "unix://"+socket)...)

	roots := x509.NewCertPool()
	roots.AddCert(s.cert)
	pair, err := tls.LoadX509KeyPair(s.path("ann.pem"), s.path("ann.key"))
	if err != nil {
		t.Fatal(err)
	}
	config := func(kind string) *tls.Config {
		conf := &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
		if strings.HasSuffix(kind, "certificate") {
			conf.Certificates = []tls.Certificate{pair}
		}
		return conf
	}
	dial := func(kind string) io.ReadWriteCloser {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), h.Patience)
		defer cancel()
		switch {
		case kind == "unix":
			nc, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			return nc
		case strings.HasPrefix(kind, "tls"):
			nc, err := (&tls.Dialer{Config: config(kind)}).DialContext(ctx, "tcp", at[kind])
			if err != nil {
				t.Fatal(err)
			}
			return nc
		case strings.HasPrefix(kind, "quic"):
			conf := config(kind)
			conf.NextProtos = []string{"mqtt"}
			qc, err := quic.DialAddr(ctx, at[kind], conf, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = qc.CloseWithError(0, "") })
			stream, err := qc.OpenStreamSync(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return stream
		}
		nc, err := net.Dial("tcp", at[kind])
		if err != nil {
			t.Fatal(err)
		}
		return nc
	}
	const ok, bad3, none3, bad5, none5 = 0, 4, 5, 0x86, 0x87
	type codes struct{ none, right, wrong int } // without a user name, with the right password, with a wrong one
	for kind, want := range map[string]map[byte]codes{
		"tcp":                 {3: {none3, ok, bad3}, 4: {none3, ok, bad3}, 5: {none5, ok, bad5}},
		"unix":                {4: {none3, ok, bad3}, 5: {none5, ok, bad5}},
		"tls":                 {4: {none3, ok, bad3}, 5: {none5, ok, bad5}},
		"quic":                {3: {none3, ok, bad3}, 4: {none3, ok, bad3}, 5: {none5, ok, bad5}},
		"tls by certificate":  {4: {ok, ok, ok}, 5: {ok, ok, ok}},
		"quic by certificate": {4: {ok, ok, ok}, 5: {ok, ok, ok}},
		"5.0 alone":           {3: {1, 1, 1}, 4: {1, 1, 1}, 5: {none5, ok, bad5}},
		"open":                {4: {ok, ok, bad3}, 5: {ok, ok, bad5}},
	} {
		for version, w := range want {
			got := codes{
				code(t, dial(kind), login(version, "", "")), code(t, dial(kind), login(version, "ann", "pw-ann")),
				code(t, dial(kind), login(version, "ann", "wrong")),
			}
			if got != w {
				t.Errorf("%s, version %d: %+v, want %+v", kind, version, got, w)
			}
		}
	}
	// A third connection to a listener of two is closed; the node goes on.
	for range 2 {
		nc := dial("two at most")
		defer nc.Close()
	}
	h.Await(t, "the third is closed", func() bool { return code(t, dial("two at most"), login(4, "ann", "pw-ann")) == -1 })
	if got := code(t, dial("tcp"), login(4, "ann", "pw-ann")); got != ok {
		t.Errorf("another listener: %d", got)
	}
}
