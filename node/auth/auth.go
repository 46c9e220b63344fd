package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/skein-mqtt/skein/fsm"
)

// State is what the cluster knows of users, roles and bans. *fsm.FSM is one.
type State interface {
	AccessGeneration() uint64
	HasUsers() bool
	User(name string) *fsm.User
	Holding(name string) fsm.Holding
	Bans(kind fsm.BanKind, after string, fn func(*fsm.Ban) bool)
}

// Config of the access rules. Without files, and as long as State has no users, everybody may do
// everything.
type Config struct {
	State          State    // nil: no replicated users
	Methods        []string // the order in which a client's proof is judged; nil: Methods
	PasswordFile   string
	ACLFile        string
	AllowAnonymous bool // clients without a user name, although passwords are asked for
	Require        bool // ask for a proof although no method is in use
	JWT            JWTConfig
	HTTP           HTTPConfig
	LDAP           LDAPConfig
	// FailureDelay is how long a refusal takes, at least: it tells nothing of why.
	FailureDelay time.Duration
	// MaxFailures within FailureWindow from one address at one listener keep it out there for BanTime.
	// 0: no limit.
	MaxFailures   int
	FailureWindow time.Duration
	BanTime       time.Duration
	Logger        *slog.Logger
}

// Rules are the access rules in force. All methods may be called from any goroutine.
type Rules struct {
	sums     map[string][sha256.Size]byte // what was read last, by file
	cfg      Config
	end      context.CancelFunc // of what refreshes keys
	jwt      *jwtMethod
	http     *httpMethod
	chain    []link
	users    atomic.Pointer[Users]
	acl      atomic.Pointer[ACL]
	files    atomic.Uint64 // changes with the files
	banned   atomic.Pointer[banTable]
	allowAll atomic.Pointer[policy]
	hashing  hashing
	failures failures
	counts   counts
}

// Open reads the files. An error names the file and the lines at fault.
func Open(cfg Config) (*Rules, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Rules{cfg: cfg, end: cancel, sums: make(map[string][sha256.Size]byte)}
	r.failures.init(&r.cfg)
	if err := errors.Join(r.link(ctx), r.readUsers(), r.readACL()); err != nil {
		cancel()
		return nil, err
	}
	return r, nil
}

// Close ends what refreshes keys and what is kept open to servers.
func (r *Rules) Close() {
	r.end()
	r.http.close()
}

// Version changes whenever a verdict may be another one than before.
func (r *Rules) Version() uint64 {
	v := r.files.Load()
	if r.cfg.State != nil {
		v += r.cfg.State.AccessGeneration() // both only grow
	}
	return v
}

// fresh reads a file; nil without an error: it is what was read last. Other files of its folder may
// change all the time, and rules that are new make every connection ask again. It is called by Open and by Run.
func (r *Rules) fresh(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	if last, ok := r.sums[path]; ok && last == sum {
		return nil, nil
	}
	r.sums[path] = sum
	return data, nil // not nil, also when the file is empty
}

func (r *Rules) readUsers() error {
	if r.cfg.PasswordFile == "" {
		return nil
	}
	data, err := r.fresh(r.cfg.PasswordFile)
	if err != nil {
		return fmt.Errorf("auth.password_file: %w", err)
	}
	if data == nil {
		return nil
	}
	u, err := ParseUsers(data)
	if err != nil {
		return fmt.Errorf("auth.password_file: %s: %w", r.cfg.PasswordFile, err)
	}
	r.users.Store(u)
	return nil
}

func (r *Rules) readACL() error {
	if r.cfg.ACLFile == "" {
		return nil
	}
	data, err := r.fresh(r.cfg.ACLFile)
	if err != nil {
		return fmt.Errorf("auth.acl_file: %w", err)
	}
	if data == nil {
		return nil
	}
	a, err := ParseACL(data)
	if err != nil {
		return fmt.Errorf("auth.acl_file: %s: %w", r.cfg.ACLFile, err)
	}
	r.acl.Store(a)
	return nil
}

// settleTime lets an editor finish: a file is often emptied before it is written.
const settleTime = 100 * time.Millisecond

// Run reads the files again when they change, until ctx ends. It watches their folders: an editor, or
// Kubernetes, puts another file in their place.
func (r *Rules) Run(ctx context.Context) error {
	files := map[string]func() error{}
	if f := r.cfg.PasswordFile; f != "" {
		files[f] = r.readUsers
	}
	if f := r.cfg.ACLFile; f != "" {
		files[f] = r.readACL
	}
	if f := r.cfg.JWT.SecretFile; f != "" {
		files[f] = r.jwt.readSecret
	}
	if f := r.cfg.JWT.PublicKeyFile; f != "" {
		files[f] = r.jwt.readPublic
	}
	if len(files) == 0 {
		<-ctx.Done()
		return nil
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the files of auth: %w", err)
	}
	defer w.Close()
	for f := range files {
		if err := w.Add(filepath.Dir(f)); err != nil {
			return fmt.Errorf("watch %s: %w", filepath.Dir(f), err)
		}
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	due := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.Errors:
			r.cfg.Logger.Error("the files of auth can't be watched", "error", err)
		case <-w.Events:
			if !due { // the first event counts: others in the folder may never end
				due = true
				timer.Reset(settleTime)
			}
		case <-timer.C:
			due = false
			r.reload(files)
		}
	}
}

func (r *Rules) reload(files map[string]func() error) {
	before, beforeACL := r.users.Load(), r.acl.Load()
	for _, read := range files {
		if err := read(); err != nil {
			r.cfg.Logger.Error("the access rules stay as they were", "error", err)
		}
	}
	if r.users.Load() != before || r.acl.Load() != beforeACL {
		r.cfg.Logger.Info("the access rules were read again")
		r.files.Add(1)
	}
}
