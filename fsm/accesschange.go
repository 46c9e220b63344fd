package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// refusal is why a change of the access table is not made.
type refusal struct {
	code   Code
	detail string
}

func refuse(code Code, format string, args ...any) *refusal {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// changeAccess makes all changes of a command, or none: they are made on a copy, which costs nothing
// until it is written to. Timers of bans are touched only when everything else is in order.
func (f *FSM) changeAccess(c *fsmpb.ChangeAccess, r *Result) {
	before := f.table
	f.table = before.copy()
	r.Changed = make([]Change, 0, len(c.Changes))
	for i, one := range c.Changes {
		change, no := f.table.change(one, f.index, f.now)
		if no != nil {
			f.table = before
			r.Code, r.Detail, r.Changed = no.code, no.detail, nil
			if len(c.Changes) > 1 {
				r.Detail = fmt.Sprintf("change %d: %s", i+1, no.detail)
			}
			return
		}
		r.Changed = append(r.Changed, change)
	}
	for _, one := range c.Changes {
		switch op := one.Op.(type) {
		case *fsmpb.AccessChange_PutBan:
			f.scheduleBan(&before, op.PutBan.Key)
		case *fsmpb.AccessChange_DeleteBan:
			f.scheduleBan(&before, op.DeleteBan)
		}
	}
	f.tableReplaced()
}

// scheduleBan moves the timer from the ban of the table before to the one of now.
func (f *FSM) scheduleBan(before *accessTable, k *fsmpb.BanKey) {
	key := banRow{Ban: &Ban{Kind: BanKind(k.GetKind()), Value: k.GetValue()}}
	old, had := before.bans.Get(key)
	now, has := f.table.bans.Get(key)
	if had && (!has || now.Ban != old.Ban) {
		f.timers.cancel(&old.expires)
	}
	if has && now.Expires != 0 && !now.expires.set() {
		now.expires = f.timers.schedule(now.Expires, timerBan, nil, banTopic(now.Kind, now.Value))
		f.table.bans.Set(now)
	}
}

// banTopic names a ban in its timer.
func banTopic(kind BanKind, value string) string { return string(rune(kind)) + value }

// banOver ends a ban that has expired.
func (f *FSM) banOver(topic string) {
	f.table.bans.Delete(banRow{Ban: &Ban{Kind: BanKind(topic[0]), Value: topic[1:]}})
	f.accessChanged()
}

// tableReplaced tells readers that the whole table may be another one.
func (f *FSM) tableReplaced() {
	f.access.users.Store(int64(f.table.users.Len()))
	f.accessChanged()
}

// Change is what became of one change of an access command.
type Change uint8

// The outcomes of changes.
const (
	Unchanged Change = iota // it was so already
	Created
	Configured
	Deleted
)

func (t *accessTable) change(c *fsmpb.AccessChange, index uint64, now int64) (Change, *refusal) {
	switch op := c.Op.(type) {
	case *fsmpb.AccessChange_PutUser:
		return t.putUser(op.PutUser, c, index)
	case *fsmpb.AccessChange_PutGroup:
		return t.putGroup(op.PutGroup, c, index)
	case *fsmpb.AccessChange_PutRole:
		return t.putRole(op.PutRole, c, index)
	case *fsmpb.AccessChange_PutBan:
		return t.putBan(op.PutBan, c, index, now)
	case *fsmpb.AccessChange_PutDefaults:
		return t.putDefaults(op.PutDefaults, c, index)
	case *fsmpb.AccessChange_DeleteUser:
		old, ok := t.users.Get(&User{Name: op.DeleteUser})
		if no := gone(c, ok, func() uint64 { return old.Revision }, "user", op.DeleteUser); no != nil {
			return 0, no
		}
		t.users.Delete(old)
	case *fsmpb.AccessChange_DeleteGroup:
		old, ok := t.groups.Get(&Group{Name: op.DeleteGroup})
		if no := gone(c, ok, func() uint64 { return old.Revision }, "group", op.DeleteGroup); no != nil {
			return 0, no
		}
		t.groups.Delete(old)
		t.forgetGroup(old.Name, index)
	case *fsmpb.AccessChange_DeleteRole:
		old, ok := t.roles.Get(&Role{Name: op.DeleteRole})
		if no := gone(c, ok, func() uint64 { return old.Revision }, "role", op.DeleteRole); no != nil {
			return 0, no
		}
		t.roles.Delete(old)
		t.forgetRole(old.Name, index)
	case *fsmpb.AccessChange_DeleteBan:
		key := banRow{Ban: &Ban{Kind: BanKind(op.DeleteBan.GetKind()), Value: op.DeleteBan.GetValue()}}
		old, ok := t.bans.Get(key)
		if no := gone(c, ok, func() uint64 { return old.Revision }, "ban of "+key.Kind.String(), key.Value); no != nil {
			return 0, no
		}
		t.bans.Delete(old)
	default:
		return 0, refuse(Invalid, "nothing is to be changed")
	}
	return Deleted, nil
}

// gone checks a delete.
func gone(c *fsmpb.AccessChange, exists bool, revision func() uint64, kind, name string) *refusal {
	if !exists {
		return refuse(NotFound, "no %s %q", kind, name)
	}
	return stillAt(c, exists, revision, kind, name)
}

// stillAt checks what a change expects of the object before it.
func stillAt(c *fsmpb.AccessChange, exists bool, revision func() uint64, kind, name string) *refusal {
	switch {
	case exists && c.Create:
		return refuse(Exists, "%s %q exists already", kind, name)
	case c.Revision != 0 && (!exists || revision() != c.Revision):
		return refuse(Conflict, "%s %q has been changed meanwhile", kind, name)
	}
	return nil
}

// put checks a put and tells what it does.
func put(c *fsmpb.AccessChange, exists, same bool, revision func() uint64, kind, name string) (Change, *refusal) {
	if name == "" {
		return 0, refuse(Invalid, "a %s without a name", kind)
	}
	if no := stillAt(c, exists, revision, kind, name); no != nil {
		return 0, no
	}
	switch {
	case !exists:
		return Created, nil
	case same:
		return Unchanged, nil
	}
	return Configured, nil
}

func (t *accessTable) putUser(p *fsmpb.PutUser, c *fsmpb.AccessChange, index uint64) (Change, *refusal) {
	old, exists := t.users.Get(&User{Name: p.Name})
	u := &User{
		Name: strings.Clone(p.Name), Disabled: p.Disabled, ClientID: strings.Clone(p.ClientId), Description: strings.Clone(p.Description),
		Roles: grantList(p.Roles), Groups: grantList(p.Groups),
	}
	if exists {
		u.Password, u.Scram, u.Revision = old.Password, old.Scram, old.Revision
	}
	if p.Password != nil {
		u.Password = strings.Clone(*p.Password)
	}
	if p.Scram != nil {
		u.Scram = strings.Clone(*p.Scram)
	}
	same := exists && old.Password == u.Password && old.Scram == u.Scram && old.Disabled == u.Disabled && old.ClientID == u.ClientID &&
		old.Description == u.Description && slices.Equal(old.Roles, u.Roles) && slices.Equal(old.Groups, u.Groups)
	what, no := put(c, exists, same, func() uint64 { return old.Revision }, "user", u.Name)
	if no == nil {
		no = t.knowsRoles(u.Roles, "user", u.Name)
	}
	for _, g := range u.Groups {
		if _, ok := t.groups.Get(&Group{Name: g.Name}); !ok && no == nil {
			no = refuse(Invalid, "user %q: no group %q", u.Name, g.Name)
		}
	}
	if no != nil || what == Unchanged {
		return what, no
	}
	u.Revision = index
	t.users.Set(u)
	return what, nil
}

func (t *accessTable) putGroup(p *fsmpb.PutGroup, c *fsmpb.AccessChange, index uint64) (Change, *refusal) {
	old, exists := t.groups.Get(&Group{Name: p.Name})
	g := &Group{Name: strings.Clone(p.Name), Description: strings.Clone(p.Description), Roles: grantList(p.Roles)}
	same := exists && old.Description == g.Description && slices.Equal(old.Roles, g.Roles)
	what, no := put(c, exists, same, func() uint64 { return old.Revision }, "group", g.Name)
	if no == nil {
		no = t.knowsRoles(g.Roles, "group", g.Name)
	}
	if no != nil || what == Unchanged {
		return what, no
	}
	g.Revision = index
	t.groups.Set(g)
	return what, nil
}

func (t *accessTable) putRole(p *fsmpb.PutRole, c *fsmpb.AccessChange, index uint64) (Change, *refusal) {
	old, exists := t.roles.Get(&Role{Name: p.Name})
	r := &Role{Name: strings.Clone(p.Name), Description: strings.Clone(p.Description)}
	for _, one := range p.Rules {
		rule := Rule{
			Action: Action(one.Action), Filter: strings.Clone(one.Filter), Literal: one.Literal, Deny: one.Deny, Priority: one.Priority,
		}
		if rule.Action == 0 || rule.Action >= actionEnd || rule.Filter == "" {
			return 0, refuse(Invalid, "role %q: a rule without an action or a filter", r.Name)
		}
		r.Rules = append(r.Rules, rule)
	}
	slices.SortStableFunc(r.Rules, func(a, b Rule) int { return cmp.Compare(b.Priority, a.Priority) })
	same := exists && old.Description == r.Description && slices.Equal(old.Rules, r.Rules)
	what, no := put(c, exists, same, func() uint64 { return old.Revision }, "role", r.Name)
	if no != nil || what == Unchanged {
		return what, no
	}
	r.Revision = index
	t.roles.Set(r)
	return what, nil
}

func (t *accessTable) putBan(p *fsmpb.PutBan, c *fsmpb.AccessChange, index uint64, now int64) (Change, *refusal) {
	b := &Ban{
		Kind: BanKind(p.GetKey().GetKind()), Value: strings.Clone(p.GetKey().GetValue()), Reason: strings.Clone(p.Reason), Created: now, Revision: index,
	}
	if b.Kind == 0 || b.Kind >= banEnd {
		return 0, refuse(Invalid, "a ban of nothing that is known")
	}
	if p.Seconds > 0 {
		b.Expires = roundUp(now + int64(p.Seconds)*1000)
	}
	old, exists := t.bans.Get(banRow{Ban: b})
	same := exists && old.Reason == b.Reason && old.Expires == b.Expires
	what, no := put(c, exists, same, func() uint64 { return old.Revision }, "ban of "+b.Kind.String(), b.Value)
	if no != nil || what == Unchanged {
		return what, no
	}
	t.bans.Set(banRow{Ban: b})
	return what, nil
}

func (t *accessTable) putDefaults(p *fsmpb.DefaultAccess, c *fsmpb.AccessChange, index uint64) (Change, *refusal) {
	d := Defaults{AnonymousGroup: strings.Clone(p.AnonymousGroup), Revision: t.defaults.Revision}
	for _, one := range []struct {
		to *Default
		v  uint32
	}{{&d.Publish, p.Publish}, {&d.Receive, p.Receive}, {&d.Subscribe, p.Subscribe}, {&d.Unsubscribe, p.Unsubscribe}} {
		if one.v > uint32(DefaultDeny) {
			return 0, refuse(Invalid, "the default access %d is not known", one.v)
		}
		*one.to = Default(one.v)
	}
	if d.AnonymousGroup != "" {
		if _, ok := t.groups.Get(&Group{Name: d.AnonymousGroup}); !ok {
			return 0, refuse(Invalid, "anonymous group: no group %q", d.AnonymousGroup)
		}
	}
	if c.Revision != 0 && c.Revision != t.defaults.Revision {
		return 0, refuse(Conflict, "the default access has been changed meanwhile")
	}
	if d == t.defaults {
		return Unchanged, nil
	}
	d.Revision = index
	t.defaults = d
	return Configured, nil
}

func (t *accessTable) knowsRoles(list []Grant, kind, name string) *refusal {
	for _, g := range list {
		if _, ok := t.roles.Get(&Role{Name: g.Name}); !ok {
			return refuse(Invalid, "%s %q: no role %q", kind, name, g.Name)
		}
	}
	return nil
}

// grantList is in the order in which they are asked; of two of one name the first counts.
func grantList(list []*fsmpb.Grant) []Grant {
	var out []Grant
	for _, g := range list {
		out = append(out, Grant{strings.Clone(g.Name), g.Priority})
	}
	slices.SortStableFunc(out, func(a, b Grant) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), strings.Compare(a.Name, b.Name))
	})
	var once []Grant
	for _, g := range out {
		if !slices.ContainsFunc(once, func(o Grant) bool { return o.Name == g.Name }) {
			once = append(once, g)
		}
	}
	return once
}

