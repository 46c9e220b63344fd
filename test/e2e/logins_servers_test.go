package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/golang-jwt/jwt/v5"
)

// The servers that a node asks about logins, as small as they can be.

// loginServer answers auth.http, and serves the keys of tokens.
type loginServer struct {
	url string
	key *ecdsa.PrivateKey
}

const keyID = "k1"

func startLoginServer(t *testing.T) *loginServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	coordinate := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	mux := http.NewServeMux()
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{
			"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": keyID, "x": coordinate(point[1:33]), "y": coordinate(point[33:]),
		}}})
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		var ask struct{ Username, Password string }
		if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		result := "ignore"
		if ask.Username == userHTTP {
			result = map[bool]string{true: "allow", false: "deny"}[ask.Password == secretHTTP]
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"result": result})
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return &loginServer{s.URL, key}
}

// token is one for a user, signed with a key that need not be the server's.
func token(t *testing.T, key *ecdsa.PrivateKey, user string, expires time.Time) string {
	t.Helper()
	k := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"sub": user, "exp": expires.Unix()})
	k.Header["kid"] = keyID
	text, err := k.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// startDirectory is an LDAP server that knows one way to bind. It returns its URL.
func startDirectory(t *testing.T, dn, password string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				for answerBind(c, dn, password) {
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		group.Wait() // the node closes its connections, and ends before
	})
	return "ldap://" + l.Addr().String()
}

// answerBind answers one request; false: it was none to bind (RFC 4511, section 4.2).
func answerBind(c net.Conn, dn, password string) bool {
	const bindRequest, bindResponse, invalidCredentials = 0, 1, 49
	p, err := ber.ReadPacket(c)
	if err != nil || len(p.Children) < 2 || p.Children[1].Tag != bindRequest || len(p.Children[1].Children) < 3 {
		return false
	}
	op, result := p.Children[1], int64(invalidCredentials)
	if op.Children[1].Data.String() == dn && op.Children[2].Data.String() == password {
		result = 0
	}
	response := ber.Encode(ber.ClassApplication, ber.TypeConstructed, bindResponse, nil, "")
	response.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, result, ""))
	for range 2 { // matchedDN, diagnosticMessage
		response.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
	}
	message := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	message.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, p.Children[0].Value, ""))
	message.AppendChild(response)
	_, err = c.Write(message.Bytes())
	return err == nil
}
