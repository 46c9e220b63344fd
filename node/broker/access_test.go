package broker_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// rules are access rules that a test changes.
type rules struct {
	mu      sync.Mutex
	version uint64
	secret  string          // the beginning of topics that nobody may have
	gone    map[string]bool // users that may not be here any more
	lasts   time.Duration   // how long a login of "token" lasts
}

func (r *rules) change(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
	r.version++
}

func (r *rules) Version() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.version
}

// Quick leaves those to Authenticate whose names say so.
func (r *rules) Quick(l *broker.Login) (broker.Decision, bool) {
	if strings.HasPrefix(l.Connect.Username, "slow") {
		return broker.Decision{}, false
	}
	return r.Authenticate(context.Background(), l), true
}

func (r *rules) Authenticate(_ context.Context, l *broker.Login) broker.Decision {
	if l.Connect.Username == "slow mallory" {
		return broker.Decision{Code: mqtt.BadUserNameOrPassword}
	}
	one := &rights{r: r, user: l.Connect.Username}
	if one.user == "token" {
		one.user, one.expires = "the token's", time.Now().Add(r.lasts)
	}
	return broker.Decision{Code: one.Standing(), Rights: one}
}

// Exchange knows one method: the client says "first", "final"; anything else is wrong. A colon and a name
// behind "final" is who it is.
func (r *rules) Exchange(_ *broker.Login, method string) (broker.Exchange, bool) {
	return &exchange{r: r}, method == "TEST"
}

type exchange struct {
	r     *rules
	begun bool
}

func (e *exchange) Step(data []byte) (reply []byte, done bool, d broker.Decision) {
	word, name, _ := strings.Cut(string(data), ":")
	switch {
	case data == nil:
		return nil, false, d
	case !e.begun && word == "first":
		e.begun = true
		return []byte("challenge"), false, d
	case e.begun && word == "final":
		return []byte("proof"), true, broker.Decision{Rights: &rights{r: e.r, user: name}}
	}
	return nil, true, broker.Decision{Code: mqtt.NotAuthorized}
}

type rights struct {
	r       *rules
	user    string
	expires time.Time
}

func (g *rights) Username() string                { return g.user }
func (g *rights) Expires() time.Time              { return g.expires }
func (g *rights) MayPublish(string) bool          { return g.user != "reader" }
func (g *rights) MaySubscribe(filter string) bool { return g.MayReceive(filter) }
func (g *rights) MayUnsubscribe(f string) bool    { return f != "for ever" }

func (g *rights) MayReceive(topic string) bool {
	g.r.mu.Lock()
	defer g.r.mu.Unlock()
	return !strings.HasPrefix(topic, g.r.secret)
}

func (g *rights) Standing() mqtt.ReasonCode {
	g.r.mu.Lock()
	defer g.r.mu.Unlock()
	if g.r.gone[g.user] {
		return mqtt.Banned
	}
	return mqtt.Success
}

func as(user, id string) *mqtt.Connect {
	p := clean(id)
	p.HasUsername, p.Username = true, user
	return p
}

func TestAccess(t *testing.T) {
	r := &rules{secret: "secret"}
	cluster(t, 2, func(c *broker.Config) { c.Access = r }, func(w *world) {
		w.dial(w.one, as("slow mallory", "m")).expect("CONNACK 86", "closed")
		denied := as("reader", "d")
		denied.Will = &mqtt.Will{Topic: "t"}
		w.dial(w.one, denied).expect("CONNACK 87", "closed")
		reader, k, p := w.connect(w.one, as("reader", "r")), w.connect(w.one, as("slow but sure", "k")), w.connect(w.two, clean("p"))
		s := w.connect(w.one, persistent("s"))
		k.subscribed("#:1")
		s.subscribed("#:1")
		reader.publish(1, "t", "x")
		reader.expect("PUBACK 1 87")
		p.publish(1, "secret", "x")
		p.publish(0, "secret", "x")
		p.publish(1, "open", "y")
		k.expect(message("open", 1, "y"))
		s.expect(message("open", 1, "y"))
		w.ms(300)
		for _, id := range []string{"k", "s"} {
			if n := w.one.Broker.Losses(id)[fsm.ReasonNotAllowed]; n != 2 {
				t.Errorf("%s lost %d, want 2", id, n)
			}
		}
		r.change(func() { r.secret = "open" }) // and the very next message knows
		p.publish(1, "secret", "z")
		p.publish(1, "open", "z")
		k.expect(message("secret", 1, "z"))
		s.expect(message("secret", 1, "z"))
	})
}

