package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// attempt is one login, as the clients are told of it.
type attempt struct {
	ID       string `json:"id"`
	Version  byte   `json:"version"`
	Scheme   string `json:"scheme"`
	Address  string `json:"address"`
	User     string `json:"user"`
	Password string `json:"password"`
	CA       string `json:"ca"`
	Cert     string `json:"cert"`
	Key      string `json:"key"`
	PSK      string `json:"psk"`
	Identity string `json:"identity"`

	scram            bool // the password is proved as enhanced authentication
	listener, method string
	want             int // the code in CONNACK, or noAnswer
}

// The users, one for each method.
const (
	userHTTP, secretHTTP   = "hal", "open-by-http"
	userLDAP, secretLDAP   = "lea", "open-by-ldap"
	userOwn, secretOwn     = "una", "open-by-users"
	wrongSecret            = "open-by-nothing"
	strangersKey           = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
	byCertificate, byKey   = " by certificate", " by key"
	tokenUser, unknownUser = "jo", "eve"
)

// proof is a way to log in by name.
type proof struct{ method, user, right, wrong string }

// loginWorld is a node with a listener of each kind and users of each method.
type loginWorld struct {
	*secured
	other  *secured // another authority, of which nobody takes certificates
	at     map[string]string
	proofs []proof
}

