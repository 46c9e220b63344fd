package auth

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// world is a state machine that a test changes, and rules over it.
type world struct {
	t     *testing.T
	state *fsm.FSM
	*Rules
	sequence uint64
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	w := &world{t: t, state: fsm.New("n"), sequence: 1}
	cfg.State = w.state
	var err error
	if w.Rules, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	up := &fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: "n", Nonce: 1}}}
	if _, err := w.state.Apply(1, 1, fsm.EncodeSystem(nil, 1, up)); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) change(list ...*fsmpb.AccessChange) {
	w.t.Helper()
	b := &fsmpb.Batch{Origin: "n", Incarnation: 1, First: w.sequence, Commands: []*fsmpb.Command{
		{Op: &fsmpb.Command_ChangeAccess{ChangeAccess: &fsmpb.ChangeAccess{Changes: list}}},
	}}
	w.sequence++
	raw, err := b.MarshalVT()
	if err != nil {
		w.t.Fatal(err)
	}
	effects, err := w.state.Apply(w.state.Applied()+1, 1, fsm.EncodeBatch(nil, 1, raw))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range effects {
		if e.Kind == fsm.EffectResult && e.Result.Code != fsm.OK {
			w.t.Fatalf("refused: %s", e.Result.Detail)
		}
	}
}

func user(name, password string, roles ...*fsmpb.Grant) *fsmpb.PutUser {
	u := &fsmpb.PutUser{Name: name, Roles: roles}
	if password != "" {
		hash := NewHash([]byte(password))
		u.Password = &hash
	}
	return u
}

func put(u *fsmpb.PutUser) *fsmpb.AccessChange {
	return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_PutUser{PutUser: u}}
}

func drop(name string) *fsmpb.AccessChange {
	return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_DeleteUser{DeleteUser: name}}
}

func role(name string, rules ...string) *fsmpb.AccessChange {
	r := &fsmpb.PutRole{Name: name}
	for i, text := range rules { // ACTION FILTER, a ! in front denies, a = in front of the filter is literal
		f := strings.Fields(text)
		one := &fsmpb.AccessRule{Deny: strings.HasPrefix(f[0], "!"), Literal: strings.HasPrefix(f[1], "="), Filter: strings.TrimPrefix(f[1], "="), Priority: int32(-i)}
		for _, a := range fsm.Actions() {
			if a.String() == strings.TrimPrefix(f[0], "!") {
				one.Action = uint32(a)
			}
		}
		r.Rules = append(r.Rules, one)
	}
	return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_PutRole{PutRole: r}}
}

func group(name string, roles ...*fsmpb.Grant) *fsmpb.AccessChange {
	return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_PutGroup{PutGroup: &fsmpb.PutGroup{Name: name, Roles: roles}}}
}

func grant(name string, priority int32) *fsmpb.Grant {
	return &fsmpb.Grant{Name: name, Priority: priority}
}

// login is what the broker does with a CONNECT.
func (w *world) login(a *Attempt) (*Rights, mqtt.ReasonCode) {
	if rights, code, ok := w.Quick(a); ok {
		return rights, code
	}
	return w.Authenticate(w.t.Context(), a)
}

func (w *world) as(name, password, id string) (*Rights, mqtt.ReasonCode) {
	return w.login(&Attempt{Username: name, HasUsername: name != "", Password: []byte(password), ClientID: id, Listener: "l", Remote: netip.MustParseAddr("192.0.2.1")})
}

func (w *world) in(name, password, id string) *Rights {
	w.t.Helper()
	r, code := w.as(name, password, id)
	if code != mqtt.Success {
		w.t.Fatalf("%s was refused: %s", name, code)
	}
	return r
}

