package operators

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skein-mqtt/skein/proto/certname"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shown is a caller with a verified certificate.
func shown(commonName string, names ...certname.Name) Caller {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: commonName}}
	for _, n := range names {
		c.URIs = append(c.URIs, n.URI())
	}
	return Caller{Sealed: true, TLS: &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{c}}}}
}

func TestWho(t *testing.T) {
	file := filepath.Join(t.TempDir(), "operators")
	token, credential := NewToken()
	for _, o := range []struct {
		name, credential string
		role             Role
	}{{"ann", credential, Operate}, {"bob", "", View}, {"prom", "", Nobody}} {
		if err := Add(file, o.name, o.role, o.credential); err != nil {
			t.Fatal(err)
		}
	}
	g, err := Open(Config{Cluster: "skein", File: file, LocalRole: Admin})
	if err != nil {
		t.Fatal(err)
	}
	other, _ := NewToken()
	unverified := Caller{Sealed: true, TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Subject: pkix.Name{CommonName: "bob"}}}}}
	for _, test := range []struct {
		what   string
		caller Caller
		want   string
		err    error
	}{
		{"a token", Caller{Sealed: true, Token: token}, "ann operate", nil},
		{"a token by loopback", Caller{Sealed: true, Local: true, Token: token}, "ann operate", nil},
		{"a token in plain text", Caller{Token: token}, "", ErrPlain},
		{"another token", Caller{Sealed: true, Token: other}, "", ErrToken},
		{"a wrong token by loopback", Caller{Sealed: true, Local: true, Token: "x"}, "", ErrToken},
		{"a certificate of the file", shown("bob"), "bob view", nil},
		{"one whose own role the file lowers", shown("bob", certname.Operator("skein", "bob", "admin")), "bob view", nil},
		{"a certificate that says so itself", shown("carl", certname.Operator("skein", "carl", "admin")), "carl admin", nil},
		{"of another cluster", shown("carl", certname.Operator("other", "carl", "admin")), "", ErrUnknown},
		{"of a role that nobody knows", shown("carl", certname.Operator("skein", "carl", "king")), "", ErrUnknown},
		{"a node's", shown("node1", certname.Node("skein", "node1")), "", ErrUnknown},
		{"one that says nothing", shown("carl"), "", ErrUnknown},
		{"one that was not verified", unverified, "", ErrUnknown},
		{"nothing", Caller{}, "", ErrUnknown},
		{"nothing, over TLS", Caller{Sealed: true, TLS: &tls.ConnectionState{}}, "", ErrUnknown},
		{"nothing, by loopback", Caller{Local: true, Sealed: true}, "local admin", nil},
	} {
		o, err := g.Who(test.caller)
		got := ""
		if err == nil {
			got = o.Name + " " + o.Role.String()
		}
		if got != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: %q, %v", test.what, got, err)
		}
	}
	ann := Caller{Sealed: true, Token: token}
	for role, want := range map[Role]error{Nobody: nil, View: nil, Operate: nil, Admin: ErrRole} {
		if _, err := g.May(ann, role); !errors.Is(err, want) {
			t.Errorf("%s: %v", role, err)
		}
	}
	if _, err := g.May(Caller{}, Nobody); err != nil {
		t.Error(err)
	}
	if _, err := g.May(shown("prom"), View); !errors.Is(err, ErrRole) {
		t.Errorf("the role none: %v", err)
	}
	if g.Refused() != 2 {
		t.Errorf("%d refused", g.Refused())
	}
}

