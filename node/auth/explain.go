package auth

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// RuleText is a rule as people write it: "deny publish meters/# priority 5".
func RuleText(r fsm.Rule) string {
	var b strings.Builder
	b.WriteString("allow ")
	if r.Deny {
		b.Reset()
		b.WriteString("deny ")
	}
	b.WriteString(r.Action.String())
	if r.Literal {
		b.WriteString(" literally")
	}
	fmt.Fprintf(&b, " %s", r.Filter)
	if r.Priority != 0 {
		fmt.Fprintf(&b, " priority %d", r.Priority)
	}
	return b.String()
}

// CanI tells whether a client of that user name and id could do something now, if it was let in, and
// why: for people. username is empty for a client without one.
func (r *Rules) CanI(username, clientID string, a fsm.Action, name string) (allowed bool, why string) {
	method := "asked" // whichever has let it in
	if ban := r.bans().has(username, clientID, netip.Addr{}); ban != nil {
		return false, fmt.Sprintf("%s %q is banned", ban.Kind, ban.Value)
	}
	if r.standing(username, clientID, netip.Addr{}, method) != mqtt.Success {
		if r.user(username).Disabled {
			return false, fmt.Sprintf("user %q is disabled", username)
		}
		return false, fmt.Sprintf("user %q may only use the client id %q", username, r.user(username).ClientID)
	}
	p := r.policy(r.Version(), username, clientID, nil)
	if p.all {
		return true, "no rule restricts it"
	}
	allowed, by, from := p.decide(a, name)
	switch from {
	case byRule:
		role := fmt.Sprintf("role %q", by.role.Name)
		if by.group != "" {
			role += fmt.Sprintf(", by group %q", by.group)
		}
		return allowed, fmt.Sprintf("%s: %s", role, RuleText(by.Rule))
	case byFile:
		verb := "forbids"
		if allowed {
			verb = "allows"
		}
		return allowed, "no role's rule speaks of it, and this node's auth.acl_file " + verb + " it"
	}
	verb := "deny"
	if allowed {
		verb = "allow"
	}
	why = "no role's rule speaks of it, and the default is " + verb
	if r.user(username) == nil && username != "" {
		why = "the cluster knows no user of that name, and the default is " + verb
	}
	return allowed, why
}
