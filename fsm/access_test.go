package fsm

import (
	"bytes"
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

func access(changes ...*fsmpb.AccessChange) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_ChangeAccess{ChangeAccess: &fsmpb.ChangeAccess{Changes: changes}}}
}

func putUser(u *fsmpb.PutUser) *fsmpb.AccessChange {
	return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_PutUser{PutUser: u}}
}

func putRole(name string, rules ...*fsmpb.AccessRule) *fsmpb.AccessChange {
	return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_PutRole{PutRole: &fsmpb.PutRole{Name: name, Rules: rules}}}
}

func putGroup(name string, roles ...*fsmpb.Grant) *fsmpb.AccessChange {
	return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_PutGroup{PutGroup: &fsmpb.PutGroup{Name: name, Roles: roles}}}
}

func putBan(kind BanKind, value string, seconds uint32) *fsmpb.AccessChange {
	return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_PutBan{PutBan: &fsmpb.PutBan{Key: &fsmpb.BanKey{Kind: uint32(kind), Value: value}, Seconds: seconds}}}
}

func deleteRole(name string) *fsmpb.AccessChange {
	return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_DeleteRole{DeleteRole: name}}
}

// change applies one command and returns what its node was told.
func (tc *testCluster) change(node string, changes ...*fsmpb.AccessChange) Result {
	tc.t.Helper()
	tc.batch(node, access(changes...))
	for _, e := range tc.effects[node] {
		if e.Kind == EffectResult {
			return *e.Result
		}
	}
	tc.t.Fatal("no result")
	return Result{}
}

func TestAccessChanges(t *testing.T) {
	tc := newTestCluster(t, "n1", "n2", "n3")
	tc.up("n1")
	allow := &fsmpb.AccessRule{Action: uint32(ActionSubscribe), Filter: "meters/#"}
	deny := &fsmpb.AccessRule{Action: uint32(ActionPublish), Filter: "#", Deny: true, Priority: 5}
	steps := []struct {
		what    string
		changes []*fsmpb.AccessChange
		code    Code
		detail  string
		changed []Change
	}{
		{"a user with a role that is not there", []*fsmpb.AccessChange{putUser(&fsmpb.PutUser{Name: "ann", Roles: []*fsmpb.Grant{{Name: "reader"}}})}, Invalid, `user "ann": no role "reader"`, nil},
		{"all or nothing", []*fsmpb.AccessChange{putRole("reader", allow), putUser(&fsmpb.PutUser{Name: "ann", Groups: []*fsmpb.Grant{{Name: "staff"}}})}, Invalid, `change 2: user "ann": no group "staff"`, nil},
		{"in order", []*fsmpb.AccessChange{
			putRole("reader", allow, deny), putGroup("staff", &fsmpb.Grant{Name: "reader"}),
			putUser(&fsmpb.PutUser{Name: "ann", Password: proto.String("h1"), Scram: proto.String("s1"), Groups: []*fsmpb.Grant{{Name: "staff"}}, Roles: []*fsmpb.Grant{{Name: "reader", Priority: -3}}}),
		}, OK, "", []Change{Created, Created, Created}},
		{"again", []*fsmpb.AccessChange{putRole("reader", allow, deny), putUser(&fsmpb.PutUser{Name: "ann", Groups: []*fsmpb.Grant{{Name: "staff"}}, Roles: []*fsmpb.Grant{{Name: "reader", Priority: -3}}})}, OK, "", []Change{Unchanged, Unchanged}},
		{"no second of that name", []*fsmpb.AccessChange{{Op: putRole("reader").Op, Create: true}}, Exists, `role "reader" exists already`, nil},
		{"changed meanwhile", []*fsmpb.AccessChange{{Op: putRole("reader").Op, Revision: 1}}, Conflict, `role "reader" has been changed meanwhile`, nil},
		{"a rule without an action", []*fsmpb.AccessChange{putRole("x", &fsmpb.AccessRule{Filter: "a"})}, Invalid, `role "x": a rule without an action or a filter`, nil},
		{"nobody's name", []*fsmpb.AccessChange{putUser(&fsmpb.PutUser{})}, Invalid, "a user without a name", nil},
		{"not there", []*fsmpb.AccessChange{deleteRole("x")}, NotFound, `no role "x"`, nil},
		{"the anonymous group", []*fsmpb.AccessChange{{Op: &fsmpb.AccessChange_PutDefaults{PutDefaults: &fsmpb.DefaultAccess{AnonymousGroup: "staff", Publish: 2}}}}, OK, "", []Change{Configured}},
		{"the role goes, and comes back", []*fsmpb.AccessChange{deleteRole("reader"), putRole("reader", deny)}, OK, "", []Change{Deleted, Created}},
	}
	for _, s := range steps {
		before := tc.replicas["n3"].AccessGeneration() // the one that no snapshot replaces
		r := tc.change("n1", s.changes...)
		if r.Code != s.code || r.Detail != s.detail || !slices.Equal(r.Changed, s.changed) {
			t.Errorf("%s: %d %q %v, want %d %q %v", s.what, r.Code, r.Detail, r.Changed, s.code, s.detail, s.changed)
		}
		if moved := tc.replicas["n3"].AccessGeneration() != before; moved != (s.code == OK) {
			t.Errorf("%s: the generation moved: %t", s.what, moved)
		}
	}
	for _, f := range tc.replicas {
		u := f.User("ann")
		if u == nil || u.Password != "h1" || u.Scram != "s1" || len(u.Roles) != 0 || len(u.Groups) != 1 {
			t.Errorf("ann is %+v", u)
		}
		if h := f.Holding("ann"); len(h.Roles) != 0 || h.User != u {
			t.Errorf("a role that was deleted came back to its holders: %+v", h)
		}
		if !f.HasUsers() {
			t.Error("there are users")
		}
	}
}

