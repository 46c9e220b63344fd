package httpd

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type health struct {
	state  State
	reason string
}

func (h health) Ready() (State, string) { return h.state, h.reason }

type statusPage struct{}

func (statusPage) Status(context.Context) Status {
	return Status{
		Node: "node1", Version: "1", State: "ready", Missing: []string{"node2: gone"},
		Nodes: []NodeStatus{{ID: "<b>", Role: "leader"}},
	}
}

func get(t *testing.T, h http.Handler, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "http://localhost"+path, nil))
	return w.Code, w.Body.String()
}

func TestReadiness(t *testing.T) {
	for _, test := range []struct {
		health health
		code   int
		body   string
	}{
		{health{Ready, ""}, 200, "ok\n"},
		{health{Ready, "no lease for 1s, within the grace period"}, 200, "ok: no lease for 1s, within the grace period\n"},
		{health{Draining, "5 clients left"}, 404, "draining: 5 clients left\n"},
		{health{Cordoned, ""}, 404, "cordoned\n"},
		{health{NotReady, "the disk is nearly full"}, 503, "not ready: the disk is nearly full\n"},
	} {
		code, body := get(t, Handler(Config{Health: test.health}), "GET", "/readyz")
		if code != test.code || body != test.body {
			t.Errorf("%v: %d %q", test.health, code, body)
		}
	}
}

func TestPaths(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "skein_test"}))
	off := Handler(Config{Health: health{}, Gatherer: r, Page: statusPage{}})
	on := Handler(Config{Health: health{}, Gatherer: r, Page: statusPage{}, Pprof: true})
	for _, test := range []struct {
		handler      http.Handler
		method, path string
		code         int
		body         string
	}{
		{off, "GET", "/livez", 200, "ok"},
		{off, "HEAD", "/livez", 200, ""},
		{off, "POST", "/livez", 405, ""},
		{off, "GET", "/metrics", 200, "skein_test 0"},
		{off, "GET", "/debug/pprof/", 404, ""},
		{on, "GET", "/debug/pprof/", 200, "goroutine"},
		{off, "GET", "/", 200, "&lt;b&gt;"},
		{off, "GET", "/", 200, "node2: gone"},
		{off, "GET", "/nothing", 404, ""},
	} {
		code, body := get(t, test.handler, test.method, test.path)
		if code != test.code || !strings.Contains(body, test.body) {
			t.Errorf("%s %s: %d %q", test.method, test.path, code, body)
		}
	}
}

// The dashboard and what it asks are for this host, and not for pages from elsewhere.
func TestOperatorsPages(t *testing.T) {
	said := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { plain(w, 200, text) })
	}
	h := Handler(Config{Health: health{state: Ready}, Dashboard: said("page"), API: said("api"), APIPaths: []string{"/api/"}})
	for _, test := range []struct {
		method, path, host, site string
		code                     int
		body                     string
	}{
		{"GET", "/", "127.0.0.1:8080", "", 200, "page"},
		{"GET", "/app.js", "localhost:8080", "", 200, "page"},
		{"GET", "/", "[::1]:8080", "", 200, "page"},
		{"GET", "/", "evil.example:8080", "", 403, ""},
		{"POST", "/api/Drain", "127.0.0.1:8080", "same-origin", 200, "api"},
		{"POST", "/api/Drain", "127.0.0.1:8080", "cross-site", 403, ""},
		{"POST", "/api/Drain", "10.0.0.1:8080", "", 403, ""},
		{"GET", "/readyz", "10.0.0.1:8080", "cross-site", 200, "ok"},
	} {
		r := httptest.NewRequest(test.method, test.path, nil)
		r.Host = test.host
		r.Header.Set("Sec-Fetch-Site", test.site)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != test.code || !strings.Contains(w.Body.String(), test.body) {
			t.Errorf("%+v: %d %q", test, w.Code, w.Body.String())
		}
	}
}

func TestServer(t *testing.T) {
	s, err := Open(Config{Listen: "127.0.0.1:0", Health: health{state: Ready}})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://" + s.Addr().String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if string(body) != "ok\n" {
		t.Errorf("%q", body)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(Config{Listen: "127.0.0.1:99999", Health: health{}}); err == nil || !strings.Contains(err.Error(), "http.listen") {
		t.Errorf("got %v", err)
	}
}
