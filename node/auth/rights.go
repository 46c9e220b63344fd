package auth

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/proto/topic"
)

// Rights are what one connection may do. The rules that concern it are remembered until any rule
// changes, so a change holds for the next message. All methods may be called from any goroutine, and
// none blocks for longer than it takes to read the replicated state.
type Rights struct {
	rules    *Rules
	username string
	clientID string
	remote   netip.Addr // invalid: not known
	method   string     // that has let it in; empty: nobody asked
	proof    *proof     // of a token, nil: none
	now      atomic.Pointer[policy]
}

// proof is what a token, or a server, has said beyond the name.
type proof struct {
	token   []fsm.Rule // what the client may do, nil: not said
	expires time.Time  // zero: never
}

func (p *proof) rules() []fsm.Rule {
	if p == nil {
		return nil
	}
	return p.token
}

// policy is what holds for a client at one version of the rules. It is immutable.
type policy struct {
	version  uint64
	all      bool // everything is allowed
	held     []heldRule
	token    []heldRule
	hasToken bool
	file     *ACL
	defaults [5]bool // by action
	username string
	clientID string
}

// heldRule is a rule of a role that the client has, its filter without holes.
type heldRule struct {
	fsm.Rule
	filter string
	role   *fsm.Role // nil: of a token
	group  string
}

// source says what has decided.
type source uint8

const (
	byRule    source = iota // a role's
	byToken                 // a rule of the token
	noToken                 // the token has none that allows it
	byFile                  // auth.acl_file
	byDefault               // the default access
)

// current is the policy in force.
func (r *Rights) current() *policy {
	p := r.now.Load()
	if v := r.rules.Version(); p == nil || p.version != v {
		p = r.rules.policy(v, r.username, r.clientID, r.proof.rules())
		if r.Standing() != mqtt.Success { // its connection is about to end
			p = &policy{version: v, username: r.username, clientID: r.clientID}
		}
		r.now.Store(p)
	}
	return p
}

// MayPublish tells whether the client may publish to a topic.
func (r *Rights) MayPublish(name string) bool { return r.may(fsm.ActionPublish, name) }

// MayReceive tells whether it may have a message of a topic.
func (r *Rights) MayReceive(name string) bool { return r.may(fsm.ActionReceive, name) }

// MaySubscribe tells whether it may subscribe to a filter, which is without $share and group.
func (r *Rights) MaySubscribe(filter string) bool { return r.may(fsm.ActionSubscribe, filter) }

// MayUnsubscribe tells whether it may give a subscription up.
func (r *Rights) MayUnsubscribe(filter string) bool { return r.may(fsm.ActionUnsubscribe, filter) }

func (r *Rights) may(a fsm.Action, name string) bool {
	p := r.current()
	if p.all {
		return true
	}
	allowed, _, _ := p.decide(a, name)
	return allowed
}

// Username is who the client is; empty: it has no name.
func (r *Rights) Username() string { return r.username }

// Expires is when the connection must end, zero: not at all.
func (r *Rights) Expires() time.Time {
	if r.proof == nil {
		return time.Time{}
	}
	return r.proof.expires
}

// Standing is Success, or why the connection must end: its user was deleted or disabled, or somebody
// banned it.
func (r *Rights) Standing() mqtt.ReasonCode {
	return r.rules.standing(r.username, r.clientID, r.remote, r.method)
}

// standing judges who a client is, but not how it has proved that.
func (r *Rules) standing(username, clientID string, remote netip.Addr, method string) mqtt.ReasonCode {
	if r.bans().has(username, clientID, remote) != nil {
		return mqtt.Banned
	}
	u := r.user(username)
	switch {
	case u != nil && (u.Disabled || u.ClientID != "" && u.ClientID != clientID):
		return mqtt.NotAuthorized
	case u != nil && method == "": // the name was a mere name, and has become somebody's
		return mqtt.NotAuthorized
	case u == nil && method == methodUsers:
		return mqtt.NotAuthorized
	case method == methodFile:
		if f := r.users.Load(); f != nil && !f.Has(username) {
			return mqtt.NotAuthorized
		}
	}
	return mqtt.Success
}

func (r *Rules) user(name string) *fsm.User {
	if name == "" || r.cfg.State == nil || !r.cfg.State.HasUsers() {
		return nil
	}
	return r.cfg.State.User(name)
}

