package arch

import (
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// TestRules holds the rules against the project.
func TestRules(t *testing.T) {
	project, err := read(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"cmd/skein", "node/broker", "cluster/replica", "fsm", "proto/mqtt"} {
		if !project.has(folder) {
			t.Errorf("the rules do not see %s: they would hold for nothing", folder)
		}
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, broken := range r.check(project) {
				t.Error(broken)
			}
		})
	}
}

func (t *tree) has(folder string) bool {
	for _, s := range t.sources {
		if s.folder() == folder {
			return true
		}
	}
	return false
}

// TestRulesCanFail: each rule finds what breaks it, where it is, and nothing in what does not.
func TestRulesCanFail(t *testing.T) {
	long := strings.Repeat("\n", maxLines)
	tried := make(map[string]bool)
	for _, test := range []struct {
		rule, path, text string
		want             string // of the only finding; empty: there is none
	}{
		{"direction of imports", "node/broker/a.go", imports("broker", module+"cluster/replica"), "node/broker/a.go:3: node/broker must not import cluster/replica"},
		{"direction of imports", "node/broker/a_test.go", imports("broker", module+"cluster"), "node/broker/a_test.go:3: node/broker must not import cluster"},
		{"direction of imports", "cluster/link/a.go", imports("link", module+"node/session"), "cluster/link/a.go:3: cluster/link must not import node/session"},
		{"direction of imports", "fsm/a.go", imports("fsm", module+"cluster"), "fsm must not import cluster"},
		{"direction of imports", "proto/mqtt/a.go", imports("mqtt", module+"fsm"), "proto/mqtt must not import fsm"},
		{"direction of imports", "node/admin/a.go", imports("admin", module+"cmd/skein/config"), "node/admin must not import cmd/skein/config"},
		{"direction of imports", "test/e2e/a_test.go", imports("e2e", module+"node/broker"), "test/e2e must not import node/broker"},
		{"direction of imports", "cmd/skein/bench/a.go", imports("bench", module+"test/harness"), "cmd/skein/bench must not import test/harness"},
		{"direction of imports", "cmd/skein/bench/a_test.go", imports("bench", module+"test/harness"), ""},
		{"direction of imports", "attic/a.go", "package attic\n", "attic/a.go is in none of the folders"},
		{"direction of imports", "node/broker/a.go", imports("broker", module+"fsm"), ""},
		{"direction of imports", "cmd/skein/run/a.go", imports("run", module+"cluster"), ""},
		{"direction of imports", "fsm/a.go", imports("fsm", "strings"), ""},

		{"parts of a folder do not know each other", "cluster/link/a.go", imports("link", module+"cluster/replica"), "cluster/link must not know cluster/replica"},
		{"parts of a folder do not know each other", "cluster/lease/a.go", imports("lease", module+"cluster"), "cluster/lease must not know cluster"},
		{"parts of a folder do not know each other", "cluster/a.go", imports("cluster", module+"cluster/replica"), ""},

		{"foreign modules stay where they belong", "node/broker/a.go", imports("broker", "github.com/hashicorp/raft"), "github.com/hashicorp/raft belongs into cluster alone"},
		{"foreign modules stay where they belong", "cluster/a.go", imports("cluster", "github.com/hashicorp/raft-boltdb/v2"), "belongs into cluster/replica alone"},
		{"foreign modules stay where they belong", "node/conn/a.go", imports("conn", "google.golang.org/grpc/status"), "google.golang.org/grpc belongs into"},
		{"foreign modules stay where they belong", "cluster/peer/a.go", imports("peer", "github.com/hashicorp/raft"), ""},

		{"the state machine is deterministic", "fsm/a.go", "package fsm\n\nimport \"time\"\n\nvar now = time.Now()\n", "fsm/a.go:3: fsm must not import time"},
		{"the state machine is deterministic", "fsm/a.go", imports("fsm", "math/rand/v2"), "must not import math/rand/v2"},
		{"the state machine is deterministic", "fsm/a.go", imports("fsm", "os"), "must not import os"},
		{"the state machine is deterministic", "fsm/a.go", imports("fsm", "net/http"), "must not import net/http"},
		{"the state machine is deterministic", "fsm/a.go", "package fsm\n\nfunc f() { go f() }\n", "fsm/a.go:3: no goroutines"},
		{"the state machine is deterministic", "fsm/a.go", "package fsm\n\nvar c chan int\n", "no goroutines and channels"},
		{"the state machine is deterministic", "fsm/a.go", "package fsm\n\nimport \"maps\"\n\nvar k = maps.Keys(m)\n", "fsm/a.go:5: maps.Keys has no order"},
		{"the state machine is deterministic", "fsm/a_test.go", imports("fsm", "math/rand"), ""},
		{"the state machine is deterministic", "node/broker/a.go", imports("broker", "time"), ""},

		{"pure packages are pure", "node/session/a.go", imports("session", "net"), "node/session must not import net"},
		{"pure packages are pure", "node/session/a.go", imports("session", "sync"), "node/session takes no locks"},
		{"pure packages are pure", "proto/mqtt/a.go", "package mqtt\n\nfunc f() { go f() }\n", "no goroutines"},
		{"pure packages are pure", "proto/mqtt/a.go", imports("mqtt", "unsafe"), ""},

		{"every package has a doc comment", "node/broker/a.go", "package broker\n", "node/broker/a.go:1: no file of node/broker"},
		{"every package has a doc comment", "node/broker/a.go", "// Some words.\npackage broker\n", "no file of node/broker"},
		{"every package has a doc comment", "node/broker/a.go", "// Package broker is one.\n\npackage broker\n", "no file of node/broker"},
		{"every package has a doc comment", "proto/xpb/a.go", "// Code generated by x. DO NOT EDIT.\n\n// Package xpb is one.\npackage xpb\n", "no file of proto/xpb"},
		{"every package has a doc comment", "cmd/skein/a.go", "// Package main is one.\npackage main\n", "no file of cmd/skein"},
		{"every package has a doc comment", "node/broker/a.go", "// Package broker is one.\npackage broker\n", ""},
		{"every package has a doc comment", "cmd/skein/a.go", "// Command skein is one.\npackage main\n", ""},
		{"every package has a doc comment", "test/x/a_test.go", "package x\n", ""},

		{"files are short", "node/broker/a.go", "package broker\n" + long, "501 lines, more than 500"},
		{"files are short", "node/broker/a.go", "package broker" + long, ""},
		{"files are short", "node/broker/a_test.go", "package broker\n" + long, ""},
		{"files are short", "proto/xpb/a.go", "// Code generated by x. DO NOT EDIT.\n\npackage xpb\n" + long, ""},

		{"only main ends the process", "cluster/a.go", calls("cluster", "os", "os.Exit(1)"), "cluster/a.go:5: os.Exit: return an error"},
		{"only main ends the process", "cluster/a.go", "package cluster\n\nimport x \"os\"\n\nfunc f() { x.Exit(1) }\n", "os.Exit"},
		{"only main ends the process", "node/conn/a.go", calls("conn", "log", "log.Fatalf(\"x\")"), "log.Fatalf"},
		{"only main ends the process", "cmd/skein/run/a.go", calls("run", "os", "os.Exit(1)"), "os.Exit"},
		{"only main ends the process", "cmd/skein/main.go", calls("main", "os", "os.Exit(1)"), ""},
		{"only main ends the process", "cluster/a.go", calls("cluster", "os", "os.Getpid()"), ""},
		{"only main ends the process", "cluster/replica/a.go", calls("replica", "runtime", "runtime.Goexit()"), "runtime.Goexit"},
		{"only main ends the process", "cluster/replica/store.go", calls("replica", "runtime", "runtime.Goexit()"), ""},
	} {
		broken, err := read(fstest.MapFS{test.path: {Data: []byte(test.text)}})
		if err != nil {
			t.Fatal(err)
		}
		found := find(t, test.rule).check(broken)
		tried[test.rule] = tried[test.rule] || len(found) > 0
		switch {
		case test.want == "" && len(found) > 0:
			t.Errorf("%s: finds %q where there is nothing:\n%s", test.rule, found, test.text)
		case test.want != "" && (len(found) != 1 || !strings.Contains(found[0], test.want)):
			t.Errorf("%s: found %q, not %q:\n%s", test.rule, found, test.want, test.text)
		}
	}
	for _, r := range rules {
		if !tried[r.name] {
			t.Errorf("nothing shows that the rule %q can fail", r.name)
		}
	}
}

