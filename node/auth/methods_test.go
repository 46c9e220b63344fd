package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/golang-jwt/jwt/v5"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func sign(t *testing.T, m jwt.SigningMethod, key any, claims jwt.MapClaims, kid string) string {
	t.Helper()
	token := jwt.NewWithClaims(m, claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func pemOf(t *testing.T, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestTokens(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherPublic, otherKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := pemOf(t, rsaKey.Public())
	jwks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		e := base64.RawURLEncoding.EncodeToString
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","kid":"k1","x":%q},{"kty":"RSA","kid":"k2","n":%q,"e":%q}]}`,
			e(otherPublic), e(rsaKey.N.Bytes()), e(big.NewInt(int64(rsaKey.E)).Bytes()))
	}))
	defer jwks.Close()
	r, err := Open(Config{JWT: JWTConfig{
		SecretFile: file(t, secret+"\n"), PublicKeyFile: file(t, public+pemOf(t, ecKey.Public())+pemOf(t, edPublic)), JWKSURL: jwks.URL, JWKSRefresh: time.Hour,
		Issuer: "us", Audience: "skein", UsernameClaim: "sub", ACLClaim: "acl",
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	claims := func(change ...any) jwt.MapClaims {
		c := jwt.MapClaims{"sub": "ann", "iss": "us", "aud": []string{"skein"}, "exp": time.Now().Add(time.Hour).Unix()}
		for i := 0; i < len(change); i += 2 {
			if c[change[i].(string)] = change[i+1]; change[i+1] == nil {
				delete(c, change[i].(string))
			}
		}
		return c
	}
	hs := func(change ...any) string {
		return sign(t, jwt.SigningMethodHS256, []byte(secret), claims(change...), "")
	}
	good := hs()
	none := sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(), "")
	for _, c := range []struct {
		what, password string
		ok             bool
	}{
		{"HS256", good, true},
		{"RS256", sign(t, jwt.SigningMethodRS256, rsaKey, claims(), ""), true},
		{"PS512", sign(t, jwt.SigningMethodPS512, rsaKey, claims(), ""), true},
		{"ES256", sign(t, jwt.SigningMethodES256, ecKey, claims(), ""), true},
		{"EdDSA", sign(t, jwt.SigningMethodEdDSA, edKey, claims(), ""), true},
		{"EdDSA by JWKS", sign(t, jwt.SigningMethodEdDSA, otherKey, claims(), "k1"), true},
		{"by no key's owner", sign(t, jwt.SigningMethodEdDSA, otherKey, claims(), "k9"), false},
		{"none", none, false},
		{"HS256 with the public key as the secret", sign(t, jwt.SigningMethodHS256, []byte(public), claims(), ""), false},
		{"another signature", good[:len(good)-4] + "AAAA", false},
		{"cut", good[:len(good)-10], false},
		{"expired", hs("exp", time.Now().Add(-time.Minute).Unix()), false},
		{"not yet", hs("nbf", time.Now().Add(time.Minute).Unix()), false},
		{"another issuer", hs("iss", "them"), false},
		{"another audience", hs("aud", "them"), false},
		{"no name", hs("sub", nil), false},
		{"a name that is none", hs("sub", 7), false},
		{"an ACL that is none", hs("acl", map[string]any{"pubs": []string{"a"}}), false},
		{"a filter that is none", hs("acl", map[string]any{"pub": []string{"a/#/b"}}), false},
		{"no token", "secret", false},
	} {
		_, code := r.Authenticate(t.Context(), &Attempt{Username: "bob", HasUsername: true, Password: []byte(c.password)})
		if (code == mqtt.Success) != c.ok {
			t.Errorf("%s: %s", c.what, code)
		}
	}
	rights, code := r.Authenticate(t.Context(), &Attempt{ClientID: "c7", Password: []byte(hs("acl", map[string]any{"pub": []string{"up/%u/%c/#"}, "all": []string{"both"}}))})
	if code != mqtt.Success || rights.Username() != "ann" || rights.Expires().IsZero() {
		t.Fatalf("%s, %+v", code, rights)
	}
	if !rights.MayPublish("up/ann/c7/x") || rights.MayPublish("up/ann/c8/x") || !rights.MaySubscribe("both") || !rights.MayReceive("both") ||
		rights.MaySubscribe("up/ann/c7/#") || rights.MayReceive("other") || !rights.MayUnsubscribe("x") {
		t.Error("it has other rights than its token's")
	}
	if s := r.Stats().Methods[2]; s.Name != "jwt" || s.Allowed != 7 || s.Denied != 13 || s.Passed != 1 {
		t.Errorf("%+v", s)
	}
}

func TestTokenKeysThatCannotBe(t *testing.T) {
	for _, c := range []JWTConfig{
		{SecretFile: file(t, "short")},
		{SecretFile: "/nowhere"},
		{PublicKeyFile: file(t, "nothing")},
		{PublicKeyFile: "/nowhere"},
		{PublicKeyFile: file(t, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")},
	} {
		if r, err := Open(Config{JWT: c}); err == nil || !strings.Contains(err.Error(), "auth.jwt.") {
			t.Errorf("%+v: %v", c, err)
			r.Close()
		}
	}
}

func TestHTTP(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		var q map[string]string
		if err := json.NewDecoder(req.Body).Decode(&q); err != nil || req.Header.Get("Authorization") != "Bearer tok" || q["password"] == "" || q["client_id"] != "c" {
			t.Errorf("%v, %q, %v", err, req.Header.Get("Authorization"), q)
		}
		switch q["username"] {
		case "ann":
			fmt.Fprintf(w, `{"result":"allow","username":"renamed","acl":{"sub":["a/#"]},"expires_at":%d}`, time.Now().Add(time.Hour).Unix())
		case "eve":
			fmt.Fprint(w, `{"result":"deny"}`)
		case "bob":
			fmt.Fprint(w, `{"result":"ignore"}`)
		case "forbidden":
			w.WriteHeader(http.StatusForbidden)
		case "broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "elsewhere":
			http.Redirect(w, req, "/other", http.StatusTemporaryRedirect)
		default:
			fmt.Fprint(w, `what?`)
		}
	}))
	defer server.Close()
	r, err := Open(Config{HTTP: HTTPConfig{URL: server.URL, TokenFile: file(t, "tok\n"), Timeout: 5 * time.Second, Cache: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	login := func(name string) (*Rights, mqtt.ReasonCode) {
		return r.Authenticate(t.Context(), &Attempt{ClientID: "c", Username: name, HasUsername: true, Password: []byte("pw")})
	}
	for _, name := range []string{"eve", "bob", "forbidden", "broken", "elsewhere", "nonsense", "eve", "bob", "forbidden"} {
		if _, code := login(name); code != mqtt.BadUserNameOrPassword {
			t.Errorf("%s: %s", name, code)
		}
	}
	if n := asked.Load(); n != 6 {
		t.Errorf("it was asked %d times, want 6: answers hold", n)
	}
	ann, code := login("ann")
	if code != mqtt.Success || ann.Username() != "renamed" || !ann.MaySubscribe("a/b") || ann.MayPublish("a/b") || ann.Expires().IsZero() {
		t.Errorf("%s, %+v", code, ann)
	}
	server.Close()
	if _, code := login("ann"); code != mqtt.Success {
		t.Errorf("what was answered does not hold: %s", code)
	}
	if _, code := login("someone"); code != mqtt.BadUserNameOrPassword {
		t.Errorf("without the server: %s", code)
	}
}

// directory answers binds and searches, for as long as the test lasts.
func directory(t *testing.T, bind func(dn, password string) int64, search func(filter string) []string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for {
				p, err := ber.ReadPacket(c)
				if err != nil {
					c.Close()
					break
				}
				id, op := p.Children[0].Value.(int64), p.Children[1]
				switch op.Tag {
				case 0:
					answer(c, id, 1, bind(op.Children[1].Value.(string), op.Children[2].Data.String()))
				case 3:
					filter := op.Children[6].Children[1].Data.String()
					for _, dn := range search(filter) {
						e := ber.Encode(ber.ClassApplication, ber.TypeConstructed, 4, nil, "")
						e.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, dn, ""))
						e.AppendChild(ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, ""))
						write(c, id, e)
					}
					answer(c, id, 5, 0)
				default:
					c.Close()
				}
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "ldap://" + l.Addr().String()
}

func answer(c net.Conn, id int64, tag ber.Tag, code int64) {
	e := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	e.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""))
	e.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
	e.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
	write(c, id, e)
}