func TestReplicatedUsers(t *testing.T) {
	w := newWorld(t, Config{})
	squatter := w.in("ann", "", "c") // nobody has to prove anything yet
	if !squatter.MayPublish("anything") || !squatter.current().all || squatter.Standing() != mqtt.Success {
		t.Error("without users everybody may do everything")
	}
	w.change(role("reader", "subscribe meters/#"), put(user("ann", "pw", grant("reader", 0))), put(user("certificate", "", grant("reader", 0))))
	if squatter.Standing() != mqtt.NotAuthorized || squatter.MayPublish("anything") {
		t.Error("a mere name was taken for a user")
	}
	w.change(put(user("brief", "pw", grant("reader", 0))))
	gone := w.in("brief", "pw", "id")
	if !gone.MayReceive("meters/1") {
		t.Error("it may not read")
	}
	w.change(drop("brief"))
	if gone.MayPublish("z") || gone.MaySubscribe("meters/1") || gone.MayReceive("meters/1") {
		t.Error("who was deleted may do something until its connection is closed")
	}
	for _, try := range []struct {
		name, password string
		want           mqtt.ReasonCode
	}{
		{"ann", "pw", mqtt.Success},
		{"ann", "no", mqtt.BadUserNameOrPassword},
		{"ann", "", mqtt.BadUserNameOrPassword},
		{"bob", "pw", mqtt.BadUserNameOrPassword},
		{"certificate", "", mqtt.BadUserNameOrPassword},
		{"", "", mqtt.NotAuthorized},
	} {
		if _, code := w.as(try.name, try.password, "c"); code != try.want {
			t.Errorf("%q with %q: %s, want %s", try.name, try.password, code, try.want)
		}
	}
	if r, code := w.login(&Attempt{Username: "certificate", HasUsername: true, Verified: true}); code != mqtt.Success || !r.MayReceive("meters/1") || r.MayPublish("meters/1") {
		t.Error("a name that a certificate has proved has no roles")
	}
	ann := w.in("ann", "pw", "c")
	if !ann.MaySubscribe("meters/+") || ann.MaySubscribe("#") || ann.MayPublish("meters/1") || !ann.MayReceive("meters/1") || !ann.MayUnsubscribe("meters/+") {
		t.Error("ann has other rights than her role's")
	}
	w.change(role("reader", "subscribe other"))
	if ann.MayReceive("meters/1") || ann.MaySubscribe("meters/+") {
		t.Error("a right that was taken away is still there")
	}
	w.change(put(&fsmpb.PutUser{Name: "ann", Disabled: true}))
	if _, code := w.as("ann", "pw", "c"); code != mqtt.BadUserNameOrPassword || ann.Standing() != mqtt.NotAuthorized {
		t.Errorf("a disabled user: %s, %s", code, ann.Standing())
	}
	w.change(put(&fsmpb.PutUser{Name: "ann", ClientId: "hers"}))
	if _, code := w.as("ann", "pw", "c"); code != mqtt.BadUserNameOrPassword || ann.Standing() != mqtt.NotAuthorized {
		t.Errorf("another client id: %s", code)
	}
	hers := w.in("ann", "pw", "hers")
	w.change(drop("ann"))
	if hers.Standing() != mqtt.NotAuthorized {
		t.Error("a deleted user may stay")
	}
	w.change(drop("certificate"))
	if w.in("ann", "", "c").Standing() != mqtt.Success {
		t.Error("the last user has gone, and somebody has to prove something")
	}
}

