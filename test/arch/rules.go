package arch

import (
	"go/ast"
	"path"
	"slices"
	"strings"
)

// rule is something that holds for the whole tree. check says what breaks it.
type rule struct {
	name  string
	check func(t *tree) []string
}

var rules = []rule{
	{"direction of imports", direction},
	{"parts of a folder do not know each other", strangers},
	{"foreign modules stay where they belong", foreign},
	{"the state machine is deterministic", deterministic},
	{"pure packages are pure", pure},
	{"every package has a doc comment", documented},
	{"files are short", short},
	{"only main ends the process", exits},
}

// layers are the folders that files of a folder may import from. cmd joins what must not know each
// other; tests of whole processes see no more than their users do.
var layers = []struct {
	folder string
	may    []string
}{
	{"proto", []string{"proto"}},
	{"fsm", []string{"proto"}},
	{"cluster", []string{"cluster", "fsm", "proto"}},
	{"node", []string{"node", "fsm", "proto"}},
	{"cmd", []string{"cmd", "node", "cluster", "fsm", "proto"}},
	{"test", []string{"test", "proto"}},
	{"examples", []string{"examples", "proto"}},               // they see what any user of the project sees
	{"test/sim", []string{"node", "cluster", "fsm", "proto"}}, // it joins what cmd joins
	{"test/e2e", []string{"test", "fsm", "proto"}},            // it reads what a backup holds
	{"test/bench", []string{"node", "fsm", "proto"}},          // it measures what it is made of
}

// direction holds for test files, too: a test that joins two layers belongs above both of them. The
// commands are at the top: their tests may start whole nodes.
func direction(t *tree) (out []string) {
	for _, s := range t.sources {
		var may []string
		for _, l := range layers {
			if within(s.folder(), l.folder) {
				may = append(slices.Clone(l.may), l.folder)
			}
		}
		if may == nil {
			out = append(out, t.at(s.syntax, "%s is in none of the folders that the rules know: add it to layers", s.path))
			continue
		}
		if s.isTest() && within(s.folder(), "cmd", "examples") {
			may = append(may, "test/harness", "test/browser")
		}
		if s.isTest() && within(s.folder(), "node/broker") {
			may = append(may, "test/sim")
		}
		for _, i := range s.imports() {
			if folder, ok := i.own(); ok && !within(folder, may...) {
				out = append(out, t.at(i.spec, "%s must not import %s", s.folder(), folder))
			}
		}
	}
	return out
}

// parts are folders whose packages know their own parts alone; the package above joins them.
var parts = []string{"cluster"}

func strangers(t *tree) (out []string) {
	for _, s := range t.sources {
		for _, root := range parts {
			if !within(s.folder(), root) || s.folder() == root {
				continue
			}
			for _, i := range s.imports() {
				if folder, ok := i.own(); ok && within(folder, root) && folder != s.folder() {
					out = append(out, t.at(i.spec, "%s must not know %s: package %s joins them", s.folder(), folder, root))
				}
			}
		}
	}
	return out
}

// homes are the only folders in which a foreign module may be used.
var homes = []struct {
	module  string
	folders []string
}{
	{"github.com/hashicorp/raft", []string{"cluster"}},
	{"github.com/hashicorp/raft-boltdb", []string{"cluster/replica"}},
	{"go.etcd.io/bbolt", []string{"cluster/replica", "test/chaos/disk"}},
	{"github.com/chromedp", []string{"test/browser", "node/dashboard", "examples"}},
	{"github.com/hanwen/go-fuse", []string{"test/chaos/disk"}},
	{"github.com/hashicorp/memberlist", []string{"cluster/membership"}},
	{"github.com/spf13/cobra", []string{"cmd"}},
	{"github.com/spf13/pflag", []string{"cmd"}},
	{"go.opentelemetry.io", []string{"node/otlp", "test"}},
	{"google.golang.org/grpc", []string{"cluster", "cmd", "node/admin", "node/otlp", "proto", "test"}},
}

func foreign(t *tree) (out []string) {
	for _, s := range t.sources {
		for _, i := range s.imports() {
			for _, h := range homes {
				if within(i.path, h.module) && !within(s.folder(), h.folders...) {
					out = append(out, t.at(i.spec, "%s belongs into %s alone", h.module, strings.Join(h.folders, ", ")))
				}
			}
		}
	}
	return out
}

