package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// TestFiles: every file that the page asks for is there, under a type that a browser takes, and nothing comes from
// elsewhere.
func TestFiles(t *testing.T) {
	handler, err := handler(settings{Port: 8083, Assistants: []string{"ann"}, Keepalive: 60})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path, kind string) string {
		t.Helper()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) {
			t.Errorf("%s: %d, %s", path, w.Code, w.Header().Get("Content-Type"))
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "script-src 'self'") {
			t.Errorf("%s: the policy is %q", path, csp)
		}
		return w.Body.String()
	}
	html := get("/", "text/html")
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"#:]+)"`).FindAllStringSubmatch(html, -1) {
		get("/"+m[1], "text/")
	}
	imports := regexp.MustCompile(`(?m)^(?:im|ex)port .*from "\./([^"]+)"`)
	for todo, seen := []string{"app.js"}, map[string]bool{}; len(todo) > 0; todo = todo[1:] {
		if seen[todo[0]] {
			continue
		}
		seen[todo[0]] = true
		folder := todo[0][:strings.LastIndex(todo[0], "/")+1]
		for _, m := range imports.FindAllStringSubmatch(get("/"+todo[0], "text/javascript"), -1) {
			todo = append(todo, folder+m[1])
		}
		if len(todo) == 1 && len(seen) < 6 {
			t.Errorf("only %d modules: %v", len(seen), seen)
		}
	}
	var s settings
	if err := json.Unmarshal([]byte(get("/config.json", "application/json")), &s); err != nil || s.Port != 8083 || len(s.Assistants) != 1 {
		t.Errorf("%+v %v", s, err)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/config.json", http.NoBody))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}