// TestBansExpire on the log's clock, also after a snapshot, and once more when they were renewed.
func TestBansExpire(t *testing.T) {
	tc := newTestCluster(t, "n1", "n2")
	tc.up("n1")
	tc.change("n1", putBan(BanUser, "eve", 10), putBan(BanClient, "c", 0), putBan(BanNetwork, "192.0.2.0/24", 20))
	bans := func() (out []string) {
		tc.replicas["n2"].Bans(0, "", func(b *Ban) bool {
			out = append(out, fmt.Sprintf("%s %s", b.Kind, b.Value))
			return true
		})
		return out
	}
	want := func(list ...string) {
		t.Helper()
		if got := bans(); !slices.Equal(got, list) {
			t.Errorf("bans are %q, want %q", got, list)
		}
	}
	want("client c", "user eve", "network 192.0.2.0/24")
	tc.clock += 5_000
	tc.change("n1", putBan(BanUser, "eve", 10)) // renewed: 15 s from the beginning
	tc.clock += 9_000
	tc.tick()
	want("client c", "user eve", "network 192.0.2.0/24")
	if due, ok := tc.replicas["n1"].NextDue(); !ok || due != 1_015_000 {
		t.Errorf("next due at %d, %t", due, ok)
	}
	tc.clock += 1_000
	tc.tick()
	want("client c", "network 192.0.2.0/24")
	tc.change("n1", &fsmpb.AccessChange{Op: &fsmpb.AccessChange_DeleteBan{DeleteBan: &fsmpb.BanKey{Kind: uint32(BanNetwork), Value: "192.0.2.0/24"}}})
	want("client c")
	if n := tc.replicas["n1"].Counts().Timers; n != 0 {
		t.Errorf("%d timers are left", n)
	}
}