// TestRepeatAfterRevocation: what the log has accepted is answered by the log when it comes again, whatever the client may do
// by now. A refusal would free the packet id at the client alone, and its next message would be taken for the repeat.
func TestRepeatAfterRevocation(t *testing.T) {
	r := &rules{secret: "secret"}
	cluster(t, 2, func(c *broker.Config) { c.Access, c.MemoryPolicy = r, broker.MemoryRefuse }, func(w *world) {
		s := w.connect(w.two, clean("s"))
		s.subscribed("#:2")
		p := w.connect(w.one, persistent("p"))
		p.send(&mqtt.Publish{Topic: []byte("t"), QoS: 2, PacketID: 7, Payload: []byte("once")})
		p.expect("PUBREC 7 00")
		p.Cut() // before it has read that
		again := persistent("p")
		again.HasUsername, again.Username = true, "reader" // may not publish
		p = w.connect(w.one, again)
		p.send(&mqtt.Publish{Topic: []byte("t"), QoS: 2, PacketID: 7, Dup: true, Payload: []byte("once")})
		p.expect("PUBREC 7 00")
		p.send(&mqtt.Publish{Topic: []byte("t"), QoS: 2, PacketID: 8, Payload: []byte("new")})
		p.expect("PUBREC 8 87")
		w.one.Broker.Tight(true)
		p.send(&mqtt.Publish{Topic: []byte("t"), QoS: 2, PacketID: 7, Dup: true, Payload: []byte("once")})
		p.expect("PUBREC 7 00")
		w.one.Broker.Tight(false)
		s.expect(message("t", 2, "once"))
	})
}

func TestSubscribingIsAskedFor(t *testing.T) {
	r := &rules{secret: "secret"}
	cluster(t, 1, func(c *broker.Config) { c.Access = r }, func(w *world) {
		for _, c := range []*client{w.connect(w.one, clean("k")), w.connect(w.one, persistent("s"))} {
			c.send(&mqtt.Subscribe{PacketID: 7, Filters: []mqtt.Subscription{{Filter: "secret/#", QoS: 1}, {Filter: "for ever", QoS: 1}, {Filter: "$share/g/secret", QoS: 1}}})
			c.expect("SUBACK 7 870187")
			c.send(&mqtt.Unsubscribe{PacketID: 8, Filters: []string{"for ever", "other"}})
			c.expect("UNSUBACK 8 8711")
			c.publish(1, "for ever", "x")
			c.expect(message("for ever", 1, "x"), "PUBACK 1 00")
		}
	})
}

// TestExpelled: whose right to be here is taken away has to leave, wherever its connection stands, and
// its will is not published when it has no right to that any more.
func TestExpelled(t *testing.T) {
	r := &rules{secret: "secret", gone: map[string]bool{}}
	cluster(t, 2, func(c *broker.Config) { c.Access = r }, func(w *world) {
		ann, bob := w.connect(w.one, as("ann", "a")), w.connect(w.two, as("bob", "b"))
		s := persistent("s")
		s.HasUsername, s.Username = true, "ann"
		stored := w.connect(w.two, s)
		r.change(func() { r.gone["ann"] = true })
		w.ms(600)
		for _, c := range []*client{ann, stored} {
			c.expect("DISCONNECT 98", "closed")
		}
		if got := bob.Got(); len(got) != 0 {
			t.Errorf("bob got %q", got)
		}
		w.dial(w.one, as("ann", "a")).expect("CONNACK 8a", "closed")
		if n := w.one.Broker.Stats().Expelled + w.two.Broker.Stats().Expelled; n != 2 {
			t.Errorf("%d were expelled, want 2", n)
		}
	})
}

func TestLoginExpires(t *testing.T) {
	r := &rules{secret: "secret", lasts: 5 * time.Second}
	cluster(t, 1, func(c *broker.Config) { c.Access = r }, func(w *world) {
		c := w.connect(w.one, as("token", "c"))
		w.one.Broker.Clients(func(i broker.ClientInfo) bool {
			if i.Username != "the token's" {
				t.Errorf("it is called %q", i.Username)
			}
			return true
		})
		w.ms(4500)
		c.expect()
		w.ms(1200)
		c.expect("DISCONNECT a0", "closed")
	})
}

