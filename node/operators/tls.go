package operators

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/skein-mqtt/skein/node/files"
)

// Seal is the TLS of a port for operators: its certificate, and the authority of the callers' ones. The files are
// read again when they change, for connections to come.
type Seal struct {
	section       string // of the keys in messages
	cert, key, ca string
	logger        *slog.Logger
	current       atomic.Pointer[tls.Config]
	loaded        files.Stamps
}

// OpenSeal reads the files; ca may be empty: then no certificates are asked for.
func OpenSeal(section, cert, key, ca string, logger *slog.Logger) (*Seal, error) {
	s := &Seal{section: section, cert: cert, key: key, ca: ca, logger: logger}
	s.loaded = files.Look(s.files())
	return s, s.load()
}

func (s *Seal) files() []string { return []string{s.cert, s.key, s.ca} }

func (s *Seal) load() error {
	pair, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		return fmt.Errorf("%s.cert, %[1]s.key: %w", s.section, err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if s.ca != "" {
		text, err := os.ReadFile(s.ca)
		if err != nil {
			return fmt.Errorf("%s.ca: %w", s.section, err)
		}
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("%s.ca: %s holds no certificate", s.section, s.ca)
		}
		c.ClientAuth = tls.VerifyClientCertIfGiven // a token may stand in for one
	}
	s.current.Store(c)
	return nil
}

// Config is for a server. What it was set up with may change under it.
func (s *Seal) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current.Load(), nil },
	}
}

// Reload reads the files again; those that can't be read leave the ones before in force, with an error in the log.
func (s *Seal) Reload() {
	if err := s.load(); err != nil {
		s.logger.Error("the port keeps the certificates that it has", "error", err)
		return
	}
	s.logger.Info("the port's certificates were read again", "section", s.section)
}

// Run reads the files again when they change, until ctx ends.
func (s *Seal) Run(ctx context.Context) {
	files.Watch(ctx, 0, s.loaded, s.files, s.Reload)
}
