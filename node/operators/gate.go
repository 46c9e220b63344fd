package operators

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/node/files"
	"github.com/skein-mqtt/skein/proto/certname"
)

// Operator is somebody who is known.
type Operator struct {
	Name string
	Role Role
}

// Caller is what a connection shows.
type Caller struct {
	// Local: it comes in where only this host does, by loopback or a unix socket.
	Local bool
	// Sealed: nobody on the way can read it, so a token may be taken from it.
	Sealed bool
	// TLS is the connection's state, nil without.
	TLS   *tls.ConnectionState
	Token string // empty: none
	// Least is what those may do at any rate who come this way and show nothing.
	Least Role
	From  string // address, for the audit log
}

// Errors of a verdict.
var (
	// ErrUnknown: the caller shows nothing that is known.
	ErrUnknown = errors.New("who asks is not known: show a certificate or a token of an operator")
	// ErrToken: the token is not in the file, any more perhaps.
	ErrToken = errors.New("the token is not known")
	// ErrPlain: a token came in over a connection that can be listened to.
	ErrPlain = errors.New("tokens are taken over TLS alone: whoever listens has this one now, replace it")
	// ErrRole: the caller is known and may not do that.
	ErrRole = errors.New("not allowed")
)

// Config of a gate.
type Config struct {
	Cluster   string // operators' certificates of another cluster are not known
	File      string // of operators; empty: none
	LocalRole Role   // of a local caller who shows nothing
	Logger    *slog.Logger

	look time.Duration // for tests
}

// Gate tells who a caller is and what he may do. All methods may be called from any goroutine.
type Gate struct {
	config  Config
	list    atomic.Pointer[list]
	loaded  files.Stamps
	refused atomic.Uint64
}

// Open reads the file of operators.
func Open(config Config) (*Gate, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gate{config: config}
	g.loaded = files.Look(g.files())
	return g, g.load()
}

func (g *Gate) files() []string {
	if g.config.File == "" {
		return nil
	}
	return []string{g.config.File}
}

func (g *Gate) load() error {
	l, err := parseList(nil)
	if g.config.File != "" {
		var data []byte
		if data, err = os.ReadFile(g.config.File); err == nil {
			l, err = parseList(data)
		}
	}
	if err != nil {
		return fmt.Errorf("admin.operators_file: %s: %w", g.config.File, err)
	}
	g.list.Store(l)
	return nil
}

// Reload reads the file again; one that can't be read leaves the operators as they were, with an error in
// the log.
func (g *Gate) Reload() {
	if err := g.load(); err != nil {
		g.config.Logger.Error("the operators stay as they were", "error", err)
		return
	}
	g.config.Logger.Info("the operators were read again", "file", g.config.File)
}

// Run reads the file again when it changes, until ctx ends.
func (g *Gate) Run(ctx context.Context) {
	if g.config.File != "" {
		files.Watch(ctx, g.config.look, g.loaded, g.files, g.Reload)
	}
}

// Refused counts the calls that were not allowed.
func (g *Gate) Refused() uint64 { return g.refused.Load() }

// Who is the caller. Whoever shows a token is its owner or nobody, also where others need none.
func (g *Gate) Who(c Caller) (Operator, error) {
	if c.Token != "" {
		if !c.Sealed {
			return Operator{}, ErrPlain
		}
		o, ok := g.list.Load().tokens[sha256.Sum256([]byte(c.Token))]
		if !ok {
			return Operator{}, ErrToken
		}
		return o, nil
	}
	if c.TLS != nil && len(c.TLS.VerifiedChains) > 0 {
		return g.bearer(c.TLS.VerifiedChains[0][0])
	}
	switch {
	case c.Local:
		return Operator{Name: "local", Role: max(g.config.LocalRole, c.Least)}, nil
	case c.Least > Nobody:
		return Operator{Name: "anonymous", Role: c.Least}, nil
	}
	return Operator{}, ErrUnknown
}

// bearer is whose certificate that is; the file's word is worth more than the certificate's.
func (g *Gate) bearer(c *x509.Certificate) (Operator, error) {
	if o, ok := g.list.Load().certs[c.Subject.CommonName]; ok {
		return o, nil
	}
	n, err := certname.Of(c)
	switch {
	case errors.Is(err, certname.ErrNone):
		return Operator{}, fmt.Errorf("%w: %q is not in the file of operators", ErrUnknown, c.Subject.CommonName)
	case err != nil:
		return Operator{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	case n.Operator == "" || n.Cluster != g.config.Cluster:
		return Operator{}, fmt.Errorf("%w: this is the certificate of %s", ErrUnknown, n)
	}
	role, err := ParseRole(n.Role)
	if err != nil {
		return Operator{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return Operator{Name: n.Operator, Role: role}, nil
}

// May is Who, and ErrRole unless the caller has the role at least. Nobody is anybody's.
func (g *Gate) May(c Caller, role Role) (Operator, error) {
	o, err := g.Who(c)
	if role == Nobody {
		return o, nil
	}
	if err == nil && o.Role < role {
		err = fmt.Errorf("%w: %s has the role %s, and this wants %s", ErrRole, o.Name, o.Role, role)
	}
	if err != nil {
		g.refused.Add(1)
	}
	return o, err
}
