package fsm

// access writes the table, which is there in snapshots of version 2 alone.
func (e *encoder) access(t *accessTable) {
	d := &t.defaults
	for _, v := range []Default{d.Publish, d.Receive, d.Subscribe, d.Unsubscribe} {
		e.uint(uint64(v))
	}
	e.str(d.AnonymousGroup)
	e.uint(d.Revision)
	t.roles.Scan(func(r *Role) bool {
		e.bool(true)
		e.role(r)
		return e.err == nil
	})
	e.bool(false)
	t.groups.Scan(func(g *Group) bool {
		e.bool(true)
		e.group(g)
		return e.err == nil
	})
	e.bool(false)
	t.users.Scan(func(u *User) bool {
		e.bool(true)
		e.user(u)
		return e.err == nil
	})
	e.bool(false)
	t.bans.Scan(func(b banRow) bool {
		e.bool(true)
		e.ban(b.Ban)
		e.key(b.expires)
		return e.err == nil
	})
	e.bool(false)
}

func (f *FSM) restoreAccess(d *decoder) {
	t := &f.table
	def := &t.defaults
	for _, to := range []*Default{&def.Publish, &def.Receive, &def.Subscribe, &def.Unsubscribe} {
		*to = Default(d.uint())
	}
	def.AnonymousGroup, def.Revision = d.str(), d.uint()
	for d.bool() {
		t.roles.Set(d.role())
	}
	for d.bool() {
		t.groups.Set(d.group())
	}
	for d.bool() {
		t.users.Set(d.user())
	}
	for d.bool() {
		b := banRow{Ban: d.ban(), expires: d.key()}
		t.bans.Set(b)
		if b.expires.set() {
			f.timers.queue.Set(timer{b.expires, timerBan, nil, banTopic(b.Kind, b.Value)})
		}
	}
}

func (e *encoder) grants(list []Grant) {
	e.uint(uint64(len(list)))
	for _, g := range list {
		e.str(g.Name)
		e.int(int64(g.Priority))
	}
}

func (d *decoder) grants() (list []Grant) {
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		list = append(list, Grant{d.shared(), int32(d.int())})
	}
	return list
}

func (e *encoder) user(u *User) {
	for _, s := range []string{u.Name, u.Password, u.Scram, u.ClientID, u.Description} {
		e.str(s)
	}
	e.bool(u.Disabled)
	e.grants(u.Roles)
	e.grants(u.Groups)
	e.uint(u.Revision)
}

func (d *decoder) user() *User {
	u := &User{}
	for _, s := range []*string{&u.Name, &u.Password, &u.Scram, &u.ClientID, &u.Description} {
		*s = d.str()
	}
	u.Disabled, u.Roles, u.Groups, u.Revision = d.bool(), d.grants(), d.grants(), d.uint()
	return u
}

func (e *encoder) group(g *Group) {
	e.str(g.Name)
	e.str(g.Description)
	e.grants(g.Roles)
	e.uint(g.Revision)
}

func (d *decoder) group() *Group {
	return &Group{Name: d.str(), Description: d.str(), Roles: d.grants(), Revision: d.uint()}
}

func (e *encoder) role(r *Role) {
	e.str(r.Name)
	e.str(r.Description)
	e.uint(uint64(len(r.Rules)))
	for _, one := range r.Rules {
		e.uint(uint64(one.Action))
		e.str(one.Filter)
		e.bool(one.Literal)
		e.bool(one.Deny)
		e.int(int64(one.Priority))
	}
	e.uint(r.Revision)
}

func (d *decoder) role() *Role {
	r := &Role{Name: d.str(), Description: d.str()}
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		r.Rules = append(r.Rules, Rule{Action: Action(d.uint()), Filter: d.str(), Literal: d.bool(), Deny: d.bool(), Priority: int32(d.int())})
	}
	r.Revision = d.uint()
	return r
}

func (e *encoder) ban(b *Ban) {
	e.uint(uint64(b.Kind))
	e.str(b.Value)
	e.str(b.Reason)
	e.int(b.Created)
	e.int(b.Expires)
	e.uint(b.Revision)
}

func (d *decoder) ban() *Ban {
	return &Ban{Kind: BanKind(d.uint()), Value: d.str(), Reason: d.str(), Created: d.int(), Expires: d.int(), Revision: d.uint()}
}