func startLoginWorld(t *testing.T) *loginWorld {
	t.Helper()
	w := &loginWorld{secured: newAuthority(t), other: newAuthority(t), at: make(map[string]string)}
	w.issue("server", &x509.Certificate{Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	for _, a := range []*secured{w.secured, w.other} {
		a.issue("ann", &x509.Certificate{Subject: pkix.Name{CommonName: "ann"}})
	}
	w.write("users", passwords)
	w.write("keys.psk", "ann:"+annKey+"\nbob:"+bobKey+"\n")
	server := startLoginServer(t)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Hour)
	w.proofs = []proof{
		{"file", "ann", "pw-ann", wrongSecret},
		{"users", userOwn, secretOwn, wrongSecret},
		{"jwt", tokenUser, token(t, server.key, tokenUser, soon), token(t, stranger, tokenUser, soon)},
		{"jwt, too late", tokenUser, token(t, server.key, tokenUser, soon), token(t, server.key, tokenUser, time.Now().Add(-time.Hour))},
		{"http", userHTTP, secretHTTP, wrongSecret},
		{"ldap", userLDAP, secretLDAP, wrongSecret},
	}
	certificate := fmt.Sprintf("cert=%s&key=%s", w.path("server.pem"), w.path("server.key"))
	mutual := certificate + "&ca=" + w.path("ca.pem") + "&require_client_cert=true&use_identity_as_username=true"
	keys := "file=" + w.path("keys.psk")
	args := append(flags[:len(flags):len(flags)], "--log-level", "debug",
		"--set", "auth.password_file="+w.path("users"), "--set", "auth.failure_delay=20ms", "--set", "auth.max_failures=0",
		"--set", "auth.jwt.jwks_url="+server.url+"/keys", "--set", "auth.http.url="+server.url+"/login",
		"--set", "auth.ldap.url="+startDirectory(t, "uid="+userLDAP+",ou=people", secretLDAP), "--set", "auth.ldap.user_dn=uid=%u,ou=people")
	for _, l := range []struct{ kind, query string }{
		{"tls", certificate},
		{"wss", certificate},
		{"quic", certificate},
		{"psk", keys},
		{"tls" + byCertificate, mutual},
		{"wss" + byCertificate, mutual},
		{"quic" + byCertificate, mutual},
		{"psk" + byKey, keys + "&use_identity_as_username=true"},
	} {
		w.at[l.kind] = fmt.Sprintf("127.0.0.1:%d", h.FreePort(t))
		scheme, _, _ := strings.Cut(l.kind, " ")
		args = append(args, "--listen", scheme+"://"+w.at[l.kind]+"?"+l.query)
	}
	w.at["unix"] = filepath.Join(t.TempDir(), "s")
	w.node = h.Start(t, 1, append(args, "--listen", "unix://"+w.at["unix"])...).Node(1)
	w.at["tcp"], w.at["ws"] = w.node.MQTT, w.node.WS
	w.write("users.yaml", "users:\n- {name: "+userOwn+", password: "+secretOwn+"}\n")
	if out, err := w.node.Skein("apply", "-f", w.path("users.yaml")); err != nil {
		t.Fatalf("skein apply: %v %s", err, out)
	}
	if err := os.Remove(w.path("users.yaml")); err != nil {
		t.Fatal(err)
	}
	return w
}

func newAuthority(t *testing.T) *secured {
	t.Helper()
	s := &secured{t: t, dir: t.TempDir()}
	s.cert, s.key = s.issue("ca", &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return s
}

// attempts are all that a client can make on a kind of listener.
func (w *loginWorld) attempts(listener string, v byte, scram bool) (list []attempt) {
	scheme, how, _ := strings.Cut(listener, " ")
	base := attempt{Version: v, Scheme: scheme, Address: w.at[listener], listener: listener}
	badPassword, notAuthorized := 4, 5
	if v == h.V5 {
		badPassword, notAuthorized = 0x86, 0x87
	}
	if scheme == "tls" || scheme == "wss" || scheme == "quic" {
		base.CA = w.path("ca.pem")
	}
	if scheme == "psk" {
		base.PSK, base.Identity = annKey, "ann"
	}
	add := func(method string, want int, change func(a *attempt)) {
		a := base
		a.method, a.want = method, want
		change(&a)
		a.ID = "login"
		list = append(list, a)
	}
	as := func(user, password string) func(a *attempt) {
		return func(a *attempt) { a.User, a.Password = user, password }
	}
	switch how {
	case "by certificate":
		shows := func(of *secured) func(a *attempt) {
			return func(a *attempt) { a.Cert, a.Key = of.path("ann.pem"), of.path("ann.key") }
		}
		add("certificate", 0, shows(w.secured))
		add("certificate, another's password", 0, func(a *attempt) { shows(w.secured)(a); as(userOwn, wrongSecret)(a) })
		add("certificate of another authority", noAnswer, shows(w.other))
		add("certificate is missing", noAnswer, as("ann", "pw-ann"))
		return list
	case "by key":
		add("key", 0, func(*attempt) {})
		add("key, another's password", 0, as(userOwn, wrongSecret))
		add("key is wrong", noAnswer, func(a *attempt) { a.PSK = strangersKey })
		add("key of nobody", noAnswer, func(a *attempt) { a.Identity = unknownUser })
		return list
	}
	for _, p := range w.proofs {
		add(p.method, 0, as(p.user, p.right))
		add(p.method+", wrong", badPassword, as(p.user, p.wrong))
	}
	add("nobody", notAuthorized, func(*attempt) {})
	add("unknown", badPassword, as(unknownUser, wrongSecret))
	if scram && v == h.V5 {
		for _, s := range []struct {
			method, user, password string
			want                   int
		}{
			{"scram", userOwn, secretOwn, 0}, {"scram, wrong", userOwn, wrongSecret, notAuthorized}, {"scram, unknown", unknownUser, secretOwn, notAuthorized},
		} {
			add(s.method, s.want, func(a *attempt) { a.scram = true; as(s.user, s.password)(a) })
		}
	}
	return list
}

// loginClients are the clients, with the listeners that they can reach.
var loginClients = []struct {
	name      string
	versions  []byte
	listeners []string
	login     func(t *testing.T, list []attempt) []int
}{
	{"mosquitto_pub", []byte{h.V311, h.V5}, []string{"tcp", "tls", "unix", "psk", "tls" + byCertificate, "psk" + byKey}, loginMosquitto},
	{"paho python", []byte{h.V311, h.V5}, []string{"tcp", "tls", "ws", "wss", "tls" + byCertificate, "wss" + byCertificate}, loginPahoPython},
	{"paho.mqtt.golang", []byte{h.V311}, []string{"tcp", "tls", "ws", "wss", "unix", "quic", "tls" + byCertificate, "wss" + byCertificate, "quic" + byCertificate}, loginPahoGo3},
	{"autopaho", []byte{h.V5}, []string{"tcp", "tls", "ws", "wss", "unix", "quic", "tls" + byCertificate, "wss" + byCertificate, "quic" + byCertificate}, loginPahoGo5},
	{"mqtt.js", []byte{h.V311, h.V5}, []string{"tcp", "tls", "ws", "wss", "unix", "psk", "tls" + byCertificate, "wss" + byCertificate, "psk" + byKey}, loginMQTTjs},
}

// TestLoginMatrix: the clients that people use log in through each kind of listener that they know by each method,
// with the right proof and with a wrong one, and hear the right code; what they prove it with stands nowhere
// afterwards. A short run tries a part of the methods on each listener, by turns.
func TestLoginMatrix(t *testing.T) {
	if testing.Short() {
		t.Skip("not in a short run")
	}
	beside(t)
	w := startLoginWorld(t)
	for i, client := range loginClients {
		t.Run(client.name, func(t *testing.T) {
			if client.name == "mosquitto_pub" {
				needMosquitto(t)
			}
			var list []attempt
			for j, listener := range client.listeners {
				for k, v := range client.versions {
					all := w.attempts(listener, v, client.name == "autopaho")
					for n, a := range all {
						if heavy(0, 1) == 1 || strings.Contains(listener, " ") || (n/2+i+j+k)%len(w.proofs) == 0 || a.scram && listener == "tls" {
							list = append(list, a)
						}
					}
				}
			}
			got := client.login(t, list)
			if len(got) != len(list) {
				t.Fatalf("%d results of %d attempts", len(got), len(list))
			}
			for n, a := range list {
				if got[n] != a.want {
					t.Errorf("%s: %s", &a, codes(got[n], a.want))
				}
			}
			t.Logf("%d logins:\n%s", len(list), matrix(list, got))
		})
	}
	w.keptSecret(t)
}

func codes(got, want int) string { return fmt.Sprintf("%#02x, want %#02x", got, want) }

// matrix is a table of the codes: a line for each listener, the versions in a cell one after the other.
func matrix(list []attempt, got []int) string {
	var methods, listeners []string
	cells := make(map[[2]string][]string)
	for i, a := range list {
		if !slices.Contains(listeners, a.listener) {
			listeners = append(listeners, a.listener)
		}
		if !slices.Contains(methods, a.method) {
			methods = append(methods, a.method)
		}
		code := "none"
		if got[i] != noAnswer {
			code = fmt.Sprintf("%#x", got[i])
		}
		at := [2]string{a.method, a.listener}
		cells[at] = append(cells[at], fmt.Sprintf("%d: %s", a.Version, code))
	}
	var b strings.Builder
	out := tabwriter.NewWriter(&b, 0, 1, 2, ' ', 0)
	fmt.Fprintf(out, "\t%s\n", strings.Join(listeners, "\t"))
	for _, m := range methods {
		fmt.Fprint(out, m)
		for _, l := range listeners {
			fmt.Fprint(out, "\t"+strings.Join(cells[[2]string{m, l}], ", "))
		}
		fmt.Fprintln(out)
	}
	_ = out.Flush()
	return b.String()
}

// keptSecret looks for passwords, tokens and keys in the node's log and in its data folder.
func (w *loginWorld) keptSecret(t *testing.T) {
	secrets := []string{annKey, bobKey, strangersKey}
	for _, p := range w.proofs {
		secrets = append(secrets, p.right, p.wrong)
	}
	look := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range secrets {
			if bytes.Contains(bytes.ToLower(text), bytes.ToLower([]byte(s))) {
				t.Errorf("%s holds the secret %.20q", path, s)
			}
		}
	}
	look(w.node.Log)
	err := filepath.WalkDir(w.node.Data, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			look(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