// worldly are packages through which the world comes in: clocks, chance, files, networks.
var worldly = []string{
	"time", "math/rand", "crypto/rand", "os", "net", "syscall", "golang.org/x/sys", "context", "log", "runtime", "unsafe",
}

// deterministic: two replicas that apply the same entries must be equal, and Apply must not wait.
func deterministic(t *tree) (out []string) {
	for _, s := range t.sources {
		if !within(s.folder(), "fsm") || s.isTest() {
			continue
		}
		out = append(out, t.withoutWorld(s)...)
		s.names(func(n ast.Node, pkg, name string) {
			if pkg == "maps" && slices.Contains([]string{"Keys", "Values", "All"}, name) {
				out = append(out, t.at(n, "maps.%s has no order", name))
			}
		})
	}
	return out
}

// pure are packages of state and bytes alone, besides the state machine.
func pure(t *tree) (out []string) {
	for _, s := range t.sources {
		if !within(s.folder(), "node/session", "proto/mqtt", "proto/topic") || s.isTest() {
			continue
		}
		for _, i := range s.imports() {
			if within(i.path, "sync") {
				out = append(out, t.at(i.spec, "%s takes no locks: its callers do", s.folder()))
			}
		}
		out = append(out, t.withoutWorld(s, "unsafe")...)
	}
	return out
}

// withoutWorld finds what brings the world, or another goroutine, into a file.
func (t *tree) withoutWorld(s *source, but ...string) (out []string) {
	for _, i := range s.imports() {
		if within(i.path, worldly...) && !within(i.path, but...) {
			out = append(out, t.at(i.spec, "%s must not import %s", s.folder(), i.path))
		}
	}
	ast.Inspect(s.syntax, func(n ast.Node) bool {
		switch n.(type) {
		case *ast.GoStmt, *ast.SelectStmt, *ast.ChanType, *ast.SendStmt:
			out = append(out, t.at(n, "no goroutines and channels in %s", s.folder()))
		}
		return true
	})
	return out
}

// documented: the comment says what the package owns and what it must never do; a test can only see
// that it is there.
func documented(t *tree) (out []string) {
	first := make(map[string]*source)
	has := make(map[string]bool)
	var folders []string
	for _, s := range t.sources {
		if s.isTest() {
			continue
		}
		if first[s.folder()] == nil {
			first[s.folder()] = s
			folders = append(folders, s.folder())
		}
		begin := "Package " + s.syntax.Name.Name + " "
		if s.syntax.Name.Name == "main" {
			begin = "Command " + path.Base(s.folder()) + " "
		}
		if !s.generated && strings.HasPrefix(s.syntax.Doc.Text(), begin) {
			has[s.folder()] = true
		}
	}
	for _, f := range folders {
		if !has[f] {
			out = append(out, t.at(first[f].syntax, "no file of %s has a comment on the package", f))
		}
	}
	return out
}

// maxLines of a file that people write and read.
const maxLines = 500

func short(t *tree) (out []string) {
	for _, s := range t.sources {
		if s.lines > maxLines && !s.generated && !s.isTest() {
			out = append(out, t.at(s.syntax, "%d lines, more than %d: it holds more than one noun", s.lines, maxLines))
		}
	}
	return out
}

// enders end the process under everybody's feet: nothing that was to be closed or told is.
var enders = map[string][]string{
	"os":      {"Exit"},
	"log":     {"Fatal", "Fatalf", "Fatalln"},
	"syscall": {"Exit"},
	"runtime": {"Goexit"},
}

// halting is where one of raft's goroutines is ended that would panic otherwise.
const halting = "cluster/replica/store.go"

// exits: errors go up, and main alone ends the process. What runs tests may, as testing does.
func exits(t *tree) (out []string) {
	for _, s := range t.sources {
		if s.isTest() || within(s.folder(), "test") || s.syntax.Name.Name == "main" && within(s.folder(), "cmd", "examples") {
			continue
		}
		s.names(func(n ast.Node, pkg, name string) {
			if slices.Contains(enders[pkg], name) && (name != "Goexit" || s.path != halting) {
				out = append(out, t.at(n, "%s.%s: return an error; only main ends the process", pkg, name))
			}
		})
	}
	return out
}
