package run

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/admin"
	"github.com/skein-mqtt/skein/node/disk"
	"github.com/skein-mqtt/skein/node/ring"
)

func TestNodeID(t *testing.T) {
	dir := t.TempDir()
	host, _ := os.Hostname()
	if id, err := nodeID("", dir); err != nil || id != host {
		t.Errorf("%q %v", id, err)
	}
	if id, err := nodeID("a", dir); err != nil || id != "a" {
		t.Errorf("%q %v", id, err)
	}
	for range 2 {
		if err := keepID("a", dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, configured := range []string{"", "a"} {
		if id, err := nodeID(configured, dir); err != nil || id != "a" {
			t.Errorf("%q %v", id, err)
		}
	}
	if _, err := nodeID("b", dir); err == nil || !strings.Contains(err.Error(), `node "a", not of "b"`) {
		t.Errorf("got %v", err)
	}
	if err := keepID("a", filepath.Join(dir, "absent")); err == nil {
		t.Error("no error without a folder")
	}
}

func TestAdvertised(t *testing.T) {
	for _, test := range []struct{ configured, bound, want string }{
		{"", "127.0.0.1:1", "127.0.0.1:1"},
		{"", "[::1]:1", "[::1]:1"},
		{"", "broker.example:1", "broker.example:1"},
		{"node1:2", ":1", "node1:2"},
		{"node1", ":1", "node1:1"},
		{"2001:db8::1", "[::]:1", "[2001:db8::1]:1"},
		{"[2001:db8::1]:3", "[::]:1", "[2001:db8::1]:3"},
	} {
		if got, err := advertised("peer", test.configured, test.bound); err != nil || got != test.want {
			t.Errorf("%+v: %q %v", test, got, err)
		}
	}
	own, err := ownAddress()
	for _, bound := range []string{":5", "0.0.0.0:5", "[::]:5"} {
		got, e := advertised("peer", "", bound)
		if err != nil {
			if e == nil || !strings.Contains(e.Error(), "peer.advertise") {
				t.Errorf("%s: %q %v", bound, got, e)
			}
			continue
		}
		if host, port, _ := net.SplitHostPort(got); host != own.String() || port != "5" {
			t.Errorf("%s: %q %v", bound, got, e)
		}
	}
	if own.IsValid() && (own.IsLoopback() || own == netip.IPv4Unspecified()) {
		t.Errorf("own address %v", own)
	}
}

func TestBeyondLoopback(t *testing.T) {
	got := beyondLoopback([]string{"tcp://127.0.0.1:1", "tcp://[::1]:1", "ws://localhost:2", "unix:///x", "tcp://:1", "tls://10.0.0.1:3?cert=c&key=k", "psk://:4?file=f", "tls://:5?cert=c&key=k&ca=a&require_client_cert=true", "tcp://:6?allow_anonymous=false"}, true)
	if strings.Join(got, " ") != "tcp://:1 tls://10.0.0.1:3?cert=c&key=k" {
		t.Errorf("%q", got)
	}
}

func TestLogger(t *testing.T) {
	var b bytes.Buffer
	l := newLogger(&b, config.Log{Level: "warn", Format: "json"}, &slog.LevelVar{}, nil)
	l.Info("no")
	l.Warn("yes", "n", 1)
	var record map[string]any
	if err := json.Unmarshal(b.Bytes(), &record); err != nil || record["msg"] != "yes" || record["n"] != 1.0 {
		t.Errorf("%s: %v", b.String(), err)
	}
	b.Reset()
	newLogger(&b, config.Log{Level: "debug", Format: "text"}, &slog.LevelVar{}, nil).Debug("x")
	if !strings.Contains(b.String(), "level=DEBUG msg=x") {
		t.Errorf("%s", b.String())
	}
}

// What is logged is remembered, with the attributes that a part of the node adds, and at the level of now.
func TestLogIsRemembered(t *testing.T) {
	var b bytes.Buffer
	var level slog.LevelVar
	lines := ring.New[admin.Line](8)
	l := newLogger(&b, config.Log{Level: "warn", Format: "json"}, &level, lines).With("self", "node1").WithGroup("g")
	l.Info("before")
	level.Set(slog.LevelInfo)
	l.Info("after", "n", 1)
	list, _, _ := lines.Read(0)
	if len(list) != 1 || list[0].Text != "msg=after self=node1 g.n=1" || list[0].Level != slog.LevelInfo || list[0].Time == 0 {
		t.Errorf("%+v", list)
	}
	if n := strings.Count(b.String(), "\n"); n != 1 {
		t.Errorf("%d lines were written: %s", n, b.String())
	}
}

// TestMetrics: names and help texts pass Prometheus' own checks.
func TestMetrics(t *testing.T) {
	r := newRegistry(fsm.New("node1"), disk.New(disk.Config{Path: t.TempDir(), LowBytes: 1, Interval: time.Hour}))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "skein_") {
			continue
		}
		ours++
		if f.GetHelp() == "" || strings.HasSuffix(f.GetName(), "_total") {
			t.Errorf("%s: %q", f.GetName(), f.GetHelp())
		}
	}
	if ours != len(stateRows)+4 {
		t.Errorf("%d of our own", ours)
	}
}

func TestGossipKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for text, want := range map[string]int{
		"000102030405060708090a0b0c0d0e0f": 16, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n": 32, "short": 0, "": 0,
		"# two\n000102030405060708090a0b0c0d0e0f\n\n000102030405060708090a0b0c0d0e0e\n": 16,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := gossipKeys(path)
		if (err == nil) != (want > 0) || err == nil && len(keys[0]) != want {
			t.Errorf("%q: %v, %v", text, keys, err)
		}
	}
	if _, err := gossipKeys(path + ".none"); err == nil {
		t.Error("a file that is not there was read")
	}
}