// policy gathers what concerns one client.
func (r *Rules) policy(version uint64, username, clientID string, token []fsm.Rule) *policy {
	p := &policy{version: version, file: r.acl.Load(), username: username, clientID: clientID, hasToken: token != nil}
	var h fsm.Holding
	if r.cfg.State != nil {
		h = r.cfg.State.Holding(username)
	}
	for _, role := range h.Roles {
		for i := range role.Rules {
			if filter, ok := filled(&role.Rules[i], username, clientID); ok {
				p.held = append(p.held, heldRule{role.Rules[i], filter, role.Role, role.Group})
			}
		}
	}
	for i := range token {
		if filter, ok := filled(&token[i], username, clientID); ok {
			p.token = append(p.token, heldRule{token[i], filter, nil, ""})
		}
	}
	known := h.User != nil || username == "" && h.Defaults.AnonymousGroup != ""
	p.all = len(p.held) == 0 && !p.hasToken && p.file == nil
	for _, a := range fsm.Actions() {
		switch h.Defaults.Of(a) {
		case fsm.DefaultAllow:
			p.defaults[a] = true
		case fsm.DefaultUnset: // of those whom the cluster knows nothing is allowed that no rule allows
			p.defaults[a] = !known || a == fsm.ActionUnsubscribe
		}
		p.all = p.all && p.defaults[a]
	}
	if p.all {
		return r.everything(version)
	}
	return p
}

// everything is a policy that all clients share who may do everything.
func (r *Rules) everything(version uint64) *policy {
	p := r.allowAll.Load()
	if p == nil || p.version != version {
		p = &policy{version: version, all: true}
		r.allowAll.Store(p)
	}
	return p
}

// filled puts the user's name for %u and the client's id for %c. A name with a wildcard or a separator
// in it would reach more than its own topics: what such a rule allows is not for this client, and what it denies
// is everything. A client id that begins with $ makes no rule one for the broker's own topics.
func filled(rule *fsm.Rule, username, clientID string) (string, bool) {
	filter := rule.Filter
	user, client := strings.Contains(filter, "%u"), strings.Contains(filter, "%c")
	switch {
	case user && username == "":
		return "", false
	case user && strings.ContainsAny(username, "+#/") || client && strings.ContainsAny(clientID, "+#/"):
		return "#", rule.Deny
	}
	if !user && !client {
		return filter, true
	}
	out := strings.NewReplacer("%c", clientID, "%u", username).Replace(filter)
	return out, rule.Deny || !strings.HasPrefix(out, "$") || strings.HasPrefix(filter, "$")
}

// decide judges an action; by is the rule that made the verdict, where one did. The rules of the
// client's roles come first, then its token's, which are all that such a client has, then the access
// list, which is complete as well; where nothing of that is there, the default holds.
func (p *policy) decide(a fsm.Action, name string) (allowed bool, by *heldRule, from source) {
	if by = find(p.held, a, name); by != nil {
		return !by.Deny, by, byRule
	}
	if p.hasToken {
		if by = find(p.token, a, name); by != nil {
			return !by.Deny, by, byToken
		}
		return a == fsm.ActionUnsubscribe, nil, noToken
	}
	if p.file != nil {
		switch a {
		case fsm.ActionPublish:
			return p.file.Allows(p.username, p.clientID, name, Write), nil, byFile
		case fsm.ActionReceive:
			return p.file.Allows(p.username, p.clientID, name, Read), nil, byFile
		}
		return true, nil, byFile // as in Mosquitto: what it forbids is not delivered
	}
	return p.defaults[a], nil, byDefault
}

// find is the first rule that speaks of an action. What may be received is what may be subscribed to,
// where no rule on receiving says otherwise.
func find(rules []heldRule, a fsm.Action, name string) *heldRule {
	for i := range rules {
		if r := &rules[i]; r.Action == a && r.covers(name) {
			return r
		}
	}
	if a != fsm.ActionReceive {
		return nil
	}
	for i := range rules {
		r := &rules[i]
		// To forbid one filter by its letters is not to forbid the topics that it matches.
		if r.Action == fsm.ActionSubscribe && !(r.Literal && r.Deny) && topic.Match(r.filter, name) {
			return r
		}
	}
	return nil
}

func (r *heldRule) covers(name string) bool {
	switch r.Action {
	case fsm.ActionPublish, fsm.ActionReceive:
		return topic.Match(r.filter, name)
	}
	return r.filter == name || !r.Literal && topic.Covers(r.filter, name)
}
