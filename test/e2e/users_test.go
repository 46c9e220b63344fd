package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

const usersYAML = `roles:
- name: reader
  rules: ["allow subscribe meters/#"]
- name: writer
  rules: ["allow publish meters/#", "deny publish meters/admin/# priority 10"]
groups:
- {name: staff, roles: [writer]}
users:
- {name: ann, password: pw-ann, roles: [reader]}
- {name: bob, password: pw-bob, groups: [staff]}
`

// TestReplicatedUsers: what an operator changes at one node holds at the others at once, for who is
// connected, too, and after all of them have started again.
func TestReplicatedUsers(t *testing.T) {
	c := h.Start(t, 3, flags...)
	one, two, three := c.Node(1), c.Node(2), c.Node(3)
	skein := func(n *h.Node, want string, args ...string) {
		t.Helper()
		if out, _ := n.Skein(args...); out != want {
			t.Errorf("skein %s:\n%swant:\n%s", strings.Join(args, " "), out, want)
		}
	}
	stranger := clean(t, three, "stranger", h.V5) // while nobody has to prove anything
	file := filepath.Join(t.TempDir(), "users.yaml")
	if err := os.WriteFile(file, []byte(usersYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	skein(one, "role/reader created\nrole/writer created\ngroup/staff created\nuser/ann created\nuser/bob created\n", "apply", "-f", file)
	login := func(n *h.Node, id, user string, persistent bool) *h.Session {
		t.Helper()
		s := h.NewSession(t, id, h.V5)
		s.Clean, s.Username, s.Password = !persistent, user, "pw-"+user
		s.Connect(n)
		return s
	}
	refused := func(n *h.Node, user, password string, v3, v5 byte) {
		t.Helper()
		for v, want := range map[byte]byte{h.V311: v3, h.V5: v5} {
			_, ack, err := n.Connect(v, h.Packet{ClientID: "try", Clean: true, Username: user, Password: password})
			if err != nil || ack.Code != want {
				t.Errorf("%q %q version %s: %s %v, want %#02x", user, password, version(v), ack, err, want)
			}
		}
	}
	await := func(what string, ok func() bool) { t.Helper(); h.Await(t, what, ok) }
	await("node 3 knows the users", func() bool {
		out, err := three.Skein("get", "users", "-o", "name")
		return err == nil && out == "user/ann\nuser/bob\n"
	})
	refused(three, "ann", "wrong", 4, 0x86)
	refused(three, "eve", "pw-ann", 4, 0x86)
	refused(three, "", "", 5, 0x87)
	publishAll(t, stranger, "elsewhere", 1, []string{"still here"}) // nobody asks it for what it was not asked for

	ann, stored, bob := login(three, "a", "ann", false), login(two, "s", "ann", true), login(two, "b", "bob", false)
	for _, s := range []*h.Session{ann, stored} {
		s.Subscribe(1, "meters/#")
	}
	ann.MustSend(h.Packet{Type: h.SUBSCRIBE, ID: 99, Filters: []h.Filter{{Name: "#", Options: 1}}})
	if ack := ann.Await(h.SUBACK); len(ack.Codes) != 1 || ack.Codes[0] != 0x87 {
		t.Errorf("SUBSCRIBE #: %s", ack)
	}
	publishAll(t, bob, "meters/7", 1, []string{"41"})
	for _, s := range []*h.Session{ann, stored} {
		s.Receive(1)
	}
	publishes := func(s *h.Session, topic string) byte {
		t.Helper()
		s.MustSend(h.Packet{Type: h.PUBLISH, Topic: topic, Payload: "x", QoS: 1, ID: 77})
		return s.Await(h.PUBACK).Code
	}
	if code := publishes(bob, "meters/admin/x"); code != 0x87 {
		t.Errorf("bob publishes to meters/admin/x: %#02x", code)
	}
	skein(three, "yes: role \"writer\", by group \"staff\": allow publish meters/#\n", "auth", "can-i", "bob", "publish", "meters/7")
	skein(three, "no: role \"writer\", by group \"staff\": deny publish meters/admin/# priority 10\nskein: it may not\n", "auth", "can-i", "bob", "publish", "meters/admin/x")
	if _, err := os.Stat("/usr/bin/mosquitto_pub"); err == nil {
		as := func(n *h.Node, args ...string) *tool {
			return launch(t, "", args[0], append([]string{"-h", "127.0.0.1", "-p", port(n.MQTT), "-V", "mqttv5", "-q", "1"}, args[1:]...)...)
		}
		sub := mosquittoSub(t, three, 1, "-u", "ann", "-P", "pw-ann", "-t", "meters/+")
		as(one, "mosquitto_pub", "-u", "bob", "-P", "pw-bob", "-t", "meters/8", "-m", "42").rest("")
		same(t, "mosquitto's", sub.rest("got 0 "), []string{"42"})
		ann.Receive(2)
		stored.Receive(2)
	}

	// Rights go while their holders are connected, each changed at another node than theirs.
	skein(one, "role/reader deleted\n", "delete", "role", "reader")
	await("the right has gone at node 3", func() bool {
		out, _ := three.Skein("auth", "can-i", "ann", "receive", "meters/7")
		return strings.HasPrefix(out, "no")
	})
	ann.Got, stored.Got = nil, nil
	publishAll(t, bob, "meters/7", 1, []string{"secret"})
	for _, s := range []*h.Session{ann, stored} {
		s.Quiet(quiet)
		same(t, "without the right", s.Got, nil)
	}
	skein(three, "group/staff deleted\n", "delete", "group", "staff")
	await("bob's next publish is refused", func() bool { return publishes(bob, "meters/7") == 0x87 })

	ended := func(s *h.Session, code byte) {
		t.Helper()
		if p := s.Await(h.DISCONNECT); p.Code != code {
			t.Errorf("%s was told %s, want %#02x", s.ID, p, code)
		}
	}
	skein(one, "user/bob configured\n", "auth", "disable", "bob")
	ended(bob, 0x87)
	skein(two, "ban/client/s created\n", "create", "ban", "client", "s", "--for", "2s", "--reason", "test")
	ended(stored, 0x98)
	if _, ack, err := three.Connect(h.V5, h.Packet{ClientID: "s", Clean: true, Username: "ann", Password: "pw-ann"}); err != nil || ack.Code != 0x8A {
		t.Errorf("a banned client: %s %v", ack, err)
	}
	skein(one, "user/ann deleted\n", "delete", "user", "ann")
	ended(ann, 0x87)
	await("the ban is over", func() bool { out, err := one.Skein("get", "bans"); return err == nil && out == "" })
	refused(two, "ann", "pw-ann", 4, 0x86)

	c.Each(func(n *h.Node) { n.Stop() })
	c.Each(func(n *h.Node) { n.Start() })
	c.Each(func(n *h.Node) { n.WaitReady() })
	skein(three, "NAME   ROLES   GROUPS   PASSWORD   DISABLED\nbob    -       -        yes        yes\n", "get", "users")
	skein(two, "user/bob configured\n", "auth", "enable", "bob")
	await("bob is let in again", func() bool {
		_, ack, err := one.Connect(h.V311, h.Packet{ClientID: "b", Clean: true, Username: "bob", Password: "pw-bob"})
		return err == nil && ack.Code == 0
	})
}

// TestUsersWhileANodeStarts: a node that is catching up with the log knows no user yet, so it judges nobody before it does.
func TestUsersWhileANodeStarts(t *testing.T) {
	beside(t)
	c := h.Start(t, 3, append([]string{"--set", "auth.max_failures=1000000", "--set", "auth.failure_delay=1ms"}, flags...)...)
	file := filepath.Join(t.TempDir(), "users.yaml")
	if err := os.WriteFile(file, []byte(usersYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Node(1).Skein("apply", "-f", file); err != nil {
		t.Fatal(out, err)
	}
	n := c.Node(3)
	for range heavy(1, 5) {
		n.Kill()
		n.Start()
		seen := make(map[string]int)
		for try := range 1000 {
			for _, user := range []string{"", "eve", "ann"} {
				nc, err := n.Dial(h.V5)
				if err != nil { // it does not listen yet
					continue
				}
				nc.MustSend(h.Packet{Type: h.CONNECT, ClientID: "try" + user, Clean: true, Username: user, Password: "pw-" + user})
				ack := nc.Await(h.CONNACK)
				nc.Close()
				want := map[string]byte{"": 0x87, "eve": 0x86, "ann": 0}[user]
				if ack.Code != want && ack.Code != 0x88 {
					t.Errorf("try %d: %q got %#02x, want %#02x", try, user, ack.Code, want)
				}
				seen[user]++
			}
			if n.Ready() == 200 && len(seen) == 3 {
				break
			}
		}
		if len(seen) != 3 {
			t.Errorf("nobody tried: %v", seen)
		}
		n.WaitReady()
	}
}

// TestUsersByHTTP: users are made, listed and judged by HTTP as well, and their passwords come back to nobody.
func TestUsersByHTTP(t *testing.T) {
	beside(t)
	n := h.Start(t, 1, flags...).Node(1)
	ask := func(method, request string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.HTTP+"/skein.admin.v1.Access/"+method, strings.NewReader(request))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, strings.ReplaceAll(string(text), `": `, `":`)
	}
	if out, err := n.Skein("create", "role", "writer", "--rule", "allow publish meters/#"); err != nil {
		t.Fatalf("skein create role: %v %s", err, out)
	}
	if code, text := ask("ChangeAccess", `{"changes":[{"putUser":{"user":{"name":"ann","roles":[{"name":"writer"}]},"password":"told-by-http"}}]}`); code != http.StatusOK {
		t.Fatalf("ChangeAccess: %d %s", code, text)
	}
	for _, q := range []struct {
		method, request string
		code            int
		want            string
	}{
		{"ListUsers", `{}`, http.StatusOK, `"name":"ann"`},
		{"CanI", `{"username":"ann","action":"publish","topic":"meters/7"}`, http.StatusOK, `"allowed":true`},
		{"CanI", `{"username":"ann","action":"publish","topic":"elsewhere"}`, http.StatusOK, `"allowed":false`},
		{"CanI", `{"action":"dance"}`, http.StatusBadRequest, "invalid_argument"},
		{"Nothing", `{}`, http.StatusNotImplemented, "unimplemented"},
	} {
		if code, text := ask(q.method, q.request); code != q.code || !strings.Contains(text, q.want) {
			t.Errorf("%s %s: %d %s", q.method, q.request, code, text)
		}
	}
	n.MustConnect(h.V5, h.Packet{ClientID: "a", Clean: true, Username: "ann", Password: "told-by-http"})
	for _, file := range []string{n.Log, filepath.Join(n.Data, "audit.log")} {
		if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), "told-by-http") {
			t.Errorf("%s holds the password, or can't be read: %v", file, err)
		}
	}
	out, err := n.Skein("get", "users", "-o", "name")
	if err != nil || out != "user/ann\n" {
		t.Errorf("skein get users: %v %s", err, out)
	}
}
