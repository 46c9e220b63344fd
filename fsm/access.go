package fsm

import (
	"github.com/tidwall/btree"
)

// Action is what a rule is about. The numbers are part of the log format.
type Action uint32

// The actions.
const (
	ActionPublish     Action = iota + 1 // a client publishes to a topic
	ActionReceive                       // a client is given a message of a topic
	ActionSubscribe                     // a client subscribes to a filter
	ActionUnsubscribe                   // a client gives a subscription up
	actionEnd
)

var actionNames = [actionEnd]string{"", "publish", "receive", "subscribe", "unsubscribe"}

// Actions are all of them, in order.
func Actions() []Action {
	return []Action{ActionPublish, ActionReceive, ActionSubscribe, ActionUnsubscribe}
}

// String is the action's name, as in files and messages.
func (a Action) String() string {
	if a < actionEnd {
		return actionNames[a]
	}
	return "unknown"
}

// Grant gives a role, or a membership in a group, by name.
type Grant struct {
	Name     string
	Priority int32 // the higher is asked first; equal ones in the order of their names
}

// User is somebody who may connect. It is immutable, as are Group, Role and Ban.
type User struct {
	Name        string
	Password    string // hash; empty: this user has no password here
	Scram       string // verifier of SCRAM-SHA-256; empty: none
	Disabled    bool
	ClientID    string // the only one that it may use; empty: any
	Description string
	Roles       []Grant
	Groups      []Grant
	Revision    uint64 // the log index of the last change
}

// Group gives its members roles.
type Group struct {
	Name        string
	Description string
	Roles       []Grant
	Revision    uint64
}

// Role is a list of rules.
type Role struct {
	Name        string
	Description string
	Rules       []Rule
	Revision    uint64
}

// Rule allows or denies an action on the topics, or the filters, that its filter covers.
type Rule struct {
	Action   Action
	Filter   string // %u is the user's name, %c the client's id
	Literal  bool   // subscribe, unsubscribe: this very filter
	Deny     bool
	Priority int32 // within its role: the higher is asked first; equal ones in the order of the role
}

// BanKind says what a ban is about. The numbers are part of the log format.
type BanKind uint32

// The kinds of bans.
const (
	BanClient  BanKind = iota + 1 // a client id
	BanUser                       // a user name
	BanNetwork                    // an address or a network, in CIDR form
	banEnd
)

var banNames = [banEnd]string{"", "client", "user", "network"}

// String is the kind's name, as in files and messages.
func (k BanKind) String() string {
	if k < banEnd {
		return banNames[k]
	}
	return "unknown"
}

// Ban keeps somebody out.
type Ban struct {
	Kind     BanKind
	Value    string
	Reason   string
	Created  int64 // the log's clock in ms
	Expires  int64 // 0: never
	Revision uint64
}

// Default is what holds for an action that no rule speaks of.
type Default uint8

// The defaults. What unset means is not the state's to say.
const (
	DefaultUnset Default = iota
	DefaultAllow
	DefaultDeny
)

// Defaults are the default access of the cluster.
type Defaults struct {
	Publish, Receive, Subscribe, Unsubscribe Default
	AnonymousGroup                           string // whose roles clients without a user name have
	Revision                                 uint64
}

// Of is the default of one action.
func (d *Defaults) Of(a Action) Default {
	switch a {
	case ActionPublish:
		return d.Publish
	case ActionReceive:
		return d.Receive
	case ActionSubscribe:
		return d.Subscribe
	case ActionUnsubscribe:
		return d.Unsubscribe
	}
	return DefaultUnset
}

// banRow is a ban with its timer.
type banRow struct {
	*Ban
	expires timerKey
}

// accessTable holds who may do what. The values in it are immutable: a change is another value.
type accessTable struct {
	users    *btree.BTreeG[*User]
	groups   *btree.BTreeG[*Group]
	roles    *btree.BTreeG[*Role]
	bans     *btree.BTreeG[banRow]
	defaults Defaults
}