func auth(code mqtt.ReasonCode, method, data string) *mqtt.Auth {
	p := &mqtt.Auth{Code: code, Method: method}
	if data != "" {
		p.Data = []byte(data)
	}
	return p
}

// TestEnhancedAuthentication: section 4.12, before CONNACK and after it.
func TestEnhancedAuthentication(t *testing.T) {
	r := &rules{secret: "secret"}
	cluster(t, 1, func(c *broker.Config) { c.Access = r }, func(w *world) {
		asking := func(id, method, data string) *mqtt.Connect {
			p := clean(id)
			if p.AuthMethod = method; data != "" {
				p.AuthData = []byte(data)
			}
			return p
		}
		next := func(method, data string) *mqtt.Auth { return auth(mqtt.ContinueAuthentication, method, data) }
		w.dial(w.one, asking("x", "OTHER", "first")).expect("CONNACK 8c", "closed")
		w.dial(w.one, asking("x", "TEST", "wrong")).expect("CONNACK 87", "closed")

		for what, p := range map[string]*mqtt.Auth{
			"CONNACK 87": next("TEST", "nonsense"),
			"CONNACK 82": auth(mqtt.ReAuthenticate, "TEST", "first"), // out of turn; another method is next
		} {
			c := w.dial(w.one, asking("x", "TEST", "first"))
			c.expect(`AUTH 18 TEST "challenge"`)
			c.send(p)
			c.expect(what, "closed")
		}
		c := w.dial(w.one, asking("x", "TEST", "first"))
		c.send(next("OTHER", "final:ann"))
		c.expect(`AUTH 18 TEST "challenge"`, "CONNACK 82", "closed")
		c = w.dial(w.one, asking("x", "TEST", "first"))
		c.send(&mqtt.Pingreq{})
		c.expect(`AUTH 18 TEST "challenge"`, "CONNACK 82", "closed")
		c = w.dial(w.one, asking("x", "TEST", "first"))
		c.expect(`AUTH 18 TEST "challenge"`)
		w.ms(11_000)
		c.expect("closed") // mqtt.connect_timeout

		c = w.dial(w.one, asking("c", "TEST", "")) // whose first word comes later
		c.expect(`AUTH 18 TEST ""`)
		c.send(next("TEST", "first"))
		c.expect(`AUTH 18 TEST "challenge"`)
		c.send(next("TEST", "final:ann"))
		mustHold(w.T, c.Got(), `CONNACK 00 TEST "proof"`)
		c.send(auth(mqtt.ReAuthenticate, "TEST", "first"))
		c.expect(`AUTH 18 TEST "challenge"`)
		c.publish(1, "t", "x") // which is taken meanwhile
		c.expect("PUBACK 1 10")
		c.send(next("TEST", "final:ann"))
		c.expect(`AUTH 00 TEST "proof"`)
		c.send(auth(mqtt.ReAuthenticate, "TEST", "first"), next("TEST", "final:bob"))
		c.expect(`AUTH 18 TEST "challenge"`, "DISCONNECT 87", "closed")

		plain := w.connect(w.one, clean("plain"))
		plain.send(auth(mqtt.ReAuthenticate, "TEST", "first"))
		plain.expect("DISCONNECT 82", "closed")
	})
}

// TestUsernameAsClientID: nobody gets another user's session, whatever client id it names.
func TestUsernameAsClientID(t *testing.T) {
	cluster(t, 1, func(c *broker.Config) { c.UsernameAsClientID = true }, func(w *world) {
		ann := w.connect(w.one, as("ann", "device"))
		bob := w.connect(w.one, as("bob", "device"))
		ann.subscribed("t:1")
		bob.publish(1, "t", "x")
		bob.expect("PUBACK 1 00")
		ann.expect(message("t", 1, "x"))
		again := w.connect(w.one, as("ann", "another"))
		ann.expect("DISCONNECT 8e", "closed")
		again.subscribed("t:1")
		w.dial(w.one, clean("ann")).expect("CONNACK 87", "closed")
	})
}
