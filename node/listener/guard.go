package listener

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/skein-mqtt/skein/node/tlspsk"
)

// Identity is who a client is, as far as the listener knows.
type Identity struct {
	// Username is the one to take in place of CONNECT's when Verified.
	Username string
	// Verified: the client has proved it, with a certificate or a key, and needs no password.
	Verified bool
}

// guard secures the connections of a listener. load may be called while connections are being secured.
type guard interface {
	// files are those that load reads.
	files() []string
	// load reads the files; on an error what was there before stays in force.
	load() error
	// secure runs the server's side of a handshake until ctx ends.
	secure(ctx context.Context, nc net.Conn) (net.Conn, Identity, error)
}

func newGuard(s *Spec, logger *slog.Logger) guard {
	switch {
	case len(s.Pairs) > 0:
		return newTLSGuard(s, logger)
	case s.Keys != "":
		return &pskGuard{spec: s, logger: logger}
	}
	return nil
}

// errRefused is why somebody with a valid certificate or key was not let in.
var errRefused = errors.New("the client is not let in")

// verified is the identity of a client that has proved it.
func verified(username string) (Identity, error) {
	if username == "" || len(username) > 65535 || !utf8.ValidString(username) || strings.ContainsRune(username, 0) {
		return Identity{}, fmt.Errorf("%w: %q can't be a user name", errRefused, username)
	}
	return Identity{Username: username, Verified: true}, nil
}

// tlsGuard is TLS with certificates.
type tlsGuard struct {
	spec    *Spec
	logger  *slog.Logger
	base    *tls.Config // keeps the keys of the session tickets
	current atomic.Pointer[tls.Config]
}

func newTLSGuard(s *Spec, logger *slog.Logger) *tlsGuard {
	g := &tlsGuard{spec: s, logger: logger}
	g.base = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return g.current.Load(), nil }}
	return g
}

func (g *tlsGuard) files() []string {
	list := []string{g.spec.CA, g.spec.CRL}
	for _, p := range g.spec.Pairs {
		list = append(list, p.Cert, p.Key, p.OCSP)
	}
	return slices.DeleteFunc(list, func(f string) bool { return f == "" })
}

func (g *tlsGuard) load() error {
	s := g.spec
	c := &tls.Config{MinVersion: s.minVersion()}
	staples, err := loadPairs(s, g.logger)
	if err != nil {
		return err
	}
	// The one that a client asks for by name, in the order in which they are configured, else the first.
	c.GetCertificate = staples.pick
	switch s.Scheme {
	case "wss":
		c.NextProtos = []string{"http/1.1"}
	case "quic":
		c.NextProtos = []string{protocolQUIC}
	}
	if s.CA != "" {
		text, err := os.ReadFile(s.CA)
		if err != nil {
			return fmt.Errorf("ca: %w", err)
		}
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("ca: %s holds no certificate", s.CA)
		}
		c.ClientAuth = tls.VerifyClientCertIfGiven
		if s.RequireClientCert {
			c.ClientAuth = tls.RequireAndVerifyClientCert
		}
	}
	if s.CRL != "" {
		lists, err := loadRevocations(s.CRL)
		if err != nil {
			return fmt.Errorf("crl: %w", err)
		}
		if n := lists.expired(time.Now()); n > 0 {
			g.logger.Error("revocation lists are out of date: clients with certificates of their issuers are refused", "listener", s.URL, "crl", s.CRL, "lists", n)
		}
		c.VerifyConnection = func(cs tls.ConnectionState) error { // also of a resumed session
			if len(cs.VerifiedChains) == 0 { // no certificate, and none is required
				return nil
			}
			return lists.check(cs.VerifiedChains, time.Now())
		}
	}
	g.current.Store(c)
	return nil
}

func (g *tlsGuard) secure(ctx context.Context, nc net.Conn) (net.Conn, Identity, error) {
	c := tls.Server(nc, g.base)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, Identity{}, err
	}
	id, err := g.identity(c.ConnectionState().PeerCertificates)
	return c, id, err
}

// identity is who shows these certificates, which were verified.
func (g *tlsGuard) identity(certs []*x509.Certificate) (id Identity, err error) {
	switch {
	case len(certs) == 0:
	case g.spec.UseIdentity:
		id, err = verified(certs[0].Subject.CommonName)
	case g.spec.UseSubject:
		var name string
		if name, err = subject(certs[0].RawSubject); err == nil {
			id, err = verified(name)
		}
	}
	return id, err
}

// pskGuard is TLS with pre-shared keys.
type pskGuard struct {
	spec   *Spec
	logger *slog.Logger
	config atomic.Pointer[tlspsk.Config]
}

func (g *pskGuard) files() []string { return []string{g.spec.Keys} }

func (g *pskGuard) load() error {
	text, err := os.ReadFile(g.spec.Keys)
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	keys, err := tlspsk.ParseKeys(text)
	if err != nil {
		return fmt.Errorf("file: %s: %w", g.spec.Keys, err)
	}
	if n := keys.Weak(); n > 0 {
		g.logger.Warn("some pre-shared keys have less than 128 bits: they can be guessed", "listener", g.spec.URL, "file", g.spec.Keys, "keys", n)
	}
	g.config.Store(&tlspsk.Config{Key: keys.Find, Hint: g.spec.Hint, MinVersion: g.spec.minVersion()})
	return nil
}

func (g *pskGuard) secure(ctx context.Context, nc net.Conn) (net.Conn, Identity, error) {
	c := tlspsk.Server(nc, g.config.Load())
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, Identity{}, err
	}
	if !g.spec.UseIdentity {
		return c, Identity{}, nil
	}
	id, err := verified(c.State().Identity)
	return c, id, err
}

// pemBlocks are the blocks of a type in a file, or all of the file if it is no PEM.
func pemBlocks(data []byte, typ string) [][]byte {
	var out [][]byte
	rest := data
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == typ {
			out = append(out, b.Bytes)
		}
	}
	if out == nil && !strings.Contains(string(data), "-----BEGIN") {
		out = append(out, data)
	}
	return out
}
