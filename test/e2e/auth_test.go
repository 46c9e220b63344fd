package e2e

import (
	"os"
	"path/filepath"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// passwords is what mosquitto_passwd writes for pw-ann and pw-bob.
const passwords = "ann:$7$101$4K7ImE9KONNoOzDl$Tp73JYm05pjlpvrqVSh8H/uob1TVQr5LsTNZZMvzbu17tKahJQTONg4bQ5ZLxFFJemnIAQ2pXKWFakMs8GXE7A==\n" +
	"bob:$7$101$u+qRjIfsDGZqY2C4$0XYk4ewUX+NTfa2PvG17ShWBAq3Oc0f+ufjS8J0krpr0LOncp7+lqT+oL4KH3I5uuhSBnp7gRAQA8Q7gjf3ohA==\n"

// Passwords and access lists in Mosquitto's formats, in force at once when their files change.
func TestPasswordsAndAccessLists(t *testing.T) {
	dir := t.TempDir()
	users, acl := filepath.Join(dir, "users"), filepath.Join(dir, "acl")
	if err := os.WriteFile(users, []byte(passwords), 0o600); err != nil {
		t.Fatal(err)
	}
	allow := func(text string) {
		t.Helper()
		if err := os.WriteFile(acl, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	allow("pattern own/%u/#\nuser ann\ntopic write shared\nuser bob\ntopic read shared\n")
	c := h.Start(t, 1, append(flags[:len(flags):len(flags)], "--set", "auth.password_file="+users, "--set", "auth.acl_file="+acl)...)
	n := c.Node(1)
	for _, try := range []struct {
		user, password string
		v3, v5         byte
	}{
		{"ann", "pw-ann", 0, 0}, {"ann", "wrong", 4, 0x86}, {"eve", "pw-ann", 4, 0x86}, {"", "", 5, 0x87},
	} {
		for v, want := range map[byte]byte{h.V311: try.v3, h.V5: try.v5} {
			_, ack, err := n.Connect(v, h.Packet{ClientID: "try", Clean: true, Username: try.user, Password: try.password})
			if err != nil || ack.Code != want {
				t.Errorf("%q %q version %s: %s %v, want %#02x", try.user, try.password, version(v), ack, err, want)
			}
		}
	}
	login := func(id, user string) *h.Session {
		t.Helper()
		s := h.NewSession(t, id, h.V5)
		s.Clean, s.Username, s.Password = true, user, "pw-"+user
		s.Connect(n)
		return s
	}
	ann, bob := login("a", "ann"), login("b", "bob")
	bob.Subscribe(1, "#")
	for _, p := range []struct {
		topic string
		code  byte
	}{
		{"shared", 0}, {"own/ann/x", 0}, {"own/bob/x", 0x87}, {"elsewhere", 0x87},
	} {
		ann.MustSend(h.Packet{Type: h.PUBLISH, Topic: p.topic, Payload: p.topic, QoS: 1, ID: 7})
		if ack := ann.Await(h.PUBACK); ack.Code != p.code && !(p.code == 0 && ack.Code == 0x10) {
			t.Errorf("ann publishes to %s: %s", p.topic, ack)
		}
	}
	bob.Receive(1)
	bob.Quiet(quiet)
	same(t, "what bob may have", bob.Got, []string{"shared"})
	h.Await(t, "bob loses his right while he is connected", func() bool {
		allow("user ann\ntopic shared\n")
		bob.Got = nil
		publishAll(t, ann, "shared", 1, []string{"again"})
		bob.Quiet(quiet)
		return len(bob.Got) == 0
	})
}
