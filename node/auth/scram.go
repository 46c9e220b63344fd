package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"

	"github.com/xdg-go/scram"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// MethodSCRAM is the name of the enhanced authentication that is known.
const MethodSCRAM = "SCRAM-SHA-256"

// Exchange is one run of SCRAM-SHA-256 (RFC 5802, RFC 7677) with a client.
type Exchange struct {
	r       *Rules
	attempt *Attempt
	server  *scram.ServerConversation
}

// scramKey makes the salts of users who do not exist, the same each time that one is asked for.
var scramKey = sync.OnceValue(func() (k [32]byte) {
	rand.Read(k[:])
	return k
})

// Exchange begins an enhanced authentication; nil: the method is not known. It does not block.
func (r *Rules) Exchange(a *Attempt, method string) *Exchange {
	if method != MethodSCRAM || r.cfg.State == nil {
		return nil
	}
	e := &Exchange{r: r, attempt: a}
	server, err := scram.SHA256.NewServer(e.credentials)
	if err != nil { // none is possible with these arguments
		return nil
	}
	e.server = server.NewConversation()
	return e
}

// credentials are what is known of a user. For one who does not exist, or can't use SCRAM, it makes some
// up that no password fits: the exchange goes the same way up to its end.
func (e *Exchange) credentials(name string) (scram.StoredCredentials, error) {
	if u := e.r.user(name); u != nil && u.Scram != "" {
		c, err := ParseVerifier(u.Scram)
		if err == nil {
			return c, nil
		}
		e.r.cfg.Logger.Error("a user's SCRAM verifier can't be read", "user", name, "error", err)
	}
	made := func(what string) []byte {
		k := scramKey()
		h := hmac.New(sha256.New, k[:])
		h.Write([]byte(what + name))
		return h.Sum(nil)
	}
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(made("salt")[:16]), Iters: scramIterations},
		StoredKey:  made("stored"), ServerKey: made("server"),
	}, nil
}

// Step takes what the client said, nil for nothing yet. Unless it is done, reply goes back and the
// client's next words are awaited. Done with Success, reply is the server's last word.
func (e *Exchange) Step(data []byte) (reply []byte, done bool, rights *Rights, code mqtt.ReasonCode) {
	r, a := e.r, e.attempt
	if r.bans().has("", a.ClientID, a.Remote) != nil || r.failures.tooMany(a) {
		r.counts.banned.Add(1)
		return nil, true, nil, mqtt.Banned
	}
	if data == nil { // the client speaks first
		return nil, false, nil, mqtt.Success
	}
	text, err := e.server.Step(string(data))
	if err == nil && !e.server.Done() {
		return []byte(text), false, nil, mqtt.Success
	}
	name := e.server.Username()
	if err != nil || !e.server.Valid() || e.server.AuthzID() != "" && e.server.AuthzID() != name {
		return e.refuse()
	}
	rights, code = r.admit(a, methodUsers, verdict{username: name})
	if code != mqtt.Success {
		return e.refuse()
	}
	r.counts.scram.of[allow].Add(1)
	r.failures.forgive(a)
	return []byte(text), true, rights, mqtt.Success
}

func (e *Exchange) refuse() ([]byte, bool, *Rights, mqtt.ReasonCode) {
	e.r.counts.scram.of[deny].Add(1)
	e.r.refused(e.attempt)
	return nil, true, nil, mqtt.NotAuthorized
}