// TestRead: it looks where the go command does, and fails rather than leave something out.
func TestRead(t *testing.T) {
	tree, err := read(fstest.MapFS{
		"a/a.go":           {Data: []byte("package a\n")},
		"a/testdata/b.go":  {Data: []byte("nonsense")},
		".hidden/c.go":     {Data: []byte("nonsense")},
		"_attic/d.go":      {Data: []byte("nonsense")},
		"a/notes.txt":      {Data: []byte("nonsense")},
		"vendor/x/x.go":    {Data: []byte("nonsense")},
		"a/link.go/inside": {Mode: fs.ModeDir},
	})
	if err != nil || len(tree.sources) != 1 {
		t.Errorf("%v, %d files", err, len(tree.sources))
	}
	if _, err := read(fstest.MapFS{"a/a.go": {Data: []byte("nonsense")}}); err == nil {
		t.Error("no error for a file that is not Go")
	}
}

func find(t *testing.T, name string) rule {
	for _, r := range rules {
		if r.name == name {
			return r
		}
	}
	t.Fatalf("there is no rule %q", name)
	return rule{}
}

func imports(pkg, path string) string {
	return "package " + pkg + "\n\nimport _ \"" + path + "\"\n"
}

func calls(pkg, path, call string) string {
	return "package " + pkg + "\n\nimport \"" + path + "\"\n\nfunc f() { " + call + " }\n"
}
