package chattest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

func (s *stack) login(user, device string, more ...func(*h.Packet)) (*h.Client, h.Packet) {
	s.t.Helper()
	p := h.Packet{ClientID: user + "." + device, Clean: true, Username: user, Password: user}
	for _, m := range more {
		m(&p)
	}
	c, ack, err := s.Node(1).Connect(h.V5, p)
	if err != nil {
		s.t.Fatal(err)
	}
	return c, ack
}

// TestAccess: bob tries whatever he can think of to read what is alice's, or to write in her name.
func TestAccess(t *testing.T) {
	s := start(t, 1)
	s.worker("one")

	if _, ack := s.login("alice", "x", func(p *h.Packet) { p.Password = "bob" }); ack.Code != 0x86 {
		t.Errorf("a wrong password gets %s", ack)
	}
	if _, ack := s.login("nobody", "x"); ack.Code != 0x86 {
		t.Errorf("a name that does not exist gets %s", ack)
	}
	alice, _ := s.login("alice", "x")
	bob, _ := s.login("bob", "x")
	nameless, _, err := s.Node(1).Connect(h.V5, h.Packet{ClientID: "nameless", Clean: true})
	if err != nil {
		t.Fatal(err)
	}
	alice.Subscribe(1, "chat/u/alice/in/#")
	alice.MustSend(h.Packet{Type: h.PUBLISH, Topic: "chat/presence/alice/alice.x", Payload: `{"state":"online"}`, QoS: 1, ID: 1, Retain: true})
	if ack := alice.Await(h.PUBACK); ack.Code >= 0x80 {
		t.Fatalf("alice's own presence: %s", ack)
	}

	// Writing.
	for i, topic := range []string{
		"chat/u/alice/out/alice.x/msg", "chat/u/alice/out/bob.x/msg", "chat/u/bob/out/alice.x/msg", "chat/u/alice/in/msg", "chat/u/bob/in/msg",
		"chat/u/alice/in/conv/1", "chat/presence/alice/alice.x", "chat/presence/alice/bob.x", "chat/presence/bob/alice.x",
		"chat/staff/ann/ann.x", "chat/staff/bob/bob.x", "chat", "chat/u/bob/out/bob.x/../../alice/in/msg/", "chat/anything",
	} {
		for name, c := range map[string]*h.Client{"bob": bob, "nameless": nameless} {
			c.MustSend(h.Packet{Type: h.PUBLISH, Topic: topic, Payload: "{}", QoS: 1, ID: uint16(i + 1)})
			ack := c.Await(h.PUBACK)
			if own := name == "bob" && topic == "chat/u/bob/out/bob.x/../../alice/in/msg/"; ack.Code != 0x87 && !own {
				t.Errorf("%s writes to %s: %s", name, topic, ack)
			}
		}
	}
	alice.ExpectNothing(200 * time.Millisecond)

	// Reading: SUBSCRIBE itself may be granted, what matters is what comes.
	filters := []string{
		"chat/u/alice/in/#", "chat/u/+/in/#", "chat/#", "#", "+/+/+/+/+", "chat/presence/#", "chat/presence/alice/+", "chat/u/alice/out/#", "chat/u/+/out/+/msg",
		"$share/mine/chat/u/alice/in/#", "$share/mine/chat/#",
	}
	for i, f := range filters {
		for _, c := range []*h.Client{bob, nameless} {
			c.MustSend(h.Packet{Type: h.SUBSCRIBE, ID: uint16(100 + i), Filters: []h.Filter{{Name: f, Options: 1}}})
			c.Await(h.SUBACK)
		}
	}
	n := 0
	say := func(text string) {
		n++
		alice.MustSend(h.Packet{Type: h.PUBLISH, Topic: "chat/u/alice/out/alice.x/msg", Payload: fmt.Sprintf(`{"n":%d,"text":%q,"at":1}`, n, text), QoS: 1, ID: uint16(n)})
		if ack := alice.Await(h.PUBACK); ack.Code != 0 {
			t.Errorf("alice says something: %s", ack)
		}
	}
	hear := func() { // the echo of what alice said
		for {
			p := alice.Await(h.PUBLISH)
			if p.QoS == 1 {
				alice.MustSend(h.Packet{Type: h.PUBACK, ID: p.ID})
			}
			if p.Topic == "chat/u/alice/in/msg" {
				return
			}
		}
	}
	say("a secret")
	hear()
	quiet := func(name string, c *h.Client) {
		t.Helper()
		for {
			p, err := c.Next(300 * time.Millisecond)
			if errors.Is(err, h.ErrQuiet) {
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if p.Type == h.PUBLISH && len(p.Topic) > 5 && p.Topic[:5] == "chat/" && p.Topic != "chat/u/bob/in/notice" {
				t.Errorf("%s reads %s: %s", name, p.Topic, p.Payload)
			}
		}
	}
	quiet("bob", bob)
	quiet("nameless", nameless)

	// The pipeline may write anywhere: it must not do so for bob.
	ask := func(body, response string) {
		bob.MustSend(h.Packet{Type: h.PUBLISH, Topic: "chat/u/bob/out/bob.x/history", Payload: body, QoS: 0, Props: []h.Property{{ID: 0x08, Text: response}}})
	}
	ask(`{"conv":1}`, "chat/u/alice/in/reply/alice.x") // into alice's inbox
	ask(`{"conv":1}`, "chat/u/bob/in/reply/bob.x")     // alice's conversation
	bob.Ping()
	say("still there?")
	hear()
	quiet("bob", bob)
	if p, err := alice.Next(300 * time.Millisecond); !errors.Is(err, h.ErrQuiet) {
		t.Errorf("alice was sent %v %v", p, err)
	}

	// A will in alice's name: who has one is not let in.
	ghost, ack := s.login("bob", "ghost", func(p *h.Packet) {
		p.Will = &h.Will{Topic: "chat/presence/alice/alice.x", Payload: `{"state":"offline"}`, QoS: 1, Retain: true}
	})
	if ack.Code != 0x87 {
		t.Errorf("a will in alice's name was answered 0x%02x", ack.Code)
	}
	ghost.Close()
	ann, _ := s.login("ann", "x")
	ann.Subscribe(1, "chat/presence/alice/+")
	if p := ann.Await(h.PUBLISH); p.Payload != `{"state":"online"}` {
		t.Errorf("alice's presence is %s", p.Payload)
	}

	// Joining what he takes for the pipeline's group: what would be his share must not be lost.
	bob.MustSend(h.Packet{Type: h.SUBSCRIBE, ID: 200, Filters: []h.Filter{{Name: "$share/pipeline/chat/u/+/out/+/#", Options: 1}}})
	bob.Await(h.SUBACK)
	for i := range 6 {
		say(fmt.Sprintf("with bob in the group, %d", i))
		hear()
	}
}