// TestFollows: a token that is taken out of the file counts no more, and a broken file changes nothing.
func TestFollows(t *testing.T) {
	file := filepath.Join(t.TempDir(), "operators")
	token, credential := NewToken()
	if err := Add(file, "ann", Admin, credential); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	g, err := Open(Config{File: file, Logger: slog.New(slog.NewTextHandler(&log, nil)), look: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("ann:admin:"+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Reload()
	if _, err := g.Who(Caller{Sealed: true, Token: token}); err != nil {
		t.Errorf("after a broken file: %v", err)
	}
	if s := log.String(); !strings.Contains(s, "line 1") || strings.Contains(s, token) {
		t.Errorf("logged: %s", s)
	}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { g.Run(ctx) })
	if err := os.WriteFile(file, []byte("# nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := g.Who(Caller{Sealed: true, Token: token}); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the token counts still")
		}
	}
	stop()
	group.Wait()
	if _, err := Open(Config{File: file + ".none"}); err == nil || !strings.Contains(err.Error(), "admin.operators_file") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestFile(t *testing.T) {
	_, credential := NewToken()
	for _, bad := range []string{
		"ann", "ann:admin", ":admin:cert", "a b:admin:cert", "ann:king:cert", "ann:admin:secret", "ann:admin:sha256=00",
		"ann:admin:cert\nann:view:cert", "ann:admin:" + credential + "\nbob:view:" + credential,
	} {
		if _, err := parseList([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	file := filepath.Join(t.TempDir(), "operators")
	if err := Remove(file, "ann"); err == nil {
		t.Error("somebody was removed from no file")
	}
	for _, name := range []string{"ann", "ann", "anna"} {
		_, credential := NewToken()
		if err := Add(file, name, View, credential); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{"", "a:b", "#a", "a b"} {
		if err := Add(file, bad, View, ""); err == nil {
			t.Errorf("%q is a name", bad)
		}
	}
	if err := Remove(file, "ann"); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil || strings.Count(string(data), "\n") != 1 || !strings.HasPrefix(string(data), "anna:view:") {
		t.Errorf("%q %v", data, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

func TestAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "audit.log")
	a, err := OpenAudit(path, "node1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ann := Operator{Name: "ann", Role: Operate}
	ended, err := a.Begin(ann, "192.0.2.1:5", "DrainNode", json.RawMessage(`{"node":"node2"}`))
	if err != nil {
		t.Fatal(err)
	}
	ended(nil)
	a.Refuse(ann, "192.0.2.1:5", "RemoveNode", ErrRole)
	var got []string
	for _, e := range entries(t, path) {
		got = append(got, fmt.Sprint(e.Node, e.Number, e.Who, e.Role, e.From, e.What, string(e.Request), e.Outcome))
	}
	want := []string{
		fmt.Sprint("node1", 1, "ann", "operate", "192.0.2.1:5", "DrainNode", `{"node":"node2"}`, "begun"),
		fmt.Sprint("node1", 1, "ann", "operate", "192.0.2.1:5", "DrainNode", `{"node":"node2"}`, "done"),
		fmt.Sprint("node1", 2, "ann", "operate", "192.0.2.1:5", "RemoveNode", "", "not allowed"),
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	a.limit = 1 // each line a file
	for i := range 2 * auditKept {
		a.Refuse(ann, "", fmt.Sprint(i), ErrRole)
	}
	for i, name := range []string{"", ".1", ".2", ".3", ".4"} {
		if e := entries(t, path+name); len(e) != 1 || e[0].What != fmt.Sprint(2*auditKept-1-i) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if _, err := os.Stat(path + ".5"); err == nil {
		t.Error("the fifth is kept")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Begin(ann, "", "DrainNode", nil); err == nil {
		t.Error("an order begins that can't be written down")
	}
}

func entries(t *testing.T, path string) (out []Entry) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func TestHandler(t *testing.T) {
	file := filepath.Join(t.TempDir(), "operators")
	viewer, credential := NewToken()
	if err := Add(file, "viewer", View, credential); err != nil {
		t.Fatal(err)
	}
	g, err := Open(Config{File: file, LocalRole: Admin})
	if err != nil {
		t.Fatal(err)
	}
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	sealed := func(r *http.Request) { r.TLS = &tls.ConnectionState{} }
	with := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	post := func(r *http.Request) { r.Method = http.MethodPost }
	basic := func(r *http.Request) { r.SetBasicAuth("anything", viewer) }
	far, near := g.Handler(View, Nobody, false, ok), g.Handler(Admin, Nobody, true, ok)
	open, operate := g.Handler(View, View, false, ok), g.Handler(Operate, View, false, ok)
	for _, test := range []struct {
		what    string
		handler http.Handler
		change  []func(*http.Request)
		want    int
	}{
		{"nothing from afar", far, nil, 403},
		{"nothing over TLS", far, []func(*http.Request){sealed}, 401},
		{"a token over TLS", far, []func(*http.Request){sealed, with("Authorization", "Bearer "+viewer)}, 200},
		{"a token as a password", far, []func(*http.Request){sealed, basic}, 200},
		{"a token in plain text", far, []func(*http.Request){basic}, 403},
		{"a wrong token", far, []func(*http.Request){sealed, with("Authorization", "bearer x")}, 401},
		{"open to all", open, nil, 200},
		{"open to all, but with a wrong token", open, []func(*http.Request){sealed, with("Authorization", "Bearer x")}, 401},
		{"more than what is open", operate, nil, 403},
		{"more than the role", operate, []func(*http.Request){sealed, basic}, 403},
		{"by loopback", near, []func(*http.Request){host("127.0.0.1:8080")}, 200},
		{"by loopback, IPv6", near, []func(*http.Request){host("[::1]:8080")}, 200},
		{"by loopback, by name", near, []func(*http.Request){host("localhost:8080"), post}, 200},
		{"by loopback under another name", near, []func(*http.Request){host("evil.example:8080")}, 403},
		{"a change from another page", near, []func(*http.Request){host("localhost:8080"), post, with("Sec-Fetch-Site", "cross-site")}, 403},
		{"a change from another origin", near, []func(*http.Request){host("localhost:8080"), post, with("Origin", "https://evil.example")}, 403},
	} {
		r := httptest.NewRequest(http.MethodGet, "http://skein.example/", nil)
		for _, f := range test.change {
			f(r)
		}
		w := httptest.NewRecorder()
		test.handler.ServeHTTP(w, r)
		if w.Code != test.want || (w.Header().Get("WWW-Authenticate") != "") != (test.want == 401) {
			t.Errorf("%s: %d %q %s", test.what, w.Code, w.Header(), w.Body)
		}
	}
}

func TestUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if _, err := ListenUnix(path); err == nil {
		t.Error("a socket that is in use was taken")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as a process that is killed
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = ListenUnix(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
