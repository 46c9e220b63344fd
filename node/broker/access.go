package broker

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Identity is what the listener knows of a client before its CONNECT.
type Identity struct {
	// Username stands in place of CONNECT's when Verified.
	Username string
	// Verified: the client has proved who it is, with a certificate or a pre-shared key. The user name
	// and the password in its CONNECT count for nothing.
	Verified bool
	// Policy is its listener's; nil: none.
	Policy *Policy
}

// Policy is what a listener asks of its clients beyond what all listeners do.
type Policy struct {
	Versions []mqtt.Version // that they may speak; empty: all
	// Anonymous tells whether those without a user name are let in; nil: Access says so.
	Anonymous *bool
	// Mount stands before all of their topics, and ends in a slash; empty: nothing does.
	Mount string
}

// judge tells whether a CONNECT that is in order may come in here.
func (id *Identity) judge(p *mqtt.Connect) mqtt.ReasonCode {
	switch policy := id.Policy; {
	case policy == nil:
	case len(policy.Versions) > 0 && !slices.Contains(policy.Versions, p.Version):
		return mqtt.UnsupportedProtocolVersion
	case policy.Anonymous != nil && !*policy.Anonymous && p.Username == "" && !id.Verified:
		return mqtt.NotAuthorized
	}
	return mqtt.Success
}

// Login is what a client says of itself, and what the listener knows of it.
type Login struct {
	Connect  *mqtt.Connect // in order otherwise; of one whose identity is verified without a password
	ClientID string        // its own, or the one that it was given
	Identity Identity
	Remote   net.Addr
	Listener string
}

// Decision on a login.
type Decision struct {
	Code   mqtt.ReasonCode
	Rights Rights // with Success
}

// Access decides who may connect and what they may do.
type Access interface {
	// Quick judges a login if it can do so at once; ok is false if Authenticate must.
	Quick(l *Login) (d Decision, ok bool)
	// Authenticate judges a login. It may block.
	Authenticate(ctx context.Context, l *Login) Decision
	// Exchange begins an enhanced authentication; ok is false when its method is not known.
	Exchange(l *Login, method string) (e Exchange, ok bool)
	// Version changes whenever any verdict may be another one: what was remembered of them is asked anew.
	Version() uint64
}

// Rights are what one connection may do, at the time of the question. Every message asks: the answer
// must be quick, and comes from any goroutine, also from the one that applies the log.
type Rights interface {
	Username() string // empty: the client has no name
	MayPublish(topic string) bool
	MayReceive(topic string) bool
	MaySubscribe(filter string) bool // without $share and group
	MayUnsubscribe(filter string) bool
	// Standing is Success, or why the connection must end. It is asked when Version has changed.
	Standing() mqtt.ReasonCode
	// Expires is when the connection must end whatever happens; zero: never.
	Expires() time.Time
}

// mayReceive tells whether the client may have a message of a topic. Its CONNECT has been judged.
func (c *client) mayReceive(topic string) bool {
	return c.sees(topic) && (c.rights == nil || c.rights.MayReceive(topic))
}

func (c *client) mayPublish(topic string) bool { return c.rights == nil || c.rights.MayPublish(topic) }

func (c *client) maySubscribe(filter string) bool {
	return c.rights == nil || c.rights.MaySubscribe(filter)
}

func (c *client) mayUnsubscribe(filter string) bool {
	return c.rights == nil || c.rights.MayUnsubscribe(filter)
}

// mayWill tells whether the client's will, if it has one, may be published now.
func (c *client) mayWill() bool {
	return c.connect == nil || c.connect.Will == nil || c.mayPublish(c.connect.Will.Topic)
}

// accessVersion changes whenever a verdict may have.
func (b *Broker) accessVersion() uint64 {
	if a := b.cfg.Access; a != nil {
		return a.Version()
	}
	return 0
}

// authenticate has the CONNECT judged before it is proposed. Called without the lock, after open.
func (c *client) authenticate() {
	if c.waitForService() { // the replicated users are not all known yet
		return
	}
	a := c.b.cfg.Access
	if a == nil {
		c.proposeConnect()
		return
	}
	if e := c.enhanced; e != nil {
		c.judged(*e.decision)
		return
	}
	l := c.login()
	if d, ok := a.Quick(l); ok {
		c.judged(d)
		return
	}
	c.b.spawn(func() {
		ctx, cancel := context.WithTimeout(context.Background(), connectPatience)
		defer cancel()
		c.judged(a.Authenticate(ctx, l))
	})
}

func (c *client) login() *Login {
	return &Login{Connect: c.connect, ClientID: c.info.id, Identity: c.identity, Remote: c.conn.RemoteAddr(), Listener: c.listener}
}

func (c *client) logRefusal(code mqtt.ReasonCode) {
	c.b.logger.Info("a client was refused", "client", c.info.id, "user", c.info.username, "remote", c.conn.RemoteAddr().String(), "reason", code.String())
}

// judged goes on with a CONNECT after the verdict on it.
func (c *client) judged(d Decision) {
	code := d.Code
	if code == mqtt.Success {
		c.conn.Lock()
		c.rights = d.Rights
		if r := d.Rights; r != nil {
			c.info.username = r.Username()
			c.expireAt(r.Expires())
		}
		c.conn.Unlock()
		if !c.mayWill() {
			code = mqtt.NotAuthorized
		}
	}
	if code == mqtt.Success {
		c.proposeConnect()
		return
	}
	c.logRefusal(code)
	c.with(func(ba *conn.Batch) {
		if c.phase == phaseProposed {
			_ = c.refuse(code, ba)
		}
	})
}

// standing is Success, or why the connection must end.
func (c *client) standing() mqtt.ReasonCode {
	if c.rights == nil {
		return mqtt.Success
	}
	return c.rights.Standing()
}

// review ends a connection that is not to be here any more, after the rules have changed. One whose
// CONNECT is on its way is looked at when that arrives.
func (c *client) review() {
	c.with(func(ba *conn.Batch) {
		if c.phase != phaseGated && c.phase != phaseOnline {
			return
		}
		code := c.standing()
		if code == mqtt.Success {
			return
		}
		if code == mqtt.Banned { // which DISCONNECT has no code for
			code = mqtt.AdministrativeAction
		}
		c.b.stats.expelled.Add(1)
		c.b.logger.Info("a client is disconnected: it has no right to be here any more", "client", c.info.id, "user", c.info.username, "reason", code.String())
		c.dismiss(code, ba)
	})
}
