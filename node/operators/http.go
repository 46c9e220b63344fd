package operators

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Request is the caller of an HTTP request: a client certificate, "Authorization: Bearer TOKEN", or Basic with the
// token as the password, which browsers ask for. local tells that the server listens on loopback.
func Request(r *http.Request, local bool) Caller {
	c := Caller{Local: local, Sealed: local || r.TLS != nil, TLS: r.TLS, From: r.RemoteAddr}
	if _, password, ok := r.BasicAuth(); ok {
		c.Token = password
	} else if token, ok := Bearer(r.Header.Get("Authorization")); ok {
		c.Token = token
	}
	return c
}

// Bearer is the token of an Authorization header, in HTTP and in gRPC's metadata.
func Bearer(header string) (string, bool) {
	scheme, token, ok := strings.Cut(header, " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "bearer")
}

// Handler lets requests through whose caller has the role at least. least is what somebody who shows nothing may do
// at any rate.
//
// On loopback whoever shows nothing is this host's own user, or a page in his browser that was fetched from
// elsewhere: a request must name loopback as its host (a page can make its own name lead here, but not change what
// it is called), and one that changes something must not come from another origin.
func (g *Gate) Handler(role, least Role, local bool, next http.Handler) http.Handler {
	foreign := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := Request(r, local)
		if err := foreign.Check(r); err != nil {
			g.refuse(w, http.StatusForbidden, err)
			return
		}
		if local && c.Token == "" && !loopbackHost(r.Host) {
			g.refuse(w, http.StatusForbidden, errors.New("the host of this request is not a name of loopback"))
			return
		}
		c.Least = least
		if _, err := g.May(c, role); err != nil {
			g.answer(w, c, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// answer asks for a token only where it may be sent.
func (g *Gate) answer(w http.ResponseWriter, c Caller, err error) {
	if errors.Is(err, ErrRole) && c.Token != "" || !c.Sealed {
		g.refuse(w, http.StatusForbidden, err)
		return
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="skein: any name, and a token as the password"`)
	g.refuse(w, http.StatusUnauthorized, err)
}

func (g *Gate) refuse(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, err.Error(), code)
}

func loopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost") || strings.HasSuffix(strings.ToLower(host), ".localhost")
}
