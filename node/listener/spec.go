package listener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Spec is what a listener's URL says.
type Spec struct {
	URL     string // as configured: the listener's name
	Scheme  string // tcp, tls, ws, wss, unix
	Network string // tcp or unix, for net.Listen
	Address string
	Path    string // ws, wss: the only path that is served; empty: any

	// Proxy is nil when connections come from the clients themselves.
	Proxy *Proxy

	Cert, Key, CA     string // tls, wss
	RequireClientCert bool
}

// settings are what the query may hold, by scheme.
var settings = map[string][]string{
	"tcp":  {"proxy", "proxy_from"},
	"ws":   {"proxy", "proxy_from"},
	"tls":  {"proxy", "proxy_from", "cert", "key", "ca", "require_client_cert"},
	"wss":  {"proxy", "proxy_from", "cert", "key", "ca", "require_client_cert"},
	"unix": {},
}

// ErrScheme says that a scheme is known but not built into this version.
var ErrScheme = errors.New("is not supported by this version")

// Parse reads a listener's URL. Errors name the setting at fault.
func Parse(text string) (Spec, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return Spec{}, errors.New("wants a URL, as in tcp://127.0.0.1:1883")
	}
	s := Spec{URL: text, Scheme: u.Scheme, Network: "tcp", Address: u.Host}
	known, ok := settings[u.Scheme]
	if !ok {
		return Spec{}, fmt.Errorf("%s:// %w: use one of tcp, tls, ws, wss, unix", u.Scheme, ErrScheme)
	}
	switch u.Scheme {
	case "unix":
		s.Network, s.Address = "unix", u.Path
		if u.Host != "" {
			return Spec{}, fmt.Errorf("has the host %q: a unix socket's path begins with a slash, as in unix:///run/skein.sock", u.Host)
		}
	case "ws", "wss":
		if u.Path != "/" {
			s.Path = u.Path
		}
		fallthrough
	default:
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			return Spec{}, errors.New("wants HOST:PORT, as in tcp://127.0.0.1:1883, tcp://[::1]:1883 or tcp://:1883")
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Spec{}, fmt.Errorf("has a query that can't be read: %w", err)
	}
	for name, values := range query {
		if !slices.Contains(known, name) {
			return Spec{}, fmt.Errorf("unknown setting %s: %s:// knows %s", name, u.Scheme, orNone(known))
		}
		if len(values) > 1 && name != "proxy_from" {
			return Spec{}, fmt.Errorf("%s is there twice", name)
		}
	}
	s.Cert, s.Key, s.CA = query.Get("cert"), query.Get("key"), query.Get("ca")
	if text := query.Get("require_client_cert"); text != "" {
		if s.RequireClientCert, err = strconv.ParseBool(text); err != nil {
			return Spec{}, fmt.Errorf("require_client_cert wants true or false, not %q", text)
		}
	}
	switch {
	case (u.Scheme == "tls" || u.Scheme == "wss") && (s.Cert == "" || s.Key == ""):
		return Spec{}, errors.New("wants a certificate: cert=FILE&key=FILE")
	case s.RequireClientCert && s.CA == "":
		return Spec{}, errors.New("require_client_cert wants ca=FILE, the authority of the clients' certificates")
	}
	s.Proxy, err = parseProxy(query)
	return s, err
}

func orNone(known []string) string {
	if len(known) == 0 {
		return "none"
	}
	return strings.Join(known, ", ")
}

func parseProxy(query url.Values) (*Proxy, error) {
	from := strings.Join(query["proxy_from"], ",")
	var p Proxy
	switch v := query.Get("proxy"); v {
	case "":
		if from != "" {
			return nil, errors.New("proxy_from wants proxy=v2 (or v1) beside it")
		}
		return nil, nil
	case "v1":
		p.Version = 1
	case "v2":
		p.Version = 2
	default:
		return nil, fmt.Errorf("proxy wants v1 or v2, not %q", v)
	}
	for text := range strings.SplitSeq(from, ",") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			ip, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("proxy_from wants networks, as in 10.0.0.0/8,::1/128, not %q", text)
			}
			prefix = netip.PrefixFrom(ip, ip.BitLen())
		}
		p.From = append(p.From, prefix.Masked())
	}
	if len(p.From) == 0 {
		return nil, errors.New("proxy wants proxy_from=NETWORK,… beside it: the balancers that may speak for clients")
	}
	return &p, nil
}
