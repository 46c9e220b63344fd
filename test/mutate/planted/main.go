// Command planted builds a broker with one promise broken after the other, and shows that the fault checker
// finds it: within two minutes, and violations of no other class. Arguments, if any, select by a part of
// the rule.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/skein-mqtt/skein/test/mutate"
)

// length is how long the checker may take, from when its cluster serves; each round begins anew after
// a part of it.
const (
	length = 2 * time.Minute
	round  = 20 * time.Second
	seeds  = 3 // each with its part of the time
	rate   = 2
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(1)
	}
}

func run(chosen []string) error {
	root, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	all, err := mutate.Planted()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "planted")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	checker := filepath.Join(dir, "chaos")
	if err := build(checker, "./test/chaos/cmd"); err != nil {
		return err
	}
	var missed []string
	count := 0
	for _, m := range all {
		if len(chosen) > 0 && !slices.ContainsFunc(chosen, func(c string) bool { return strings.Contains(m.Rule, c) }) {
			continue
		}
		count++
		overlay, err := m.Overlay(root, dir)
		if err != nil {
			return err
		}
		binary := filepath.Join(dir, "skein")
		if err := build(binary, "./cmd/skein", "-tags", "chaos", "-overlay", overlay); err != nil {
			return err
		}
		began := time.Now()
		found, err := attack(checker, binary, filepath.Join(dir, "nodes"), m.Faults)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Rule, err)
		}
		verdict := "caught  "
		if !matches(found, strings.Split(m.Check, ", ")) {
			verdict = "MISSED  "
			missed = append(missed, m.Rule)
		}
		fmt.Printf("%s  %-36s after %3.0f s: %v\n", verdict, m.Rule, time.Since(began).Seconds(), found)
	}
	if len(missed) > 0 || count == 0 {
		return fmt.Errorf("of %d broken brokers the checker did not find: %s", count, strings.Join(missed, ", "))
	}
	return nil
}

// matches tells whether violations of the first class were found, and of none but these.
func matches(found map[string]int, classes []string) bool {
	for class := range found {
		if !slices.Contains(classes, class) {
			return false
		}
	}
	return found[classes[0]] > 0
}

func build(binary, pkg string, flags ...string) error {
	cmd := exec.Command("go", append(append([]string{"build", "-o", binary}, flags...), pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

var violation = regexp.MustCompile(`(?m)^VIOLATION\s+[0-9.]+  ([^:]+): `)

// attack runs the checker until it has found something, and counts that by class.
func attack(checker, binary, nodes, faults string) (map[string]int, error) {
	for seed := range seeds {
		if err := os.RemoveAll(nodes); err != nil {
			return nil, err
		}
		cmd := exec.Command(checker, "--binary", binary, "--dir", nodes, "--seed", fmt.Sprint(seed+1), "--faults", faults,
			"--minutes", fmt.Sprint((length / seeds).Minutes()), "--round", round.String(), "--rate", fmt.Sprint(rate))
		out, err := cmd.CombinedOutput()
		found := make(map[string]int)
		for _, v := range violation.FindAllSubmatch(out, -1) {
			found[string(v[1])]++
		}
		if len(found) > 0 {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the checker: %w\n%s", err, out)
		}
	}
	return nil, nil
}
