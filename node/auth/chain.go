package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Attempt is what a client says of itself, and what the listener knows of it.
type Attempt struct {
	ClientID    string
	Username    string
	HasUsername bool
	Password    []byte
	Anonymous   bool       // its listener lets clients without a user name in
	Verified    bool       // the listener knows that it is this user: no proof is asked for
	Remote      netip.Addr // invalid: not known, as of a unix socket
	Listener    string
}

func (a *Attempt) named() bool { return a.HasUsername && a.Username != "" }

// The names of the methods, as in auth.methods.
const (
	methodFile      = "file"
	methodUsers     = "users"
	methodJWT       = "jwt"
	methodHTTP      = "http"
	methodLDAP      = "ldap"
	methodVerified  = "listener" // not of the chain: the listener has checked a certificate or a key
	methodAnonymous = "anonymous"
)

// outcome of one method.
type outcome uint8

const (
	pass outcome = iota // it does not know this client: the next one is asked
	allow
	deny
)

// verdict of one method.
type verdict struct {
	outcome
	username string     // who it is, empty: as it said
	token    []fsm.Rule // what it may do, nil: not said
	expires  time.Time  // until when, zero: for as long as it likes
}

// method is a way to prove who one is.
type method interface {
	// judge may block, until ctx ends at the latest.
	judge(ctx context.Context, a *Attempt) verdict
	// asks tells whether the method is in use now. When none is, nobody has to prove anything.
	asks() bool
	// waste takes as long as judge of a name that it does not know.
	waste(ctx context.Context, a *Attempt)
}

// link is one method of the chain.
type link struct {
	method
	name string
}

// Methods are the names that Config.Methods may hold, in their default order.
func Methods() []string {
	return []string{methodFile, methodUsers, methodJWT, methodHTTP, methodLDAP}
}

// link builds the chain. What refreshes keys ends with ctx.
func (r *Rules) link(ctx context.Context) (err error) {
	var errs [3]error
	var directory *ldapMethod
	r.jwt, errs[0] = openJWT(ctx, r, r.cfg.JWT)
	r.http, errs[1] = openHTTP(r, r.cfg.HTTP)
	directory, errs[2] = openLDAP(r, r.cfg.LDAP)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	known := map[string]method{
		methodFile: fileMethod{r}, methodUsers: usersMethod{r}, methodJWT: r.jwt, methodHTTP: r.http, methodLDAP: directory,
	}
	names := r.cfg.Methods
	if names == nil {
		names = Methods()
	}
	r.counts.methods = make([]methodCounts, len(names))
	for i, name := range names {
		m := known[name]
		if m == nil {
			return fmt.Errorf("auth.methods: %q is not known: use some of %s", name, strings.Join(Methods(), ", "))
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("auth.methods: %q is there twice", name)
		}
		r.chain = append(r.chain, link{m, name})
		r.counts.methods[i].name = name
	}
	return nil
}

// Asks tells whether anybody has to prove who he is.
func (r *Rules) Asks() bool {
	if r.cfg.Require || r.cfg.State != nil && r.cfg.State.HasUsers() {
		return true // a mere name must not be taken for a user, whatever the chain is
	}
	return slices.ContainsFunc(r.chain, func(l link) bool { return l.asks() })
}

// Quick judges an attempt if that needs no waiting; ok is false if it does: see Authenticate.
func (r *Rules) Quick(a *Attempt) (rights *Rights, code mqtt.ReasonCode, ok bool) {
	switch {
	case r.bans().has(a.Username, a.ClientID, a.Remote) != nil:
		r.counts.banned.Add(1)
		return nil, mqtt.Banned, true
	case a.Verified:
		rights, code = r.admit(a, methodVerified, verdict{})
		return rights, code, true
	case r.failures.tooMany(a):
		r.counts.banned.Add(1)
		return nil, mqtt.Banned, true
	case !r.Asks():
		rights, code = r.admit(a, "", verdict{})
		return rights, code, true
	case !a.named() && len(a.Password) == 0:
		rights, code = r.nameless(a)
		return rights, code, true
	}
	return nil, mqtt.Success, false
}

// Authenticate judges an attempt that Quick has not. It blocks for as long as the methods take; a
// refusal takes a multiple of Config.FailureDelay, until ctx ends at the latest.
func (r *Rules) Authenticate(ctx context.Context, a *Attempt) (*Rights, mqtt.ReasonCode) {
	began := time.Now()
	rights, code := r.ask(ctx, a)
	if code == mqtt.Success {
		r.failures.forgive(a)
		return rights, code
	}
	r.refused(a)
	r.delay(ctx, began)
	return nil, code
}

func (r *Rules) ask(ctx context.Context, a *Attempt) (*Rights, mqtt.ReasonCode) {
	for i, l := range r.chain {
		v := l.judge(ctx, a)
		r.counts.methods[i].of[v.outcome].Add(1)
		switch v.outcome {
		case allow:
			rights, code := r.admit(a, l.name, v)
			if code == mqtt.NotAuthorized { // a disabled user learns as much as one with a wrong password
				code = mqtt.BadUserNameOrPassword
			}
			return rights, code
		case deny:
			for _, rest := range r.chain[i+1:] {
				rest.waste(ctx, a)
			}
			return nil, mqtt.BadUserNameOrPassword
		}
	}
	if !a.named() {
		return r.nameless(a)
	}
	return nil, mqtt.BadUserNameOrPassword
}

// nameless judges a client without a user name.
func (r *Rules) nameless(a *Attempt) (*Rights, mqtt.ReasonCode) {
	if !r.cfg.AllowAnonymous && !a.Anonymous {
		r.counts.failed.Add(1)
		return nil, mqtt.NotAuthorized
	}
	return r.admit(a, methodAnonymous, verdict{})
}

// admit gives a client that has proved who it is its rights, if it is to be let in.
func (r *Rules) admit(a *Attempt, by string, v verdict) (*Rights, mqtt.ReasonCode) {
	rights := &Rights{rules: r, clientID: a.ClientID, remote: a.Remote, method: by}
	if v.token != nil || !v.expires.IsZero() {
		rights.proof = &proof{v.token, v.expires}
	}
	switch {
	case v.username != "":
		rights.username = v.username
	case a.named():
		rights.username = a.Username
	}
	if code := rights.Standing(); code != mqtt.Success {
		return nil, code
	}
	return rights, mqtt.Success
}

func (r *Rules) refused(a *Attempt) {
	r.counts.failed.Add(1)
	if r.failures.count(a) {
		r.counts.bansMade.Add(1)
		r.cfg.Logger.Warn("too many failed logins: the address is kept out for a while", "remote", a.Remote.String(), "listener", a.Listener, "for", r.cfg.BanTime.String())
	}
}

// delay waits until a multiple of FailureDelay has gone by.
func (r *Rules) delay(ctx context.Context, began time.Time) {
	if r.cfg.FailureDelay <= 0 {
		return
	}
	timer := time.NewTimer(r.cfg.FailureDelay - time.Since(began)%r.cfg.FailureDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
