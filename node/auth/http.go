package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// HTTPConfig says whom to ask about a login. Without a URL nobody is asked.
type HTTPConfig struct {
	URL       string
	TokenFile string        // sent as Authorization: Bearer; empty: none
	Timeout   time.Duration // of one request
	Cache     time.Duration // how long an answer holds; 0: every login asks
}

// httpMethod asks a server about each login: one POST with a JSON object of client_id, username,
// password, address and listener. The answer is 200 with {"result": "allow"|"deny"|"ignore", "username",
// "acl": {"pub", "sub", "all"}, "expires_at": seconds since 1970}, all but the result optional; or 401 or
// 403, which deny. Whatever else comes, or nothing, denies as well.
type httpMethod struct {
	r      *Rules
	cfg    HTTPConfig
	client *http.Client
	token  string
	slots  chan struct{}
	key    [32]byte // answers are remembered under a keyed hash: no password is kept

	mu    sync.Mutex
	cache map[[32]byte]cached
}

type cached struct {
	verdict
	until time.Time
}

const (
	httpRequests = 64     // at a time
	httpAnswers  = 10_000 // remembered
	httpBody     = 64 << 10
)

func openHTTP(r *Rules, cfg HTTPConfig) (*httpMethod, error) {
	m := &httpMethod{r: r, cfg: cfg, slots: make(chan struct{}, httpRequests), cache: make(map[[32]byte]cached)}
	m.client = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // passwords go nowhere else
	}
	rand.Read(m.key[:])
	if cfg.TokenFile != "" {
		text, err := os.ReadFile(cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("auth.http.token_file: %w", err)
		}
		m.token = strings.TrimSpace(string(text))
	}
	return m, nil
}

func (m *httpMethod) asks() bool { return m.cfg.URL != "" }

func (m *httpMethod) waste(context.Context, *Attempt) {}

func (m *httpMethod) judge(ctx context.Context, a *Attempt) verdict {
	if !m.asks() {
		return verdict{}
	}
	k := m.sum(a)
	if v, ok := m.remembered(k); ok {
		return v
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return verdict{outcome: deny}
	}
	v, err := m.ask(ctx, a)
	if err != nil {
		m.r.cfg.Logger.Error("auth.http.url does not answer as it should: the login is refused", "url", m.cfg.URL, "error", err)
		return verdict{outcome: deny}
	}
	m.remember(k, v)
	return v
}

func (m *httpMethod) ask(ctx context.Context, a *Attempt) (verdict, error) {
	body, err := json.Marshal(map[string]string{
		"client_id": a.ClientID, "username": a.Username, "password": string(a.Password), "address": a.Remote.String(), "listener": a.Listener,
	})
	if err != nil {
		return verdict{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return verdict{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if m.token != "" {
		req.Header.Set("Authorization", "Bearer "+m.token)
	}
	res, err := m.client.Do(req)
	if err != nil {
		return verdict{}, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return verdict{outcome: deny}, nil
	default:
		return verdict{}, fmt.Errorf("status %d", res.StatusCode)
	}
	var answer struct {
		Result    string `json:"result"`
		Username  string `json:"username"`
		ACL       any    `json:"acl"`
		ExpiresAt int64  `json:"expires_at"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, httpBody)).Decode(&answer); err != nil {
		return verdict{}, fmt.Errorf("its answer is not the JSON that is expected: %w", err)
	}
	switch answer.Result {
	case "allow":
	case "deny":
		return verdict{outcome: deny}, nil
	case "ignore":
		return verdict{}, nil
	default:
		return verdict{}, fmt.Errorf("its result is %q, not allow, deny or ignore", answer.Result)
	}
	v := verdict{outcome: allow, username: answer.Username}
	if answer.ACL != nil {
		if v.token, err = tokenRules(answer.ACL); err != nil {
			return verdict{}, fmt.Errorf("acl: %w", err)
		}
	}
	if answer.ExpiresAt > 0 {
		if v.expires = time.Unix(answer.ExpiresAt, 0); !v.expires.After(time.Now()) {
			return verdict{}, errors.New("it allows until a time that is over")
		}
	}
	return v, nil
}

// sum is what an attempt is remembered under.
func (m *httpMethod) sum(a *Attempt) (k [32]byte) {
	h := hmac.New(sha256.New, m.key[:])
	for _, s := range []string{a.ClientID, a.Username, string(a.Password), a.Remote.String(), a.Listener} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	h.Sum(k[:0])
	return k
}

func (m *httpMethod) remembered(k [32]byte) (verdict, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.cache[k]
	if !ok || !time.Now().Before(c.until) {
		return verdict{}, false
	}
	return c.verdict, true
}

func (m *httpMethod) remember(k [32]byte, v verdict) {
	if m.cfg.Cache <= 0 {
		return
	}
	now := time.Now()
	until := now.Add(m.cfg.Cache)
	if !v.expires.IsZero() && v.expires.Before(until) {
		until = v.expires
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.cache) >= httpAnswers {
		for old, c := range m.cache {
			if !now.Before(c.until) {
				delete(m.cache, old)
			}
		}
		if len(m.cache) >= httpAnswers {
			clear(m.cache)
		}
	}
	m.cache[k] = cached{v, until}
}

func (m *httpMethod) close() { m.client.CloseIdleConnections() }
