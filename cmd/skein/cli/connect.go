package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skein-mqtt/skein/cluster/certs"
	"github.com/skein-mqtt/skein/cmd/skein/config"
)

// way is how to reach a node and who asks it.
type way struct {
	server        string
	certs         string
	ca, cert, key string
	tokenFile     string
}

// connectionFlags declares the flags. What they don't say, environment variables may.
func (a *asker) connectionFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("context", a.env.get("SKEIN_CONTEXT", ""), "`NAME` of the context to use, see 'skein config' (SKEIN_CONTEXT)")
	f.StringVar(&a.to.server, "server", a.env.get("SKEIN_SERVER", defaultServer), "admin `ADDR` of the node to ask, or unix:///PATH of its socket; any node will do (SKEIN_SERVER)")
	f.StringVar(&a.to.certs, "certs", a.env.get("SKEIN_CERTS", ""), "`FOLDER` that 'skein certs' has made for you: it stands for the next three (SKEIN_CERTS)")
	f.StringVar(&a.to.ca, "ca", a.env.get("SKEIN_CA", ""), "`FILE` with the authority that the node's certificate must come from (SKEIN_CA)")
	f.StringVar(&a.to.cert, "cert", a.env.get("SKEIN_CERT", ""), "`FILE` with your certificate (SKEIN_CERT)")
	f.StringVar(&a.to.key, "key", a.env.get("SKEIN_KEY", ""), "`FILE` with its private key (SKEIN_KEY)")
	f.StringVar(&a.to.tokenFile, "token-file", "", "`FILE` with your token; or the token itself in SKEIN_TOKEN")
}

// get is an environment variable, or else a default.
func (e *Env) get(name, otherwise string) string {
	for _, entry := range e.Environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok && value != "" {
			return value
		}
	}
	return otherwise
}

// local tells whether the way to the node does not leave this host.
func (w *way) local() bool {
	return strings.HasPrefix(w.server, "unix:") || config.Loopback(w.server)
}

// target is the server's address as gRPC has it.
func (w *way) target() (string, error) {
	if strings.HasPrefix(w.server, "unix:") {
		return w.server, nil
	}
	if _, _, err := net.SplitHostPort(w.server); err != nil {
		return "", usageError("--server: %q wants HOST:PORT, as in %s, or unix:///PATH", w.server, defaultServer)
	}
	return "passthrough:///" + w.server, nil
}

// dial prepares the connection, which is made by the first call.
func (w *way) dial(env *Env) (*grpc.ClientConn, error) {
	target, err := w.target()
	if err != nil {
		return nil, err
	}
	creds, err := w.credentials()
	if err != nil {
		return nil, err
	}
	sealed := creds != nil
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20))}
	token := env.get("SKEIN_TOKEN", "")
	if w.tokenFile != "" {
		data, err := os.ReadFile(w.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		token = strings.TrimSpace(string(data))
	}
	if token != "" {
		if !sealed && !w.local() {
			return nil, usageError("a token is sent over TLS alone: name the node's authority with --ca FILE")
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer{token, sealed}))
	}
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, usageError("--server: %w", err)
	}
	return conn, nil
}

// credentials are nil for a plain connection.
func (w *way) credentials() (credentials.TransportCredentials, error) {
	if w.certs != "" && w.cert == "" && w.key == "" {
		w.cert, w.key = filepath.Join(w.certs, certs.CertFile), filepath.Join(w.certs, certs.KeyFile)
		if w.ca == "" {
			w.ca = filepath.Join(w.certs, certs.CAFile)
		}
	}
	if w.ca == "" && w.cert == "" && w.key == "" || strings.HasPrefix(w.server, "unix:") {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if w.ca != "" {
		text, err := os.ReadFile(w.ca)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--ca: %s holds no certificate", w.ca)
		}
	}
	if w.cert != "" || w.key != "" {
		pair, err := tls.LoadX509KeyPair(w.cert, w.key)
		if err != nil {
			return nil, fmt.Errorf("--cert, --key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(t), nil
}

// bearer sends a token with each call.
type bearer struct {
	token  string
	sealed bool
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return b.sealed }
