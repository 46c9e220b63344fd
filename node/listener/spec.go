package listener

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/skein-mqtt/skein/proto/topic"
)

// Spec is what a listener's URL says.
type Spec struct {
	URL     string // as configured: the listener's name
	Scheme  string // tcp, tls, psk, ws, wss, unix, quic
	Network string // tcp or unix, for net.Listen
	Address string
	Path    string // ws, wss: the only path that is served; empty: any

	// Proxy is nil when connections come from the clients themselves.
	Proxy *Proxy

	// MaxConnections to this listener; 0: no limit but the node's.
	MaxConnections int
	// Versions of MQTT that its clients may speak (3: 3.1, 4: 3.1.1, 5); empty: all.
	Versions []int
	// Anonymous tells whether clients without a user name are let in; nil: as the node is configured.
	Anonymous *bool
	// Mount stands before all topics of its clients, and ends in a slash; empty: nothing does.
	Mount string

	Pairs             []Pair // tls, wss, quic: the first is for clients that name no host, or an unknown one
	CA                string
	CRL               string // empty: certificates are not looked up
	RequireClientCert bool
	Keys              string // psk: the file of identities and keys
	Hint              string // psk: told to clients of TLS 1.2
	MinVersion        uint16 // of TLS; 0: 1.2
	UseIdentity       bool   // the identity, or the certificate's common name, is the user name
	UseSubject        bool   // the certificate's whole subject is
}

// Pair is a certificate with its key, and perhaps a proof that it was not revoked.
type Pair struct {
	Cert, Key string
	OCSP      string // a response of its authority, DER; empty: none is stapled
}

func (s *Spec) minVersion() uint16 { return max(s.MinVersion, tls.VersionTLS12) }

// Authenticates tells whether nobody gets in without a certificate or a key.
func (s *Spec) Authenticates() bool { return s.RequireClientCert || s.Keys != "" }

// ofAll are the settings that every listener has.
var ofAll = []string{"max_connections", "protocol_versions", "allow_anonymous", "mount_point"}

var ofCertificates = []string{
	"cert", "key", "ocsp", "ca", "crl", "require_client_cert", "use_identity_as_username",
	"use_subject_as_username", "tls_version",
}

// settings are what the query may hold, by scheme.
var settings = map[string][]string{
	"tcp":  with(ofProxy),
	"ws":   with(ofProxy),
	"tls":  with(ofProxy, ofCertificates),
	"wss":  with(ofProxy, ofCertificates),
	"quic": with(ofCertificates),
	"psk":  with(ofProxy, []string{"file", "hint", "use_identity_as_username", "tls_version"}),
	"unix": with(),
}

var ofProxy = []string{"proxy", "proxy_from"}

func with(more ...[]string) []string { return slices.Concat(append([][]string{ofAll}, more...)...) }

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
		return Spec{}, fmt.Errorf("%s:// %w: use one of tcp, tls, psk, ws, wss, unix, quic", u.Scheme, ErrScheme)
	}
	switch u.Scheme {
	case "unix":
		s.Network, s.Address = "unix", u.Path
		if u.Host != "" {
			return Spec{}, fmt.Errorf("has the host %q: a unix socket's path begins with a slash, as in unix:///run/skein.sock", u.Host)
		}
	case "quic":
		s.Network = "udp"
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			return Spec{}, errors.New("wants HOST:PORT, as in quic://:8885")
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
	if err := s.admission(query); err != nil {
		return Spec{}, err
	}
	if err := s.secure(query); err != nil {
		return Spec{}, err
	}
	s.Proxy, err = parseProxy(query)
	return s, err
}

