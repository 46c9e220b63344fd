package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/proto/certname"
)

// Config of a node's credentials. All are required but Logger.
type Config struct {
	Cert, Key string // PEM files: the node's certificate, with what lies between it and the authority, and its key
	CA        string // the authorities that other nodes' certificates come from; several while one takes over from another
	Cluster   string
	Node      string // this node: the certificate must be its
	Logger    *slog.Logger
}

// Errors of a handshake and of a node's own files.
var (
	// ErrNotNode: the certificate is of no node.
	ErrNotNode = errors.New("that is no node's certificate")
	// ErrOtherCluster: it is of a node of another cluster.
	ErrOtherCluster = errors.New("that is the certificate of another cluster")
	// ErrProtocol: whoever is there knows TLS, but wants something else.
	ErrProtocol = errors.New("it does not speak the protocol between nodes")
)

// protocol keeps what is meant for another port from being taken for a node, whatever certificate it has.
const protocol = "skein-peer/1"

// warnBefore is when the log begins to say that the certificate ends.
const warnBefore = 30 * 24 * time.Hour

// Credentials secure connections between nodes. They can be read again at any time, for connections to come.
type Credentials struct {
	cfg     Config
	current atomic.Pointer[material]
}

type material struct {
	pair  tls.Certificate
	roots *x509.CertPool
}

// Load reads the files.
func Load(cfg Config) (*Credentials, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Credentials{cfg: cfg}
	return c, c.load()
}

// Reload reads the files again; those that can't be read, or are not this node's, leave the ones before in force,
// with an error in the log.
func (c *Credentials) Reload() {
	if err := c.load(); err != nil {
		c.cfg.Logger.Error("the node keeps the certificates that it has for other nodes", "error", err)
		return
	}
	c.cfg.Logger.Info("the certificates for other nodes were read again", "until", c.Until())
}

func (c *Credentials) load() error {
	pair, err := tls.LoadX509KeyPair(c.cfg.Cert, c.cfg.Key)
	if err != nil {
		return fmt.Errorf("cluster.cert, cluster.key: %w", err)
	}
	text, err := os.ReadFile(c.cfg.CA)
	if err != nil {
		return fmt.Errorf("cluster.ca: %w", err)
	}
	m := &material{pair: pair, roots: x509.NewCertPool()}
	if !m.roots.AppendCertsFromPEM(text) {
		return fmt.Errorf("cluster.ca: %s holds no certificate", c.cfg.CA)
	}
	// What the others will say of it, this node says first.
	chain := make([]*x509.Certificate, len(pair.Certificate))
	for i, der := range pair.Certificate {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("cluster.cert: %w", err)
		}
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		node, err := c.verify(m, chain, usage)
		if err != nil {
			return fmt.Errorf("cluster.cert: %s: %w", c.cfg.Cert, err)
		}
		if node != c.cfg.Node {
			return fmt.Errorf("cluster.cert: %s is the certificate of node %q, and this is %q", c.cfg.Cert, node, c.cfg.Node)
		}
	}
	if left := time.Until(chain[0].NotAfter); left < warnBefore {
		c.cfg.Logger.Warn("the node's certificate ends soon: issue another one with 'skein certs issue'", "cert", c.cfg.Cert, "until", chain[0].NotAfter)
	}
	c.current.Store(m)
	return nil
}

// Until is when the node's certificate ends.
func (c *Credentials) Until() time.Time { return c.current.Load().pair.Leaf.NotAfter }

// verify tells which node of the cluster a chain of certificates is of.
func (c *Credentials) verify(m *material, chain []*x509.Certificate, usage x509.ExtKeyUsage) (string, error) {
	if len(chain) == 0 {
		return "", fmt.Errorf("%w: there is none", ErrNotNode)
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: m.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		return "", err
	}
	name, err := certname.Of(chain[0])
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrNotNode, err)
	case name.Cluster != c.cfg.Cluster:
		return "", fmt.Errorf("%w: %s, and this is %q", ErrOtherCluster, name, c.cfg.Cluster)
	case name.Node == "":
		return "", fmt.Errorf("%w: %s", ErrNotNode, name)
	}
	return name.Node, nil
}

// config is for one handshake; node is set when it has succeeded.
func (c *Credentials) config(usage x509.ExtKeyUsage, node *string) *tls.Config {
	m := c.current.Load()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{m.pair},
		// Both sides are verified below: names of hosts mean nothing here.
		InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) (err error) {
			if s.NegotiatedProtocol != protocol {
				return ErrProtocol
			}
			*node, err = c.verify(m, s.PeerCertificates, usage)
			return err
		},
	}
}

// Server runs the accepting side of a handshake until ctx ends at most. It returns the secured connection, and which
// node is at its other end.
func (c *Credentials) Server(ctx context.Context, conn net.Conn) (net.Conn, string, error) {
	var node string
	return handshake(ctx, tls.Server(conn, c.config(x509.ExtKeyUsageClientAuth, &node)), &node)
}

// Client is Server for the side that has dialled. The other end may still refuse this node's certificate: the first
// read says so.
func (c *Credentials) Client(ctx context.Context, conn net.Conn) (net.Conn, string, error) {
	var node string
	return handshake(ctx, tls.Client(conn, c.config(x509.ExtKeyUsageServerAuth, &node)), &node)
}

func handshake(ctx context.Context, conn *tls.Conn, node *string) (net.Conn, string, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, "", err
	}
	return sealed{conn}, *node, nil
}

// sealed closes without a farewell: what runs over it has ends of its own, and a farewell to a peer that does not
// read would wait for seconds.
type sealed struct{ *tls.Conn }

// Close implements net.Conn.
func (s sealed) Close() error { return s.NetConn().Close() }