func without(list []Grant, name string) ([]Grant, bool) {
	if !slices.ContainsFunc(list, func(g Grant) bool { return g.Name == name }) {
		return list, false
	}
	out := slices.DeleteFunc(slices.Clone(list), func(g Grant) bool { return g.Name == name })
	if len(out) == 0 {
		out = nil
	}
	return out, true
}

// forgetRole takes a role from whoever has it: a later role of that name is another one.
func (t *accessTable) forgetRole(name string, index uint64) {
	t.users.Copy().Scan(func(u *User) bool {
		if roles, had := without(u.Roles, name); had {
			n := *u
			n.Roles, n.Revision = roles, index
			t.users.Set(&n)
		}
		return true
	})
	t.groups.Copy().Scan(func(g *Group) bool {
		if roles, had := without(g.Roles, name); had {
			n := *g
			n.Roles, n.Revision = roles, index
			t.groups.Set(&n)
		}
		return true
	})
}

func (t *accessTable) forgetGroup(name string, index uint64) {
	if t.defaults.AnonymousGroup == name {
		t.defaults.AnonymousGroup, t.defaults.Revision = "", index
	}
	t.users.Copy().Scan(func(u *User) bool {
		if groups, had := without(u.Groups, name); had {
			n := *u
			n.Groups, n.Revision = groups, index
			t.users.Set(&n)
		}
		return true
	})
}
