package admin

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/node/operators"
	"github.com/skein-mqtt/skein/proto/adminpb"
	"github.com/skein-mqtt/skein/proto/certname"
)

// TestEveryMethodHasARole: a method without a role could be called by nobody; one of a role without a method is
// a mistake in writing.
func TestEveryMethodHasARole(t *testing.T) {
	s, err := Open(Config{Self: "node1", Listen: "127.0.0.1:0"}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	served := make(map[string]bool)
	for name, info := range s.servers[0].GetServiceInfo() {
		for _, m := range info.Methods {
			full := "/" + name + "/" + m.Name
			served[full] = true
			if _, ok := roles[full]; !ok {
				t.Errorf("%s has no role", full)
			}
			changes := !slices.ContainsFunc([]string{"List", "Get", "Describe", "Explain", "Version", "StateHash", "Check", "Watch", "Trace", "Logs", "CanI", "ServerReflection"}, func(word string) bool {
				return strings.HasPrefix(m.Name, word)
			})
			if changes != (roles[full] > operators.View) {
				t.Errorf("%s: a change wants a role above view, and nothing else does; or its name misleads", full)
			}
		}
	}
	for full := range roles {
		if !served[full] {
			t.Errorf("%s has a role and is not served", full)
		}
	}
}

// ca signs for a test.
type ca struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (c *ca) issue(template *x509.Certificate) tls.Certificate {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template.SerialNumber, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(time.Hour)
	parent, signer := c.cert, c.key
	if parent == nil {
		parent, signer = template, key
		c.key = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		c.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func newCA(t *testing.T) *ca {
	c := &ca{t: t}
	c.cert = c.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}).Leaf
	return c
}

func (c *ca) operator(name certname.Name) tls.Certificate {
	return c.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name.Operator}, URIs: []*url.URL{name.URI()}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// files writes a server's certificate, its key and the authority.
func (c *ca) files(dir string) (cert, key, authority string) {
	c.t.Helper()
	own := c.issue(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		c.t.Fatal(err)
	}
	write := func(name, typ string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600); err != nil {
			c.t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", own.Certificate[0]), write("key.pem", "PRIVATE KEY", pkcs8), write("ca.pem", "CERTIFICATE", c.cert.Raw)
}

// TestCallers: what each caller may do, by TLS and by the socket, and what stands in the audit log.
func TestCallers(t *testing.T) {
	dir := t.TempDir()
	authority := newCA(t)
	cert, key, caFile := authority.files(dir)
	logger := slog.New(slog.DiscardHandler)
	seal, err := operators.OpenSeal("admin", cert, key, caFile, logger)
	if err != nil {
		t.Fatal(err)
	}
	list, auditFile := filepath.Join(dir, "operators"), filepath.Join(dir, "audit.log")
	token, credential := operators.NewToken()
	if err := operators.Add(list, "toni", operators.Operate, credential); err != nil {
		t.Fatal(err)
	}
	gate, err := operators.Open(operators.Config{Cluster: "skein", File: list, LocalRole: operators.View})
	if err != nil {
		t.Fatal(err)
	}
	audit, err := operators.OpenAudit(auditFile, "node1", logger)
	if err != nil {
		t.Fatal(err)
	}
	defer audit.Close()
	w := &world{}
	n := &node{world: w, id: "node1"}
	w.nodes = []*adminpb.Node{{Id: "node1", Role: "leader", Incarnation: 1}}
	socket := filepath.Join(dir, "admin.sock")
	s, err := Open(Config{Self: "node1", Listen: "127.0.0.1:0", Socket: socket, Gate: gate, Seal: seal, Audit: audit, Version: &adminpb.VersionResponse{}}, w, local{n}, n)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	roots := x509.NewCertPool()
	roots.AddCert(authority.cert)
	sealed := func(roots *x509.CertPool, certs ...tls.Certificate) credentials.TransportCredentials {
		return credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: certs, MinVersion: tls.VersionTLS12})
	}
	stranger := newCA(t).operator(certname.Operator("skein", "eve", "admin"))
	for _, test := range []struct {
		who     string
		target  string
		creds   credentials.TransportCredentials
		token   string
		view    codes.Code
		operate codes.Code
		admin   codes.Code
	}{
		{"nothing", "", sealed(roots), "", codes.Unauthenticated, codes.Unauthenticated, codes.Unauthenticated},
		{"plain", "", insecure.NewCredentials(), "", codes.Unavailable, codes.Unavailable, codes.Unavailable},
		{"another authority", "", sealed(roots, stranger), "", codes.Unavailable, codes.Unavailable, codes.Unavailable},
		{"a node", "", sealed(roots, authority.operator(certname.Node("skein", "node2"))), "", codes.Unauthenticated, codes.Unauthenticated, codes.Unauthenticated},
		{"viewer", "", sealed(roots, authority.operator(certname.Operator("skein", "vic", "view"))), "", codes.OK, codes.PermissionDenied, codes.PermissionDenied},
		{"admin", "", sealed(roots, authority.operator(certname.Operator("skein", "ada", "admin"))), "", codes.OK, codes.OK, codes.OK},
		{"a token", "", sealed(roots), token, codes.OK, codes.OK, codes.PermissionDenied},
		{"a wrong token", "", sealed(roots), token + "x", codes.Unauthenticated, codes.Unauthenticated, codes.Unauthenticated},
		{"the socket", "unix://" + socket, insecure.NewCredentials(), "", codes.OK, codes.PermissionDenied, codes.PermissionDenied},
		{"a token by the socket", "unix://" + socket, insecure.NewCredentials(), token, codes.OK, codes.OK, codes.PermissionDenied},
	} {
		target := test.target
		if target == "" {
			target = s.Addr().String()
		}
		conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(test.creds))
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		if test.token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+test.token)
		}
		// What only a node may say counts for nothing here.
		ctx = metadata.AppendToOutgoingContext(ctx, forwarded, "node9")
		c := adminpb.NewAdminClient(conn)
		_, err = c.Version(ctx, &adminpb.VersionRequest{})
		if status.Code(err) != test.view {
			t.Errorf("%s views: %v", test.who, err)
		}
		stream, err := c.DrainNode(ctx, &adminpb.DrainNodeRequest{Node: "node1"})
		if err == nil {
			for err == nil {
				_, err = stream.Recv()
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
		}
		if status.Code(err) != test.operate {
			t.Errorf("%s drains: %v", test.who, err)
		}
		_, err = c.RemoveNode(ctx, &adminpb.RemoveNodeRequest{Node: "node1", Force: true})
		if status.Code(err) != test.admin {
			t.Errorf("%s removes: %v", test.who, err)
		}
		_ = conn.Close()
	}
	data, err := os.ReadFile(auditFile)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte(token)) {
		t.Error("the token stands in the audit log")
	}
	count := make(map[string]int)
	for line := range bytes.Lines(data) {
		var e operators.Entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.From == "" || e.Node != "node1" {
			t.Errorf("%+v", e)
		}
		outcome, _, _ := strings.Cut(e.Outcome, ":")
		count[strings.TrimSpace(e.Who+" "+e.What+" "+outcome)]++
	}
	for key, want := range map[string]int{
		"toni DrainNode begun": 2, "toni DrainNode done": 2, "toni RemoveNode not allowed": 2,
		"ada DrainNode done": 1, "ada RemoveNode begun": 1, "ada RemoveNode done": 1,
		"vic DrainNode not allowed": 1, "vic RemoveNode not allowed": 1, "local RemoveNode not allowed": 1,
		"RemoveNode the token is not known": 1,
	} {
		if count[key] != want {
			t.Errorf("%s: %d, not %d; all: %v", key, count[key], want, count)
		}
	}
}

// TestNeverOpen: beyond loopback nothing is plain, whatever the caller forgot.
func TestNeverOpen(t *testing.T) {
	_, err := Open(Config{Listen: ":0"}, nil, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "admin.cert") {
		t.Errorf("got %v", err)
	}
}

// TestAuditedKeepsSecrets: payloads and secrets do not enter the audit log.
func TestAuditedKeepsSecrets(t *testing.T) {
	got := string(audited(&adminpb.PublishRequest{Topic: "t", Payload: []byte("hidden"), Qos: 1}))
	if strings.Contains(got, "aGlkZGVu") || strings.Contains(got, "hidden") || !strings.Contains(got, `"t"`) {
		t.Error(got)
	}
	got = string(audited(&adminpb.ListClientsRequest{Page: &adminpb.Page{Token: "hidden", Size: 3}}))
	if strings.Contains(got, "hidden") || !strings.Contains(got, "3") {
		t.Error(got)
	}
}