func write(c net.Conn, id int64, op *ber.Packet) {
	p := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	p.AppendChild(op)
	_, _ = c.Write(p.Bytes())
}

func TestLDAP(t *testing.T) {
	people := map[string]string{"uid=ann,ou=people": "pw", "cn=search": "search-pw", "uid=a\\,b,ou=people": "comma"}
	url := directory(t, func(dn, password string) int64 {
		if want, ok := people[dn]; ok && want == password {
			return 0
		}
		return 49 // invalidCredentials
	}, func(name string) []string {
		switch name {
		case "ann":
			return []string{"uid=ann,ou=people"}
		case "twins":
			return []string{"uid=a", "uid=b"}
		}
		return nil
	})
	try := func(cfg LDAPConfig, name, password string) outcome {
		t.Helper()
		cfg.URL, cfg.Timeout = url, 5*time.Second
		r, err := Open(Config{LDAP: cfg})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		return r.chain[4].judge(t.Context(), &Attempt{Username: name, HasUsername: true, Password: []byte(password)}).outcome
	}
	direct := LDAPConfig{UserDN: "uid=%u,ou=people"}
	search := LDAPConfig{BaseDN: "ou=people", Filter: "(uid=%u)", BindDN: "cn=search", BindPasswordFile: file(t, "search-pw\n")}
	broken := search
	broken.BindPasswordFile = file(t, "wrong")
	for _, c := range []struct {
		cfg            LDAPConfig
		name, password string
		want           outcome
	}{
		{direct, "ann", "pw", allow},
		{direct, "ann", "no", deny},
		{direct, "ann", "", deny},
		{direct, "eve", "pw", deny},
		{direct, "a,b", "comma", allow},
		{direct, "ann,ou=people", "pw", deny},
		{search, "ann", "pw", allow},
		{search, "ann", "no", deny},
		{search, "eve", "pw", pass},
		{search, "twins", "pw", deny},
		{search, "*", "pw", pass},
		{broken, "ann", "pw", deny},
	} {
		if got := try(c.cfg, c.name, c.password); got != c.want {
			t.Errorf("%+v: %d, want %d", c, got, c.want)
		}
	}
}
