package auth

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// converse runs SCRAM as a client would, and tells whether it trusts the server afterwards.
func converse(t *testing.T, w *world, name, password, id string) (rights *Rights, code mqtt.ReasonCode, trusted bool, said []string) {
	t.Helper()
	client, err := scram.SHA256.NewClient(name, password, "")
	if err != nil {
		t.Fatal(err)
	}
	c := client.NewConversation()
	e := w.Exchange(&Attempt{ClientID: id, Remote: netip.MustParseAddr("192.0.2.1"), Listener: "l"}, "SCRAM-SHA-256")
	word := ""
	for {
		if word, err = c.Step(word); err != nil {
			t.Fatal(err)
		}
		reply, done, rights, code := e.Step([]byte(word))
		said = append(said, string(reply))
		if done {
			if code == mqtt.Success {
				_, err = c.Step(string(reply))
			}
			return rights, code, err == nil && c.Valid(), said
		}
		word = string(reply)
	}
}

func TestSCRAM(t *testing.T) {
	w := newWorld(t, Config{MaxFailures: 5, FailureWindow: time.Hour, BanTime: time.Hour})
	verifier, err := NewVerifier([]byte("pencil"))
	if err != nil {
		t.Fatal(err)
	}
	ann := user("ann", "pencil", grant("r", 0))
	ann.Scram = &verifier
	w.change(role("r", "publish a"), put(ann), put(user("bob", "pencil")))
	if w.Exchange(&Attempt{}, "PLAIN") != nil {
		t.Error("a method that nobody knows")
	}
	rights, code, trusted, _ := converse(t, w, "ann", "pencil", "c")
	if code != mqtt.Success || !trusted || rights.Username() != "ann" || !rights.MayPublish("a") || rights.MayPublish("b") {
		t.Fatalf("%s, %t", code, trusted)
	}
	factors := func(said []string) string { // but for the nonce
		_, rest, _ := strings.Cut(said[0], ",")
		return rest
	}
	_, _, _, once := converse(t, w, "eve", "pencil", "c")
	_, code, _, again := converse(t, w, "eve", "other", "c")
	if code != mqtt.NotAuthorized || factors(once) != factors(again) || !strings.HasSuffix(factors(once), ",i=10000") {
		t.Errorf("a user who does not exist shows: %s, %q, %q", code, once, again)
	}
	for _, try := range [][2]string{{"ann", "pen"}, {"bob", "pencil"}} {
		if _, code, _, _ := converse(t, w, try[0], try[1], "c"); code != mqtt.NotAuthorized {
			t.Errorf("%s with %s: %s", try[0], try[1], code)
		}
	}
	w.change(put(&fsmpb.PutUser{Name: "ann", Disabled: true}))
	if _, code, _, _ := converse(t, w, "ann", "pencil", "c"); code != mqtt.NotAuthorized || rights.Standing() != mqtt.NotAuthorized {
		t.Errorf("a disabled user: %s", code)
	}
	if _, code, _, _ := converse(t, w, "ann", "pencil", "c"); code != mqtt.Banned {
		t.Errorf("beyond auth.max_failures: %s", code)
	}
	e := w.Exchange(&Attempt{}, MethodSCRAM)
	if _, done, _, _ := e.Step(nil); done {
		t.Error("nothing was said, and it is over")
	}
	if _, done, _, code := e.Step([]byte("nonsense")); !done || code != mqtt.NotAuthorized {
		t.Errorf("nonsense: %t, %s", done, code)
	}
}

func TestVerifiersThatAreNone(t *testing.T) {
	good, err := NewVerifier([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseVerifier(good); err != nil {
		t.Error(err)
	}
	for _, text := range []string{
		"", "x", "SCRAM-SHA-256$", strings.Replace(good, ":", "", 1), strings.Replace(good, "10000", "10", 1), strings.Replace(good, "10000", "99999999", 1),
		good[:len(good)-8], good + "!", strings.Replace(good, "SCRAM", "scram", 1),
	} {
		if _, err := ParseVerifier(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
