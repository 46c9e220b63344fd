package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// LDAPConfig says which directory knows the users. Without a URL there is none.
type LDAPConfig struct {
	URL      string // ldap:// or ldaps://
	StartTLS bool   // ldap://: TLS before anything is said
	CAFile   string // empty: the system's authorities
	// UserDN is the name that a user binds as, %u its own; or, when it is empty, the user is looked for in
	// BaseDN with Filter, by BindDN with the password in BindPasswordFile (empty: by nobody).
	UserDN           string
	BaseDN           string
	Filter           string
	BindDN           string
	BindPasswordFile string
	Timeout          time.Duration // of one login
}

// ldapMethod binds as the user, with the password that it gave.
type ldapMethod struct {
	r        *Rules
	cfg      LDAPConfig
	tls      *tls.Config
	password string
	slots    chan struct{}
}

const ldapLogins = 32 // at a time

func openLDAP(r *Rules, cfg LDAPConfig) (*ldapMethod, error) {
	m := &ldapMethod{r: r, cfg: cfg, slots: make(chan struct{}, ldapLogins)}
	if cfg.URL == "" {
		return m, nil
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "ldap" && u.Scheme != "ldaps" || u.Hostname() == "" {
		return nil, fmt.Errorf("auth.ldap.url: %q wants ldap://HOST or ldaps://HOST", cfg.URL)
	}
	if (cfg.UserDN == "") == (cfg.BaseDN == "") {
		return nil, errors.New("auth.ldap.user_dn: set it, or auth.ldap.base_dn, and not both")
	}
	m.tls = &tls.Config{ServerName: u.Hostname()}
	if cfg.CAFile != "" {
		text, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("auth.ldap.ca_file: %w", err)
		}
		m.tls.RootCAs = x509.NewCertPool()
		if !m.tls.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("auth.ldap.ca_file: %s holds no certificate", cfg.CAFile)
		}
	}
	if cfg.BindPasswordFile != "" {
		text, err := os.ReadFile(cfg.BindPasswordFile)
		if err != nil {
			return nil, fmt.Errorf("auth.ldap.bind_password_file: %w", err)
		}
		m.password = strings.TrimRight(string(text), "\r\n")
	}
	return m, nil
}

func (m *ldapMethod) asks() bool { return m.cfg.URL != "" }

func (m *ldapMethod) waste(context.Context, *Attempt) {}

func (m *ldapMethod) judge(ctx context.Context, a *Attempt) verdict {
	if !m.asks() || !a.named() {
		return verdict{}
	}
	if len(a.Password) == 0 { // a bind without a password succeeds, and proves nothing (RFC 4513, section 5.1.2)
		return verdict{outcome: deny}
	}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return verdict{outcome: deny}
	}
	found, err := m.bind(ctx, a)
	switch {
	case err == nil && found:
		return verdict{outcome: allow}
	case err == nil:
		return verdict{}
	case !ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials):
		m.r.cfg.Logger.Error("auth.ldap.url does not answer as it should: the login is refused", "url", m.cfg.URL, "error", err)
	}
	return verdict{outcome: deny}
}

// bind tells whether the directory knows the user; an error, whether or not it does, that it is not to
// be let in.
func (m *ldapMethod) bind(ctx context.Context, a *Attempt) (found bool, err error) {
	limit := m.cfg.Timeout
	if at, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(at))
	}
	c, err := ldap.DialURL(m.cfg.URL, ldap.DialWithDialer(&net.Dialer{Timeout: limit}), ldap.DialWithTLSConfig(m.tls))
	if err != nil {
		return false, err
	}
	defer c.Close()
	c.SetTimeout(limit)
	if m.cfg.StartTLS {
		if err := c.StartTLS(m.tls); err != nil {
			return false, err
		}
	}
	dn := strings.ReplaceAll(m.cfg.UserDN, "%u", ldap.EscapeDN(a.Username))
	if m.cfg.UserDN == "" {
		if dn, err = m.search(c, a.Username, limit); err != nil || dn == "" {
			return false, err
		}
	}
	return true, c.Bind(dn, string(a.Password))
}

// search finds the one entry of a user; empty: there is none.
func (m *ldapMethod) search(c *ldap.Conn, name string, limit time.Duration) (dn string, err error) {
	if m.cfg.BindDN != "" {
		if err := c.Bind(m.cfg.BindDN, m.password); err != nil {
			return "", fmt.Errorf("auth.ldap.bind_dn: %s", err) // not wrapped: it is not the user's password that is wrong
		}
	}
	res, err := c.Search(ldap.NewSearchRequest(m.cfg.BaseDN, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 2, max(1, int(limit/time.Second)), false,
		strings.ReplaceAll(m.cfg.Filter, "%u", ldap.EscapeFilter(name)), []string{"dn"}, nil))
	switch {
	case err != nil:
		return "", err
	case len(res.Entries) == 0:
		return "", nil
	case len(res.Entries) > 1:
		return "", errors.New("auth.ldap.filter finds more than one entry for a user")
	}
	return res.Entries[0].DN, nil
}
