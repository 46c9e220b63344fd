package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Config of the access rules. Without files, everybody may do everything.
type Config struct {
	PasswordFile   string
	ACLFile        string
	AllowAnonymous bool // clients without a user name, where there is a password file
	Logger         *slog.Logger
}

// Attempt is what a client says of itself.
type Attempt struct {
	ClientID    string
	Username    string
	HasUsername bool
	Password    []byte
	Anonymous   bool // its listener lets clients without a user name in
	Verified    bool // the listener knows that it is this user: no password is asked for
}

// Verdict on an attempt.
type Verdict uint8

// Verdicts.
const (
	Allowed  Verdict = iota
	BadLogin         // the user name or the password is wrong
	NoLogin          // a user name is required
)

// Rules are the access rules in force. All methods may be called from any goroutine.
type Rules struct {
	cfg     Config
	users   atomic.Pointer[Users]
	acl     atomic.Pointer[ACL]
	slots   chan struct{} // bounds how many hashes are computed at a time
	failed  atomic.Uint64
	sums    map[string][sha256.Size]byte // what was read last, by file
	mu      sync.Mutex
	changed func()
}

// hashing is how many passwords are checked at a time: each takes a processor and up to 19 MiB.
const hashing = 2

// Open reads the files. An error names the file and the lines at fault.
func Open(cfg Config) (*Rules, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Rules{cfg: cfg, sums: make(map[string][sha256.Size]byte), slots: make(chan struct{}, hashing), changed: func() {}}
	return r, errors.Join(r.readUsers(), r.readACL())
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

// OnChange sets what is called after the rules have changed, from the goroutine of Run.
func (r *Rules) OnChange(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed = fn
}

// Authenticate judges an attempt. It blocks for as long as a hash takes, and longer while others are
// being checked.
func (r *Rules) Authenticate(ctx context.Context, a *Attempt) Verdict {
	u := r.users.Load()
	switch {
	case a.Verified:
		return Allowed
	case u == nil:
		return Allowed // a user name is only a name then, for the access list
	case !a.HasUsername:
		if r.cfg.AllowAnonymous || a.Anonymous {
			return Allowed
		}
		r.failed.Add(1)
		return NoLogin
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return BadLogin
	}
	if u.Check(a.Username, a.Password) {
		return Allowed
	}
	r.failed.Add(1)
	return BadLogin
}

// Failed is how many attempts were refused.
func (r *Rules) Failed() uint64 { return r.failed.Load() }

// MayPublish tells whether a client may publish to a topic.
func (r *Rules) MayPublish(username, clientID, topic string) bool {
	a := r.acl.Load()
	return a == nil || a.Allows(username, clientID, topic, Write)
}

// MayReceive tells whether a client may have a message of a topic.
func (r *Rules) MayReceive(username, clientID, topic string) bool {
	a := r.acl.Load()
	return a == nil || a.Allows(username, clientID, topic, Read)
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
		r.mu.Lock()
		fn := r.changed
		r.mu.Unlock()
		fn()
	}
}
