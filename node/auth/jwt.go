package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/topic"
)

// JWTConfig says which tokens are taken as passwords. Without a key there are none.
type JWTConfig struct {
	SecretFile    string        // of HS256, HS384 and HS512; a newline at its end does not count
	PublicKeyFile string        // PEM, any number of RSA, ECDSA and Ed25519 keys or certificates
	JWKSURL       string        // where public keys are published
	JWKSRefresh   time.Duration // how often they are read; also, at most once a minute, for an unknown key id
	Issuer        string        // of iss; empty: any
	Audience      string        // in aud; empty: any
	UsernameClaim string        // the user's name
	ACLClaim      string        // what it may do
	Leeway        time.Duration // how far the clocks may be apart
}

func (c *JWTConfig) set() bool { return c.SecretFile != "" || c.PublicKeyFile != "" || c.JWKSURL != "" }

// jwtMethod takes a JSON Web Token (RFC 7519) as the password.
type jwtMethod struct {
	r      *Rules
	cfg    JWTConfig
	secret atomic.Pointer[[]byte]
	public atomic.Pointer[[]crypto.PublicKey]
	jwks   keyfunc.Keyfunc // nil: none
}

// openJWT reads the keys. What refreshes those of a URL ends with ctx.
func openJWT(ctx context.Context, r *Rules, cfg JWTConfig) (*jwtMethod, error) {
	m := &jwtMethod{r: r, cfg: cfg}
	if err := errors.Join(m.readSecret(), m.readPublic()); err != nil || cfg.JWKSURL == "" {
		return m, err
	}
	later := true
	var err error
	m.jwks, err = keyfunc.NewDefaultOverrideCtx(ctx, []string{cfg.JWKSURL}, keyfunc.Override{
		HTTPTimeout: 10 * time.Second, RefreshInterval: cfg.JWKSRefresh, NoErrorReturnFirstHTTPReq: &later,
		RefreshUnknownKID: rate.NewLimiter(rate.Every(time.Minute), 1), RateLimitWaitMax: time.Millisecond,
		RefreshErrorHandlerFunc: func(u string) func(context.Context, error) {
			return func(_ context.Context, err error) {
				r.cfg.Logger.Error("the keys of auth.jwt.jwks_url can't be read", "url", u, "error", err)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("auth.jwt.jwks_url: %w", err)
	}
	return m, nil
}

func (m *jwtMethod) readSecret() error {
	if m.cfg.SecretFile == "" {
		return nil
	}
	text, err := os.ReadFile(m.cfg.SecretFile)
	if err != nil {
		return fmt.Errorf("auth.jwt.secret_file: %w", err)
	}
	text = bytes.TrimRight(text, "\r\n")
	if len(text) < 32 { // RFC 7518, section 3.2
		return fmt.Errorf("auth.jwt.secret_file: %s has %d bytes: HS256 wants 32 at least", m.cfg.SecretFile, len(text))
	}
	m.secret.Store(&text)
	return nil
}

func (m *jwtMethod) readPublic() error {
	if m.cfg.PublicKeyFile == "" {
		return nil
	}
	text, err := os.ReadFile(m.cfg.PublicKeyFile)
	if err != nil {
		return fmt.Errorf("auth.jwt.public_key_file: %w", err)
	}
	var keys []crypto.PublicKey
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		k, err := publicKey(b)
		if err != nil {
			return fmt.Errorf("auth.jwt.public_key_file: %s: key %d: %w", m.cfg.PublicKeyFile, len(keys)+1, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return fmt.Errorf("auth.jwt.public_key_file: %s holds no key in PEM form", m.cfg.PublicKeyFile)
	}
	m.public.Store(&keys)
	return nil
}

func publicKey(b *pem.Block) (crypto.PublicKey, error) {
	switch b.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(b.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(b.Bytes)
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	}
	return nil, fmt.Errorf("%q is no public key", b.Type)
}

func (m *jwtMethod) asks() bool { return m.cfg.set() }

func (m *jwtMethod) waste(context.Context, *Attempt) {}

// judge passes what is no token on.
func (m *jwtMethod) judge(ctx context.Context, a *Attempt) verdict {
	text := string(a.Password)
	if !looksLikeToken(text) {
		return verdict{}
	}
	v, err := m.verify(ctx, text)
	if err != nil {
		m.r.cfg.Logger.Debug("a token was refused", "remote", a.Remote.String(), "error", err)
		return verdict{outcome: deny}
	}
	return v
}

// looksLikeToken: three parts, of which the first is a JSON object in base64url.
func looksLikeToken(text string) bool {
	return strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2
}

func (m *jwtMethod) verify(ctx context.Context, text string) (verdict, error) {
	options := []jwt.ParserOption{
		jwt.WithLeeway(m.cfg.Leeway),
		jwt.WithValidMethods([]string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}),
	}
	if m.cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(m.cfg.Issuer))
	}
	if m.cfg.Audience != "" {
		options = append(options, jwt.WithAudience(m.cfg.Audience))
	}
	claims := jwt.MapClaims{}
	if _, err := jwt.NewParser(options...).ParseWithClaims(text, claims, func(t *jwt.Token) (any, error) { return m.keys(ctx, t) }); err != nil {
		return verdict{}, err
	}
	v := verdict{outcome: allow}
	v.username, _ = claims[m.cfg.UsernameClaim].(string)
	if v.username == "" || len(v.username) > 65535 || !utf8.ValidString(v.username) || strings.ContainsRune(v.username, 0) {
		return v, fmt.Errorf("the claim %q names no user", m.cfg.UsernameClaim)
	}
	if at, err := claims.GetExpirationTime(); err != nil {
		return v, err
	} else if at != nil {
		v.expires = at.Add(m.cfg.Leeway)
	}
	if acl, ok := claims[m.cfg.ACLClaim]; ok && m.cfg.ACLClaim != "" {
		var err error
		if v.token, err = tokenRules(acl); err != nil {
			return v, fmt.Errorf("the claim %q: %w", m.cfg.ACLClaim, err)
		}
	}
	return v, nil
}

// errNoKey: no key of the token's algorithm is known.
var errNoKey = errors.New("no key for its algorithm")

// keys are those that a token may have been signed with. The kind of key follows from the algorithm: a
// public key is never taken for a secret.
func (m *jwtMethod) keys(ctx context.Context, t *jwt.Token) (any, error) {
	if _, ok := t.Method.(*jwt.SigningMethodHMAC); ok {
		if s := m.secret.Load(); s != nil {
			return *s, nil
		}
		return nil, errNoKey
	}
	var set jwt.VerificationKeySet
	if keys := m.public.Load(); keys != nil {
		for _, k := range *keys {
			if fits(t.Method, k) {
				set.Keys = append(set.Keys, k)
			}
		}
	}
	if m.jwks != nil {
		k, err := m.jwks.KeyfuncCtx(ctx)(t)
		switch {
		case err == nil && fits(t.Method, k):
			set.Keys = append(set.Keys, k)
		case len(set.Keys) == 0 && err != nil:
			return nil, err
		}
	}
	if len(set.Keys) == 0 {
		return nil, errNoKey
	}
	return set, nil
}

func fits(method jwt.SigningMethod, k any) bool {
	switch method.(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		_, ok := k.(*rsa.PublicKey)
		return ok
	case *jwt.SigningMethodECDSA:
		_, ok := k.(*ecdsa.PublicKey)
		return ok
	case *jwt.SigningMethodEd25519:
		_, ok := k.(ed25519.PublicKey)
		return ok
	}
	return false
}

// tokenRules reads {"pub": [FILTER…], "sub": [FILTER…], "all": [FILTER…]}, what a token or a server
// allows. It is never nil without an error.
func tokenRules(claim any) ([]fsm.Rule, error) {
	lists, ok := claim.(map[string]any)
	if !ok {
		return nil, errors.New("wants an object with pub, sub and all")
	}
	rules := []fsm.Rule{}
	for _, one := range []struct {
		name    string
		actions []fsm.Action
	}{{"pub", []fsm.Action{fsm.ActionPublish}}, {"sub", []fsm.Action{fsm.ActionSubscribe}}, {"all", []fsm.Action{fsm.ActionPublish, fsm.ActionSubscribe}}} {
		value, ok := lists[one.name]
		delete(lists, one.name)
		if !ok {
			continue
		}
		list, ok := value.([]any)
		if !ok {
			return nil, fmt.Errorf("%s wants a list of filters", one.name)
		}
		for _, v := range list {
			filter, _ := v.(string)
			if err := topic.ValidateFilter(filter); err != nil {
				return nil, fmt.Errorf("%s: %q: %w", one.name, filter, err)
			}
			for _, a := range one.actions {
				rules = append(rules, fsm.Rule{Action: a, Filter: filter})
			}
		}
	}
	for name := range lists {
		return nil, fmt.Errorf("%q is not pub, sub or all", name)
	}
	return rules, nil
}
