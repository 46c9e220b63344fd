package run

import (
	"context"
	"net"
	"net/netip"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/auth"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// access is the access rules as the broker asks for them.
type access struct{ *auth.Rules }

func attempt(l *broker.Login) *auth.Attempt {
	p, policy := l.Connect, l.Identity.Policy
	anonymous := policy != nil && policy.Anonymous != nil && *policy.Anonymous
	return &auth.Attempt{
		ClientID: l.ClientID, Username: p.Username, HasUsername: p.HasUsername, Password: p.Password, Verified: l.Identity.Verified,
		Remote: addressOf(l.Remote), Listener: l.Listener, Anonymous: anonymous,
	}
}

// addressOf is invalid for what has no IP address.
func addressOf(a net.Addr) netip.Addr {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr()
}

func decision(r *auth.Rights, code mqtt.ReasonCode) broker.Decision {
	d := broker.Decision{Code: code}
	if r != nil {
		d.Rights = r
	}
	return d
}

// Quick implements broker.Access.
func (a access) Quick(l *broker.Login) (broker.Decision, bool) {
	r, code, ok := a.Rules.Quick(attempt(l))
	return decision(r, code), ok
}

// exchange is an enhanced authentication as the broker asks for it.
type exchange struct{ *auth.Exchange }

// Step implements broker.Exchange.
func (e exchange) Step(data []byte) ([]byte, bool, broker.Decision) {
	reply, done, r, code := e.Exchange.Step(data)
	return reply, done, decision(r, code)
}

// Exchange implements broker.Access.
func (a access) Exchange(l *broker.Login, method string) (broker.Exchange, bool) {
	e := a.Rules.Exchange(attempt(l), method)
	return exchange{e}, e != nil
}

// Authenticate implements broker.Access.
func (a access) Authenticate(ctx context.Context, l *broker.Login) broker.Decision {
	return decision(a.Rules.Authenticate(ctx, attempt(l)))
}

func (n *node) authConfig(c *config.Auth) auth.Config {
	return auth.Config{
		State: n.fsm, Methods: c.Methods, PasswordFile: c.PasswordFile, ACLFile: c.ACLFile, AllowAnonymous: c.AllowAnonymous, Require: c.Require,
		FailureDelay: c.FailureDelay, MaxFailures: c.MaxFailures, FailureWindow: c.FailureWindow, BanTime: c.BanTime,
		JWT: auth.JWTConfig(c.JWT), HTTP: auth.HTTPConfig(c.HTTP), LDAP: auth.LDAPConfig(c.LDAP),
		Logger: n.logger,
	}
}

// accessRules is what the admin service asks and changes.
type accessRules struct{ n *node }

// ChangeAccess implements admin.Rules.
func (a accessRules) ChangeAccess(ctx context.Context, c *fsmpb.ChangeAccess) (fsm.Result, error) {
	return a.n.broker.ChangeAccess(ctx, c)
}

// CanI implements admin.Rules.
func (a accessRules) CanI(username, clientID string, action fsm.Action, topic string) (bool, string) {
	return a.n.rules.CanI(username, clientID, action, topic)
}