// TestAccessHistories makes random changes on three replicas, some of which go through a snapshot, and
// compares them with a model.
func TestAccessHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tc := newTestCluster(rt, "n1", "n2", "n3")
		tc.up("n1")
		names := []string{"a", "b", "c"}
		pick := func(label string) string { return rapid.SampledFrom(names).Draw(rt, label) }
		draw := func() *fsmpb.AccessChange {
			n, g := pick("name"), []*fsmpb.Grant{{Name: pick("grant"), Priority: int32(rapid.IntRange(-1, 1).Draw(rt, "priority"))}}
			switch rapid.IntRange(0, 8).Draw(rt, "kind") {
			case 0:
				return putUser(&fsmpb.PutUser{Name: n, Roles: g, Disabled: rapid.Bool().Draw(rt, "disabled")})
			case 1:
				return putUser(&fsmpb.PutUser{Name: n, Groups: g, Password: proto.String(pick("password"))})
			case 2:
				return putGroup(n, g...)
			case 3:
				return putRole(n, &fsmpb.AccessRule{Action: 1, Filter: pick("filter")})
			case 4:
				return deleteRole(n)
			case 5:
				return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_DeleteGroup{DeleteGroup: n}}
			case 6:
				return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_DeleteUser{DeleteUser: n}}
			case 7:
				return putBan(BanKind(rapid.IntRange(1, 3).Draw(rt, "ban")), n, uint32(rapid.IntRange(0, 3).Draw(rt, "seconds")))
			}
			return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_PutDefaults{PutDefaults: &fsmpb.DefaultAccess{AnonymousGroup: n}}}
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			var list []*fsmpb.AccessChange
			for range rapid.IntRange(1, 3).Draw(rt, "changes") {
				list = append(list, draw())
			}
			before := tc.replicas["n3"].table.copy()
			if r := tc.change("n1", list...); r.Code != OK && !equalTables(&before, &tc.replicas["n3"].table) {
				rt.Fatalf("a change that was refused (%s) changed something", r.Detail)
			}
			tc.clock += int64(rapid.IntRange(0, 1500).Draw(rt, "ms"))
			tc.tick()
			dangling(rt, &tc.replicas["n3"].table)
		}
		if tc.clock += 10_000; true {
			tc.tick()
		}
		tc.replicas["n1"].Bans(0, "", func(b *Ban) bool {
			if b.Expires != 0 {
				rt.Fatalf("%+v is over", b)
			}
			return true
		})
	})
}

func equalTables(a, b *accessTable) bool {
	encode := func(t *accessTable) []byte {
		var out bytes.Buffer
		e := newEncoder(&out, snapshotVersion)
		e.access(t)
		_, _ = e.close()
		return out.Bytes()
	}
	return bytes.Equal(encode(a), encode(b))
}

// dangling finds grants of what is not there: whoever made it later would give rights to strangers.
func dangling(t rapid.TB, table *accessTable) {
	roles := func(list []Grant) {
		if no := table.knowsRoles(list, "", ""); no != nil {
			t.Fatalf("dangling: %s", no.detail)
		}
	}
	table.users.Scan(func(u *User) bool {
		roles(u.Roles)
		for _, g := range u.Groups {
			if _, ok := table.groups.Get(&Group{Name: g.Name}); !ok {
				t.Fatalf("user %s is in group %s, which is not there", u.Name, g.Name)
			}
		}
		return true
	})
	table.groups.Scan(func(g *Group) bool {
		roles(g.Roles)
		return true
	})
}

func TestAccessSurvivesSnapshots(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	for range 20 {
		u, g, role, b := &User{}, &Group{}, &Role{}, &Ban{}
		for _, v := range []any{u, g, role, b} {
			fill(r, reflect.ValueOf(v).Elem())
		}
		roundTrip(t, u, (*encoder).user, (*decoder).user)
		roundTrip(t, g, (*encoder).group, (*decoder).group)
		roundTrip(t, role, (*encoder).role, (*decoder).role)
		roundTrip(t, b, (*encoder).ban, (*decoder).ban)
	}
}

// TestSnapshotVersion: only a state that needs it is written in the newer version.
func TestSnapshotVersion(t *testing.T) {
	tc := newTestCluster(t, "n1")
	tc.up("n1")
	version := func() byte {
		var b bytes.Buffer
		if _, err := tc.replicas["n1"].Snapshot().WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()[len(snapshotMagic)]
	}
	if v := version(); v != 1 {
		t.Errorf("a state without users has version %d", v)
	}
	tc.change("n1", putRole("r"))
	if v := version(); v != 2 {
		t.Errorf("a state with a role has version %d", v)
	}
	tc.change("n1", deleteRole("r"))
	if v := version(); v != 1 {
		t.Errorf("a state without a role again has version %d", v)
	}
}

// TestAccessOfANewerBinary: a field that this binary does not know, however deep, stops it.
func TestAccessOfANewerBinary(t *testing.T) {
	u := &fsmpb.PutUser{Name: "ann", Roles: []*fsmpb.Grant{{Name: "r"}}}
	u.Roles[0].ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 7))
	for _, c := range []*fsmpb.Command{access(putUser(u)), access(&fsmpb.AccessChange{})} {
		if known(c) {
			t.Errorf("%v counts as known", c)
		}
	}
	if !known(access(putUser(&fsmpb.PutUser{Name: "ann", Roles: []*fsmpb.Grant{{Name: "r"}}}))) {
		t.Error("a change that is known counts as unknown")
	}
}
