package auth

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What mosquitto_passwd 2.0 writes for "secret" and, with -H sha512, "secret2".
const (
	pbkdf2Line = "ann:$7$101$FZGc5bvI5fH9AeCi$B6rAp++bmmEZQg8PIhxbPiMox3XJVN3jpqT7TpL73s8tnoWLCFjXamOdGl6X+RSpt2a2NBE6U6trVsce2AcYVw=="
	sha512Line = "bob:$6$BjiXfoPPApBpcSYO$nfQRFnXlA70snAujxTnKJ3mzUgaAv3ieT0/TFTNdAqShVRVQ+fYxIdk1mXGsdptBciEi8SwuY/BuJTbiyqs5HQ=="
)

func TestMosquittosFile(t *testing.T) {
	u, err := ParseUsers([]byte("# users\n" + pbkdf2Line + "\n\n" + sha512Line + "\n"))
	if err != nil || u.Len() != 2 {
		t.Fatal(u, err)
	}
	for _, c := range []struct {
		name, password string
		ok             bool
	}{
		{"ann", "secret", true}, {"ann", "secret2", false}, {"bob", "secret2", true}, {"bob", "", false}, {"eve", "secret", false},
	} {
		if u.Check(c.name, []byte(c.password)) != c.ok {
			t.Errorf("%+v", c)
		}
	}
	_, err = ParseUsers([]byte("ann\n" + pbkdf2Line + "\n" + pbkdf2Line + "\nx:plain"))
	for _, want := range []string{"line 1", "line 3", "twice", "line 4", "skein passwd"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}

func TestHashes(t *testing.T) {
	crypted, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{NewHash([]byte("secret")), string(crypted)} {
		parsed, err := ParseHash(h)
		if err != nil {
			t.Fatalf("%s: %v", h, err)
		}
		if !parsed.Matches([]byte("secret")) || parsed.Matches([]byte("Secret")) || parsed.Matches(nil) {
			t.Errorf("%s matches a wrong password, or not its own", h)
		}
	}
	for _, bad := range []string{"", "plain", "$6$", "$6$!$x", "$7$0$YQ==$YQ==", "$7$99999999999$YQ==$YQ==", "$argon2id$v=18$m=1,t=1,p=1$a$b", "$2a$99$x"} {
		if _, err := ParseHash(bad); err == nil {
			t.Errorf("%q is a hash", bad)
		}
	}
}

func TestACL(t *testing.T) {
	a, err := ParseACL([]byte(`
# for clients without a name
topic read public/#
topic deny public/secret

user ann
topic own/ann/#
topic write drop
topic deny own/ann/not this

pattern readwrite clients/%c/#
pattern read users/%u/inbox
pattern deny clients/+/private
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		user, client, topic string
		want                Access
		ok                  bool
	}{
		{"", "x", "public/a", Read, true},
		{"", "x", "public/a", Write, false},
		{"", "x", "public/secret", Read, false},
		{"ann", "x", "public/a", Read, false}, // those lines are for the nameless
		{"ann", "x", "own/ann/a/b", Write, true},
		{"ann", "x", "own/ann/not this", Read, false},
		{"ann", "x", "drop", Write, true},
		{"ann", "x", "drop", Read, false},
		{"bob", "x", "own/ann/a", Read, false},
		{"bob", "x", "clients/x/a", Write, true},
		{"bob", "x", "clients/y/a", Write, false},
		{"bob", "x", "clients/x/private", Read, false},
		{"bob", "x", "users/bob/inbox", Read, true},
		{"bob", "x", "users/bob/inbox", Write, false},
		{"", "x", "users//inbox", Read, false},
		{"+", "x", "users/bob/inbox", Read, false}, // a name that is a wildcard
		{"bob", "#", "clients/y/a", Read, false},
	} {
		if a.Allows(c.user, c.client, c.topic, c.want) != c.ok {
			t.Errorf("%+v", c)
		}
	}
	_, err = ParseACL([]byte("topic read a/#/b\nuser\nfoo bar"))
	for _, want := range []string{"line 1", "line 2", "line 3"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestRulesFollowTheirFiles(t *testing.T) {
	dir := t.TempDir()
	users, acl := filepath.Join(dir, "users"), filepath.Join(dir, "acl")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write(users, "ann:"+NewHash([]byte("one"))+"\n")
	write(acl, "user ann\ntopic read a\n")
	r, err := Open(Config{PasswordFile: users, ACLFile: acl})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	login := func(a *Attempt) (*Rights, mqtt.ReasonCode) {
		if rights, code, ok := r.Quick(a); ok {
			return rights, code
		}
		return r.Authenticate(t.Context(), a)
	}
	try := func(name, password string) mqtt.ReasonCode {
		_, code := login(&Attempt{Username: name, HasUsername: true, Password: []byte(password)})
		return code
	}
	ann, code := login(&Attempt{Username: "ann", HasUsername: true, Password: []byte("one")})
	if code != mqtt.Success || try("ann", "two") != mqtt.BadUserNameOrPassword || try("bob", "one") != mqtt.BadUserNameOrPassword {
		t.Error("the first file")
	}
	if _, code := login(&Attempt{}); code != mqtt.NotAuthorized {
		t.Error("a nameless client was let in")
	}
	if _, code := login(&Attempt{Username: "ann", HasUsername: true, Verified: true}); code != mqtt.Success {
		t.Error("a client that has proved its name was asked for a password")
	}
	eventually(t, func() bool { // the watch may not stand yet
		write(users, "ann:"+NewHash([]byte("two"))+"\n")
		write(acl, "user ann\ntopic write a\n")
		for range 30 {
			if try("ann", "two") == mqtt.Success && ann.MayPublish("a") && !ann.MayReceive("a") {
				return true
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	})
	write(users, "nonsense\n")
	write(acl, "user ann\ntopic a\n")
	eventually(t, func() bool { return ann.MayReceive("a") })
	if try("ann", "two") != mqtt.Success || ann.Standing() != mqtt.Success {
		t.Error("a file that can't be read took the last good one away")
	}
	write(users, "bob:"+NewHash([]byte("two"))+"\n")
	eventually(t, func() bool { return ann.Standing() == mqtt.NotAuthorized })
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
	}
}

// TestOtherFilesInTheFolder: what else is written there, a log or a database, makes no new rules.
func TestOtherFilesInTheFolder(t *testing.T) {
	dir := t.TempDir()
	acl := filepath.Join(dir, "acl")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("acl", "topic a\n")
	r, err := Open(Config{ACLFile: acl})
	if err != nil {
		t.Fatal(err)
	}
	rules := r.acl.Load()
	for range 3 {
		write("log", "a line\n")
		write("acl", "topic a\n") // the same again
		r.reload(map[string]func() error{acl: r.readACL})
	}
	if r.acl.Load() != rules {
		t.Error("the same file made new rules")
	}
	write("acl", "")
	r.reload(map[string]func() error{acl: r.readACL})
	if ok, _ := r.CanI("", "x", fsm.ActionPublish, "a"); ok {
		t.Error("an empty file was not read")
	}
}
