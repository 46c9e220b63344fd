package admin

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/auth"
	"github.com/skein-mqtt/skein/proto/adminpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/topic"
)

// translate turns an operator's change into the log's: checked, and with passwords hashed.
func (a *accessServer) translate(c *adminpb.AccessChange) (*fsmpb.AccessChange, error) {
	out := &fsmpb.AccessChange{Create: c.Create, Revision: c.Revision}
	switch op := c.Op.(type) {
	case *adminpb.AccessChange_PutUser:
		u, err := a.user(op.PutUser, out)
		out.Op = &fsmpb.AccessChange_PutUser{PutUser: u}
		return out, err
	case *adminpb.AccessChange_PutGroup:
		g := op.PutGroup
		out.Op = &fsmpb.AccessChange_PutGroup{PutGroup: &fsmpb.PutGroup{Name: g.Name, Description: g.Description, Roles: grantsOf(g.Roles)}}
		return out, name("group", g.Name, g.Description)
	case *adminpb.AccessChange_PutRole:
		r, err := role(op.PutRole)
		out.Op = &fsmpb.AccessChange_PutRole{PutRole: r}
		return out, err
	case *adminpb.AccessChange_PutBan:
		key, err := banKey(op.PutBan.Ban)
		out.Op = &fsmpb.AccessChange_PutBan{PutBan: &fsmpb.PutBan{Key: key, Reason: op.PutBan.Ban.GetReason(), Seconds: op.PutBan.Seconds}}
		return out, err
	case *adminpb.AccessChange_PutDefaults:
		d, err := defaults(op.PutDefaults)
		out.Op = &fsmpb.AccessChange_PutDefaults{PutDefaults: d}
		return out, err
	case *adminpb.AccessChange_DeleteUser:
		out.Op = &fsmpb.AccessChange_DeleteUser{DeleteUser: op.DeleteUser}
	case *adminpb.AccessChange_DeleteGroup:
		out.Op = &fsmpb.AccessChange_DeleteGroup{DeleteGroup: op.DeleteGroup}
	case *adminpb.AccessChange_DeleteRole:
		out.Op = &fsmpb.AccessChange_DeleteRole{DeleteRole: op.DeleteRole}
	case *adminpb.AccessChange_DeleteBan:
		key, err := banKey(op.DeleteBan)
		out.Op = &fsmpb.AccessChange_DeleteBan{DeleteBan: key}
		return out, err
	default:
		return nil, fmt.Errorf("nothing is to be changed")
	}
	return out, nil
}

// user translates a put. One that keeps what is there is made from it, and refused if that has changed
// by the time the log has it.
func (a *accessServer) user(p *adminpb.PutUser, c *fsmpb.AccessChange) (*fsmpb.PutUser, error) {
	u := p.User
	if u == nil {
		u = &adminpb.User{}
	}
	if p.Keep {
		old := a.state.User(u.Name)
		if old == nil {
			return nil, status.Errorf(codes.NotFound, "no user %q", u.Name)
		}
		u, c.Revision = userPB(old), old.Revision
		if p.Disabled != nil {
			u.Disabled = *p.Disabled
		}
	}
	out := &fsmpb.PutUser{
		Name: u.Name, Disabled: u.Disabled, ClientId: u.ClientId, Description: u.Description, Roles: grantsOf(u.Roles), Groups: grantsOf(u.Groups),
	}
	if err := name("user", u.Name, u.ClientId, u.Description); err != nil {
		return nil, err
	}
	empty := ""
	switch {
	case p.Password != nil && p.PasswordHash != nil:
		return nil, fmt.Errorf("user %q: password and password_hash exclude each other", u.Name)
	case p.Password != nil && *p.Password == "":
		out.Password, out.Scram = &empty, &empty
	case p.Password != nil:
		hash := auth.NewHash([]byte(*p.Password))
		out.Password, out.Scram = &hash, &empty // a password that SCRAM can't use works without it
		if v, err := auth.NewVerifier([]byte(*p.Password)); err == nil {
			out.Scram = &v
		}
	case p.PasswordHash != nil:
		out.Password, out.Scram = p.PasswordHash, &empty // the one before is of another password
		if *p.PasswordHash != "" {
			if _, err := auth.ParseHash(*p.PasswordHash); err != nil {
				return nil, fmt.Errorf("user %q: password_hash: %w", u.Name, err)
			}
		}
	}
	if p.ScramVerifier != nil {
		if _, err := auth.ParseVerifier(*p.ScramVerifier); *p.ScramVerifier != "" && err != nil {
			return nil, fmt.Errorf("user %q: scram_verifier: %w", u.Name, err)
		}
		out.Scram = p.ScramVerifier
	}
	return out, nil
}

// maxName bounds names and descriptions.
const maxName = 1024

// name checks a name and other texts.
func name(kind, name string, others ...string) error {
	if name == "" {
		return fmt.Errorf("a %s wants a name", kind)
	}
	for _, s := range append(others, name) {
		if len(s) > maxName || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			return fmt.Errorf("%s %q: texts are UTF-8 without U+0000, and have at most %d bytes", kind, name, maxName)
		}
	}
	return nil
}