// TestRoles: which rule decides, and what stands behind the rules.
func TestRoles(t *testing.T) {
	w := newWorld(t, Config{AllowAnonymous: true})
	w.change(
		role("base", "publish a/#", "!publish a/secret/#", "subscribe own/%u/%c/#", "!subscribe =#", "subscribe #"),
		role("strict", "!publish a/1", "receive r/only"),
		role("guests", "subscribe public/#"),
		group("staff", grant("strict", 0)), group("guests", grant("guests", 0)),
		put(&fsmpb.PutUser{Name: "ann", Roles: []*fsmpb.Grant{grant("base", 0)}, Groups: []*fsmpb.Grant{grant("staff", 9)}}),
		put(&fsmpb.PutUser{Name: "bob", Roles: []*fsmpb.Grant{grant("base", 0), grant("strict", 1)}}),
	)
	for _, c := range []struct {
		name, action, topic string
		want                string
	}{
		{"ann", "publish", "a/1", `yes: role "base": allow publish a/#`}, // her own roles come before her groups'
		{"bob", "publish", "a/1", `no: role "strict": deny publish a/1`}, // the higher priority
		{"ann", "publish", "a/secret/x", `yes: role "base": allow publish a/#`},
		{"ann", "publish", "b", "no: no role's rule speaks of it, and the default is deny"},
		{"ann", "receive", "r/only", `yes: role "strict", by group "staff": allow receive r/only priority -1`},
		{"ann", "receive", "x", `yes: role "base": allow subscribe # priority -4`}, // the literal deny is not about topics
		{"ann", "subscribe", "#", `no: role "base": deny subscribe literally # priority -3`},
		{"ann", "subscribe", "own/ann/id/#", `yes: role "base": allow subscribe own/%u/%c/# priority -2`},
		{"ann", "unsubscribe", "z", "yes: no role's rule speaks of it, and the default is allow"},
		{"", "subscribe", "public/x", "yes: no rule restricts it"},
		{"eve", "publish", "b", "yes: no rule restricts it"},
	} {
		var action fsm.Action
		for _, a := range fsm.Actions() {
			if a.String() == c.action {
				action = a
			}
		}
		ok, why := w.CanI(c.name, "id", action, c.topic)
		if got := map[bool]string{true: "yes: ", false: "no: "}[ok] + why; got != c.want {
			t.Errorf("%s %s %s: %s, want %s", c.name, c.action, c.topic, got, c.want)
		}
	}
	w.change(&fsmpb.AccessChange{Op: &fsmpb.AccessChange_PutDefaults{PutDefaults: &fsmpb.DefaultAccess{AnonymousGroup: "guests", Publish: 1}}})
	guest := w.in("", "", "g")
	if !guest.MaySubscribe("public/x") || guest.MaySubscribe("x") || !guest.MayPublish("x") {
		t.Error("the anonymous group, and a default that allows")
	}
	if p := w.policy(w.Version(), "ann", "$SYS", nil); find(p.held, fsm.ActionReceive, "$SYS/x") != nil {
		t.Error("an id opened the broker's own topics")
	}
	if _, ok := filled(&fsm.Rule{Filter: "%c/#"}, "ann", "$SYS"); ok {
		t.Error("an id opened the broker's own topics")
	}
	if f, ok := filled(&fsm.Rule{Filter: "secret/%c", Deny: true}, "ann", "a/b"); !ok || f != "#" {
		t.Error("an id with a separator got around what is denied to it")
	}
	if slash := w.policy(w.Version(), "ann", "a/b", nil); find(slash.held, fsm.ActionSubscribe, "own/ann/a/b/#").filter != "#" {
		t.Error("an id with a separator reached more than its own topics")
	}
}

