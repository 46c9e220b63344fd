package listener

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	s, err := Parse("tls://[::1]:8883?cert=c.pem&key=k.pem&ca=ca.pem&require_client_cert=true&proxy=v2&proxy_from=10.1.2.3/8,::1")
	if err != nil {
		t.Fatal(err)
	}
	if s.Scheme != "tls" || s.Network != "tcp" || s.Address != "[::1]:8883" || !slices.Equal(s.Pairs, []Pair{{Cert: "c.pem", Key: "k.pem"}}) || s.CA != "ca.pem" ||
		!s.RequireClientCert || s.Proxy == nil || s.Proxy.Version != 2 || len(s.Proxy.From) != 2 ||
		s.Proxy.From[0].String() != "10.0.0.0/8" || s.Proxy.From[1].String() != "::1/128" {
		t.Errorf("%+v %+v", s, s.Proxy)
	}
	s, err = Parse("psk://:8884?file=keys.psk&hint=here&use_identity_as_username=true&tls_version=tlsv1.3")
	if err != nil || s.Keys != "keys.psk" || s.Hint != "here" || !s.UseIdentity || s.MinVersion != tls.VersionTLS13 || !s.Authenticates() {
		t.Errorf("%+v %v", s, err)
	}
	s, err = Parse("wss://:1?cert=c&key=k&ca=a&crl=l&require_client_cert=1&use_subject_as_username=1")
	if err != nil || s.CRL != "l" || !s.UseSubject || s.UseIdentity || s.minVersion() != tls.VersionTLS12 || !s.Authenticates() {
		t.Errorf("%+v %v", s, err)
	}
	for text, want := range map[string]string{"ws://:1/mqtt": "/mqtt", "ws://:1": "", "ws://:1/": ""} {
		if s, err := Parse(text); err != nil || s.Path != want {
			t.Errorf("%s: %+v %v", text, s, err)
		}
	}
	if s, err := Parse("unix:///run/s.sock"); err != nil || s.Network != "unix" || s.Address != "/run/s.sock" {
		t.Errorf("%+v %v", s, err)
	}
	s, err = Parse("quic://:1?cert=a,b&key=c,d&ocsp=e&max_connections=7&protocol_versions=3.1.1,5&allow_anonymous=false&mount_point=m/n")
	if err != nil || s.Network != "udp" || !slices.Equal(s.Pairs, []Pair{{"a", "c", "e"}, {"b", "d", ""}}) || s.MaxConnections != 7 ||
		!slices.Equal(s.Versions, []int{4, 5}) || s.Anonymous == nil || *s.Anonymous || s.Mount != "m/n/" {
		t.Errorf("%+v %v", s, err)
	}
	for text, want := range map[string]string{
		"1883":                                                     "wants a URL",
		"mqtt://:1":                                                "not supported by this version",
		"quic://:1":                                                "wants a certificate",
		"quic://1?cert=c&key=k":                                    "wants HOST:PORT",
		"quic://:1?cert=c&key=k&proxy=v2":                          "unknown setting proxy",
		"tcp://:1?max_connections=0":                               "wants a number",
		"ws://:1?protocol_versions=6":                              "protocol_versions wants",
		"unix:///s?allow_anonymous=perhaps":                        "true or false",
		"unix:///s?mount_point=a/%23":                              "mount_point wants the beginning of a topic",
		"unix:///s?mount_point=$SYS":                               "not in $",
		"tls://:1?cert=a,b&key=a":                                  "as many files",
		"tls://:1?cert=a&key=a&ocsp=a,b":                           "as many files",
		"tls://:1?cert=a,&key=a,b":                                 "empty name",
		"tcp://1883":                                               "wants HOST:PORT",
		"unix://run/s.sock":                                        "has the host",
		"tcp://:1?prox=v2":                                         "unknown setting prox: tcp:// knows max_connections",
		"unix:///s?proxy=v2":                                       "knows max_connections, protocol_versions, allow_anonymous",
		"tcp://:1?proxy=v3&proxy_from=::1":                         "proxy wants v1 or v2",
		"tcp://:1?proxy=v2":                                        "proxy wants proxy_from",
		"tcp://:1?proxy=v2&proxy=v1":                               "twice",
		"tcp://:1?proxy_from=::1":                                  "wants proxy=v2",
		"tcp://:1?proxy=v2&proxy_from=10.0.0/8":                    "proxy_from wants networks",
		"tls://:1":                                                 "wants a certificate",
		"tls://:1?cert=c&key=k&require_client_cert=maybe":          "true or false",
		"tls://:1?cert=c&key=k&require_client_cert=true":           "want ca=FILE",
		"tcp://:1?a=%zz":                                           "can't be read",
		"psk://:1":                                                 "wants file=FILE",
		"psk://:1?file=f&cert=c":                                   "psk:// knows max_connections",
		"psk://:1?file=f&tls_version=1.1":                          "tls_version wants 1.2 or 1.3",
		"psk://:1?file=f&hint=" + strings.Repeat("h", 129):         "hint is longer",
		"tls://:1?cert=c&key=k&crl=l":                              "want ca=FILE",
		"tls://:1?cert=c&key=k&ca=a&use_identity_as_username=true": "want require_client_cert=true",
		"wss://:1?cert=c&key=k&ca=a&require_client_cert=true&use_identity_as_username=true&use_subject_as_username=true": "exclude each other",
	} {
		if s, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v %v", text, s, err)
		}
	}
}