func role(r *adminpb.Role) (*fsmpb.PutRole, error) {
	out := &fsmpb.PutRole{Name: r.Name, Description: r.Description}
	if err := name("role", r.Name, r.Description); err != nil {
		return nil, err
	}
	for _, one := range r.Rules {
		action, err := actionOf(one.Action)
		if err != nil {
			return nil, fmt.Errorf("role %q: %w", r.Name, err)
		}
		if err := topic.ValidateFilter(one.Filter); err != nil {
			return nil, fmt.Errorf("role %q: filter %q: %w", r.Name, one.Filter, err)
		}
		if one.Literal && (action == fsm.ActionPublish || action == fsm.ActionReceive) {
			return nil, fmt.Errorf("role %q: %s %q: literal is for subscribe and unsubscribe", r.Name, one.Action, one.Filter)
		}
		out.Rules = append(out.Rules, &fsmpb.AccessRule{
			Action: uint32(action), Filter: one.Filter, Literal: one.Literal, Deny: one.Deny, Priority: one.Priority,
		})
	}
	return out, nil
}

func actionOf(text string) (fsm.Action, error) {
	for _, a := range fsm.Actions() {
		if a.String() == text {
			return a, nil
		}
	}
	return 0, fmt.Errorf("action %q: it can be publish, receive, subscribe or unsubscribe", text)
}

func banKind(text string) fsm.BanKind {
	for _, k := range []fsm.BanKind{fsm.BanClient, fsm.BanUser, fsm.BanNetwork} {
		if k.String() == text {
			return k
		}
	}
	return 0
}

func banKey(b *adminpb.Ban) (*fsmpb.BanKey, error) {
	kind, value := banKind(b.GetKind()), b.GetValue()
	if kind == 0 {
		return nil, fmt.Errorf("ban of %q: it can be client, user or network", b.GetKind())
	}
	if err := name("ban", value, b.GetReason()); err != nil {
		return nil, err
	}
	if kind == fsm.BanNetwork {
		p, err := network(value)
		if err != nil {
			return nil, fmt.Errorf("ban of network %q: it wants an address or a network, as in 192.0.2.7 or 2001:db8::/32", value)
		}
		value = p.String()
	}
	return &fsmpb.BanKey{Kind: uint32(kind), Value: value}, nil
}

// network reads an address or a network, in the one form that it has in the log.
func network(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil {
		ip = ip.Unmap().WithZone("")
		return ip.Prefix(ip.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), err
}

var defaultNames = map[fsm.Default]string{fsm.DefaultUnset: "", fsm.DefaultAllow: "allow", fsm.DefaultDeny: "deny"}

func defaultName(d fsm.Default) string { return defaultNames[d] }

func defaults(d *adminpb.AccessDefaults) (*fsmpb.DefaultAccess, error) {
	out := &fsmpb.DefaultAccess{AnonymousGroup: d.AnonymousGroup}
	for _, one := range []struct {
		name, text string
		to         *uint32
	}{{"publish", d.Publish, &out.Publish}, {"receive", d.Receive, &out.Receive}, {"subscribe", d.Subscribe, &out.Subscribe}, {"unsubscribe", d.Unsubscribe, &out.Unsubscribe}} {
		switch one.text {
		case "":
		case "allow":
			*one.to = uint32(fsm.DefaultAllow)
		case "deny":
			*one.to = uint32(fsm.DefaultDeny)
		default:
			return nil, fmt.Errorf("default of %s: %q is not allow or deny", one.name, one.text)
		}
	}
	return out, nil
}

func grantsOf(list []*adminpb.Grant) []*fsmpb.Grant {
	var out []*fsmpb.Grant
	for _, g := range list {
		out = append(out, &fsmpb.Grant{Name: g.Name, Priority: g.Priority})
	}
	return out
}

func grantsPB(list []fsm.Grant) []*adminpb.Grant {
	var out []*adminpb.Grant
	for _, g := range list {
		out = append(out, &adminpb.Grant{Name: g.Name, Priority: g.Priority})
	}
	return out
}

func userPB(u *fsm.User) *adminpb.User {
	return &adminpb.User{
		Name: u.Name, Disabled: u.Disabled, ClientId: u.ClientID, Description: u.Description, Roles: grantsPB(u.Roles), Groups: grantsPB(u.Groups),
		Password: u.Password != "", Scram: u.Scram != "", Revision: u.Revision,
	}
}

func groupPB(g *fsm.Group) *adminpb.Group {
	return &adminpb.Group{Name: g.Name, Description: g.Description, Roles: grantsPB(g.Roles), Revision: g.Revision}
}

func rolePB(r *fsm.Role) *adminpb.Role {
	out := &adminpb.Role{Name: r.Name, Description: r.Description, Revision: r.Revision}
	for _, one := range r.Rules {
		out.Rules = append(out.Rules, &adminpb.Rule{
			Action: one.Action.String(), Filter: one.Filter, Literal: one.Literal, Deny: one.Deny, Priority: one.Priority,
		})
	}
	return out
}

func banPB(b *fsm.Ban) *adminpb.Ban {
	return &adminpb.Ban{Kind: b.Kind.String(), Value: b.Value, Reason: b.Reason, Created: b.Created, Expires: b.Expires, Revision: b.Revision}
}
