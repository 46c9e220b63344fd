// Command cmd applies each mutation by itself and runs the test that must fail for it. Arguments, if
// any, select mutations by a part of their rule.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/skein-mqtt/skein/test/mutate"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(chosen []string) error {
	root, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	all, err := mutate.Mutations()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	green := make(map[string]bool)
	var survived, count int
	for _, m := range all {
		if !selected(m.Rule, chosen) {
			continue
		}
		count++
		if test := m.Package + " " + m.Run; !green[test] {
			if out, err := goTest(m, ""); err != nil {
				return fmt.Errorf("%s fails without a mutation: %w\n%s", test, err, out)
			}
			green[test] = true
		}
		overlay, err := m.Overlay(root, dir)
		if err != nil {
			return err
		}
		out, err := goTest(m, overlay)
		switch red := failures(out); {
		case err == nil:
			survived++
			fmt.Printf("SURVIVED  %s\n          %s %s\n", m.Rule, m.Package, m.Run)
		case red == "":
			return fmt.Errorf("%s: the test did not run: %w\n%s", m.Rule, err, out)
		default:
			fmt.Printf("red       %s\n          %s\n", m.Rule, red)
		}
	}
	if survived > 0 || count == 0 {
		return fmt.Errorf("%d of %d mutations survived: a test is missing for each", survived, count)
	}
	fmt.Printf("%d mutations, each seen by a test\n", count)
	return nil
}

func selected(rule string, chosen []string) bool {
	for _, c := range chosen {
		if strings.Contains(rule, c) {
			return true
		}
	}
	return len(chosen) == 0
}

// goTest runs the test of m. The overlay is in the environment because the test builds the broker, too.
func goTest(m mutate.Mutation, overlay string) (string, error) {
	c := exec.Command("go", "test", "-count=1", "-run", m.Run, m.Package)
	c.Env = os.Environ()
	if overlay != "" {
		c.Env = append(c.Env, "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	out, err := c.CombinedOutput()
	return string(out), err
}

var failed = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`)

// failures names the innermost tests that failed.
func failures(out string) string {
	var names []string
	for _, f := range failed.FindAllStringSubmatch(out, -1) {
		if n := len(names); n > 0 && strings.HasPrefix(f[1], names[n-1]+"/") {
			names[n-1] = f[1]
			continue
		}
		names = append(names, f[1])
	}
	if len(names) > 3 {
		names = append(names[:3], fmt.Sprintf("and %d more", len(names)-3))
	}
	if len(names) == 0 && strings.Contains(out, "panic:") {
		return "(a panic)"
	}
	return strings.Join(names, ", ")
}
