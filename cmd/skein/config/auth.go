package config

import (
	"net/url"
	"slices"
	"strings"
	"time"
)

var authMethods = []string{"file", "users", "jwt", "http", "ldap"}

// validate is Config.Validate for the section auth.
func (a *Auth) validate(bad func(key, format string, args ...any)) {
	for i, m := range a.Methods {
		switch {
		case !slices.Contains(authMethods, m):
			bad("auth.methods", "knows no %q: it can hold %s", m, strings.Join(authMethods, ", "))
		case slices.Contains(a.Methods[:i], m):
			bad("auth.methods", "holds %q twice", m)
		}
	}
	if a.MaxFailures < 0 {
		bad("auth.max_failures", "is %d: it must not be less than 0", a.MaxFailures)
	}
	if a.MaxFailures > 0 && (a.FailureWindow <= 0 || a.BanTime <= 0) {
		bad("auth.failure_window", "and auth.ban_time must be longer than 0 where auth.max_failures is set")
	}
	if a.FailureDelay < 0 || a.FailureDelay > 5*time.Second {
		bad("auth.failure_delay", "is %s: it can be 0 to 5s", a.FailureDelay)
	}
	for key, text := range map[string]string{"auth.http.url": a.HTTP.URL, "auth.jwt.jwks_url": a.JWT.JWKSURL} {
		if u, err := url.Parse(text); text != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			bad(key, "is %q: it wants http:// or https://", text)
		}
	}
	for key, d := range map[string]time.Duration{
		"auth.http.timeout": a.HTTP.Timeout, "auth.ldap.timeout": a.LDAP.Timeout, "auth.jwt.jwks_refresh": a.JWT.JWKSRefresh,
	} {
		if d <= 0 {
			bad(key, "is %s: it must be longer", d)
		}
	}
	if a.JWT.UsernameClaim == "" {
		bad("auth.jwt.username_claim", "is empty: a token must name its user")
	}
	if a.LDAP.URL != "" && (a.LDAP.UserDN == "") == (a.LDAP.BaseDN == "") {
		bad("auth.ldap.user_dn", "or auth.ldap.base_dn must be set, and not both")
	}
	if a.LDAP.UserDN != "" && !strings.Contains(a.LDAP.UserDN, "%u") {
		bad("auth.ldap.user_dn", "is %q: %%u stands for the user's name, and is missing", a.LDAP.UserDN)
	}
}
