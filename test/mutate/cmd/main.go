// Command cmd applies each mutation by itself and runs the test that must fail for it. Arguments, if
// any, select mutations by a part of their rule. With -for it begins at another one each day, and begins
// no more when that time is over.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/skein-mqtt/skein/test/mutate"
)

func main() {
	limit := flag.Duration("for", 0, "begin no more mutations after this time; 0: all")
	from := flag.Int("from", int(time.Now().Unix()/86400)*17, "with -for: the position of the first; another one each day unless told")
	flag.Parse()
	if err := run(flag.Args(), *limit, *from); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(chosen []string, limit time.Duration, from int) error {
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
	began := time.Now()
	if limit > 0 {
		from %= len(all)
		all = append(all[from:], all[:from]...)
		fmt.Printf("from number %d of %d on, for %s\n", from+1, len(all), limit)
	}
	green := make(map[string]bool)
	var survived, count int
	for _, m := range all {
		if !selected(m.Rule, chosen) {
			continue
		}
		if limit > 0 && time.Since(began) > limit {
			break
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