func newAccessTable() accessTable {
	o := btree.Options{NoLocks: true}
	return accessTable{
		users:  btree.NewBTreeGOptions(func(a, b *User) bool { return a.Name < b.Name }, o),
		groups: btree.NewBTreeGOptions(func(a, b *Group) bool { return a.Name < b.Name }, o),
		roles:  btree.NewBTreeGOptions(func(a, b *Role) bool { return a.Name < b.Name }, o),
		bans: btree.NewBTreeGOptions(func(a, b banRow) bool {
			return a.Kind < b.Kind || a.Kind == b.Kind && a.Value < b.Value
		}, o),
	}
}

// copy shares everything until one of the two changes.
func (t *accessTable) copy() accessTable {
	return accessTable{users: t.users.Copy(), groups: t.groups.Copy(), roles: t.roles.Copy(), bans: t.bans.Copy(), defaults: t.defaults}
}

func (t *accessTable) empty() bool {
	return t.users.Len()+t.groups.Len()+t.roles.Len()+t.bans.Len() == 0 && t.defaults == Defaults{}
}

// accessChanged tells readers that what they remember of the access table may be wrong.
func (f *FSM) accessChanged() { f.access.generation.Add(1) }

// AccessGeneration changes whenever a user, group, role, ban or default has changed.
func (f *FSM) AccessGeneration() uint64 { return f.access.generation.Load() }

// HasUsers tells, without a lock, whether there is any user.
func (f *FSM) HasUsers() bool { return f.access.users.Load() > 0 }

// User is a user of that name; nil: there is none.
func (f *FSM) User(name string) *User {
	f.mu.RLock()
	defer f.mu.RUnlock()
	u, _ := f.table.users.Get(&User{Name: name})
	return u
}

// Users calls fn for the users after a name, by name, until it says false.
func (f *FSM) Users(after string, fn func(*User) bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	f.table.users.Ascend(&User{Name: after}, func(u *User) bool { return u.Name == after || fn(u) })
}

// Groups is Users for groups.
func (f *FSM) Groups(after string, fn func(*Group) bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	f.table.groups.Ascend(&Group{Name: after}, func(g *Group) bool { return g.Name == after || fn(g) })
}

// Roles is Users for roles.
func (f *FSM) Roles(after string, fn func(*Role) bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	f.table.roles.Ascend(&Role{Name: after}, func(r *Role) bool { return r.Name == after || fn(r) })
}

// Bans is Users for bans, which come by kind, then by value.
func (f *FSM) Bans(kind BanKind, after string, fn func(*Ban) bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	f.table.bans.Ascend(banRow{Ban: &Ban{Kind: kind, Value: after}}, func(b banRow) bool {
		return b.Kind == kind && b.Value == after || fn(b.Ban)
	})
}

// Defaults are the default access.
func (f *FSM) Defaults() Defaults {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.table.defaults
}

// HeldRole is a role that somebody has, and by way of which group, empty: directly.
type HeldRole struct {
	*Role
	Group string
}

// Holding is what the state knows of a user at one generation.
type Holding struct {
	Generation uint64
	User       *User      // nil: it does not know that name
	Roles      []HeldRole // in the order in which they are asked
	Defaults   Defaults
}

// Holding reads the roles of a user, its own before those of its groups. An empty name is a client
// without a user name: it has the roles of the anonymous group.
func (f *FSM) Holding(name string) Holding {
	f.mu.RLock()
	defer f.mu.RUnlock()
	h := Holding{Generation: f.access.generation.Load(), Defaults: f.table.defaults}
	groups := []Grant{{Name: f.table.defaults.AnonymousGroup}}
	if name != "" {
		h.User, _ = f.table.users.Get(&User{Name: name})
		if h.User == nil {
			return h
		}
		groups = h.User.Groups
		h.Roles = f.table.held(h.Roles, h.User.Roles, "")
	}
	for _, m := range groups {
		if g, ok := f.table.groups.Get(&Group{Name: m.Name}); ok {
			h.Roles = f.table.held(h.Roles, g.Roles, g.Name)
		}
	}
	return h
}

func (t *accessTable) held(to []HeldRole, grants []Grant, group string) []HeldRole {
	for _, g := range grants {
		if r, ok := t.roles.Get(&Role{Name: g.Name}); ok {
			to = append(to, HeldRole{r, group})
		}
	}
	return to
}