// admission reads the settings that every listener has.
func (s *Spec) admission(query url.Values) error {
	if text := query.Get("max_connections"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("max_connections wants a number of at least 1, not %q", text)
		}
		s.MaxConnections = n
	}
	for text := range strings.SplitSeq(query.Get("protocol_versions"), ",") {
		switch strings.TrimSpace(text) {
		case "":
		case "3", "3.1":
			s.Versions = append(s.Versions, 3)
		case "4", "3.1.1":
			s.Versions = append(s.Versions, 4)
		case "5", "5.0":
			s.Versions = append(s.Versions, 5)
		default:
			return fmt.Errorf("protocol_versions wants a list of 3.1, 3.1.1 and 5.0 (or 3, 4, 5), not %q", text)
		}
	}
	if text := query.Get("allow_anonymous"); text != "" {
		yes, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("allow_anonymous wants true or false, not %q", text)
		}
		s.Anonymous = &yes
	}
	if text := query.Get("mount_point"); text != "" {
		s.Mount = strings.TrimSuffix(text, "/") + "/"
		if strings.HasPrefix(s.Mount, "$") || topic.ValidateName(s.Mount) != nil {
			return fmt.Errorf("mount_point wants the beginning of a topic, without + and # and not in $, not %q", text)
		}
	}
	return nil
}

// pairs reads lists of files that belong together.
func (s *Spec) pairs(query url.Values) error {
	list := func(name string) []string {
		if query.Get(name) == "" {
			return nil
		}
		return strings.Split(query.Get(name), ",")
	}
	certs, keys, staples := list("cert"), list("key"), list("ocsp")
	if len(certs) != len(keys) || len(staples) > len(certs) {
		return errors.New("cert and key want as many files, in the same order, and ocsp no more")
	}
	for i := range certs {
		p := Pair{Cert: strings.TrimSpace(certs[i]), Key: strings.TrimSpace(keys[i])}
		if i < len(staples) {
			p.OCSP = strings.TrimSpace(staples[i])
		}
		if p.Cert == "" || p.Key == "" {
			return errors.New("cert and key hold an empty name of a file")
		}
		s.Pairs = append(s.Pairs, p)
	}
	return nil
}

// secure reads the settings of certificates and keys.
func (s *Spec) secure(query url.Values) error {
	if err := s.pairs(query); err != nil {
		return err
	}
	s.CA, s.CRL = query.Get("ca"), query.Get("crl")
	s.Keys, s.Hint = query.Get("file"), query.Get("hint")
	for name, to := range map[string]*bool{
		"require_client_cert": &s.RequireClientCert, "use_identity_as_username": &s.UseIdentity, "use_subject_as_username": &s.UseSubject,
	} {
		if text := query.Get(name); text != "" {
			yes, err := strconv.ParseBool(text)
			if err != nil {
				return fmt.Errorf("%s wants true or false, not %q", name, text)
			}
			*to = yes
		}
	}
	switch text := query.Get("tls_version"); strings.TrimPrefix(text, "tlsv") {
	case "":
	case "1.2":
		s.MinVersion = tls.VersionTLS12
	case "1.3":
		s.MinVersion = tls.VersionTLS13
	default:
		return fmt.Errorf("tls_version wants 1.2 or 1.3, the lowest that is spoken, not %q", text)
	}
	certificates := s.Scheme == "tls" || s.Scheme == "wss" || s.Scheme == "quic"
	switch {
	case certificates && len(s.Pairs) == 0:
		return errors.New("wants a certificate: cert=FILE&key=FILE")
	case s.Scheme == "psk" && s.Keys == "":
		return errors.New("wants file=FILE, a line IDENTITY:KEY for each client, the key in hexadecimal digits")
	case len(s.Hint) > 128:
		return errors.New("hint is longer than 128 bytes")
	case (s.RequireClientCert || s.CRL != "") && s.CA == "":
		return errors.New("require_client_cert and crl want ca=FILE, the authority of the clients' certificates")
	case certificates && (s.UseIdentity || s.UseSubject) && !s.RequireClientCert:
		return errors.New("use_identity_as_username and use_subject_as_username want require_client_cert=true")
	case s.UseIdentity && s.UseSubject:
		return errors.New("use_identity_as_username and use_subject_as_username exclude each other")
	}
	return nil
}

func orNone(known []string) string {
	if len(known) == 0 {
		return "none"
	}
	return strings.Join(known, ", ")
}