func TestBans(t *testing.T) {
	w := newWorld(t, Config{})
	ban := func(kind fsm.BanKind, value string) *fsmpb.AccessChange {
		return &fsmpb.AccessChange{Op: &fsmpb.AccessChange_PutBan{PutBan: &fsmpb.PutBan{Key: &fsmpb.BanKey{Kind: uint32(kind), Value: value}}}}
	}
	before := w.in("ann", "", "c")
	w.change(ban(fsm.BanUser, "eve"), ban(fsm.BanClient, "bad"), ban(fsm.BanNetwork, "192.0.2.0/24"), ban(fsm.BanNetwork, "2001:db8::/32"), ban(fsm.BanNetwork, "10.0.0.7/32"))
	if before.Standing() != mqtt.Banned {
		t.Error("a banned address may stay")
	}
	for _, c := range []struct {
		name, id, remote string
		want             mqtt.ReasonCode
	}{
		{"eve", "c", "127.0.0.1", mqtt.Banned},
		{"ann", "bad", "127.0.0.1", mqtt.Banned},
		{"ann", "c", "192.0.2.255", mqtt.Banned},
		{"ann", "c", "::ffff:192.0.2.7", mqtt.Banned},
		{"ann", "c", "2001:db8:1::1", mqtt.Banned},
		{"ann", "c", "10.0.0.7", mqtt.Banned},
		{"ann", "c", "10.0.0.8", mqtt.Success},
		{"ann", "c", "2001:db9::1", mqtt.Success},
		{"ann", "c", "192.0.3.1", mqtt.Success},
	} {
		if _, code := w.login(&Attempt{Username: c.name, HasUsername: true, ClientID: c.id, Remote: netip.MustParseAddr(c.remote)}); code != c.want {
			t.Errorf("%+v: %s", c, code)
		}
	}
	if n := w.Stats().Banned; n != 6 {
		t.Errorf("%d were counted, want 6", n)
	}
}

// TestFailures: too many from one address at one listener keep it out there, and nowhere else.
func TestFailures(t *testing.T) {
	w := newWorld(t, Config{MaxFailures: 3, FailureWindow: time.Minute, BanTime: time.Minute})
	clock := time.Now()
	w.failures.now = func() time.Time { return clock }
	w.change(put(user("ann", "pw")))
	try := func(remote, listener, password string) mqtt.ReasonCode {
		_, code := w.login(&Attempt{Username: "ann", HasUsername: true, Password: []byte(password), Remote: netip.MustParseAddr(remote), Listener: listener})
		return code
	}
	const at, other = "2001:db8::1", "2001:db8::2" // of one /64
	for range 2 {
		try(at, "a", "no")
	}
	try(at, "a", "pw") // takes one back
	try(at, "a", "no")
	if code := try(at, "a", "pw"); code != mqtt.Success {
		t.Errorf("before the limit: %s", code)
	}
	for range 2 {
		try(other, "a", "no")
	}
	if code := try(at, "a", "pw"); code != mqtt.Banned {
		t.Errorf("beyond the limit: %s", code)
	}
	if try(at, "b", "pw") != mqtt.Success || try("2001:db8:0:1::1", "a", "pw") != mqtt.Success {
		t.Error("others were kept out, too")
	}
	if s := w.Stats(); s.KeptOut != 1 || s.Now != 1 || s.Banned != 1 {
		t.Errorf("%+v", s)
	}
	clock = clock.Add(2 * time.Minute)
	if code := try(at, "a", "pw"); code != mqtt.Success {
		t.Errorf("after the ban: %s", code)
	}
}

// TestRefusalsAreDelayed, whether or not the user exists, or has a password.
func TestRefusalsAreDelayed(t *testing.T) {
	w := newWorld(t, Config{FailureDelay: 30 * time.Millisecond})
	w.change(put(user("ann", "pw")), put(user("bob", "")))
	for _, name := range []string{"ann", "bob", "eve"} {
		began := time.Now()
		if _, code := w.as(name, "no", "c"); code != mqtt.BadUserNameOrPassword {
			t.Errorf("%s: %s", name, code)
		}
		if d := time.Since(began); d < 30*time.Millisecond { // a lower bound, which no busy machine breaks
			t.Errorf("%s was refused after %s", name, d)
		}
	}
}

func BenchmarkMayPublish(b *testing.B) {
	t := &testing.T{}
	w := newWorld(t, Config{})
	bench := func(name string, r *Rights) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.MayPublish("meters/7/power")
			}
		})
	}
	r, _ := w.as("ann", "", "c")
	bench("open", r)
	w.change(role("r", "publish other/+/power", "publish a/#", "publish meters/#"), put(&fsmpb.PutUser{Name: "ann", Roles: []*fsmpb.Grant{grant("r", 0)}}))
	bench("third rule", r)
}
