// Package mutate shows that tests can fail. Lists of mutations break one rule each, and name the test that
// must go red for it, or what the fault checker must find; the tree itself is never changed (go's
// -overlay). scripts/mutate and scripts/planted run them.
package mutate

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Mutation is one rule, broken.
type Mutation struct {
	Rule string // the clause and what it says
	File string // from the root of the repository
	Old  string // stands in File exactly once
	New  string
	// Package and Run are the test that must fail, as arguments of go test.
	Package, Run string
	// Check is the class of the violations that scripts/chaos must find instead, with these Faults.
	Check, Faults string
}

var (
	//go:embed mutations.txt
	mutations string
	//go:embed planted.txt
	planted string
)

// Mutations are those that tests must see.
func Mutations() ([]Mutation, error) { return read("mutations.txt", mutations) }

// Planted are those that the fault checker must see.
func Planted() ([]Mutation, error) { return read("planted.txt", planted) }

// read reads a list. Each mutation has a line "rule", and after it "file", "old" and "new" (repeated for
// more lines), and "test", or "check" and "faults".
func read(name, list string) ([]Mutation, error) {
	var all []Mutation
	for n, line := range strings.Split(list, "\n") {
		key, value, _ := strings.Cut(line, " ")
		if strings.TrimSpace(line) == "" || key == "#" {
			continue
		}
		if key == "rule" {
			all = append(all, Mutation{Rule: value})
			continue
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("%s:%d: the first key must be rule", name, n+1)
		}
		m := &all[len(all)-1]
		switch key {
		case "file":
			m.File = value
		case "old":
			m.Old = join(m.Old, value)
		case "new":
			m.New = join(m.New, value)
		case "test":
			m.Package, m.Run, _ = strings.Cut(value, " ")
		case "check":
			m.Check = value
		case "faults":
			m.Faults = value
		default:
			return nil, fmt.Errorf("%s:%d: unknown key %q", name, n+1, key)
		}
	}
	return all, nil
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "\n" + b
}

// Overlay writes the mutated file and the overlay for go's -overlay into dir, and returns the path of
// the overlay. root is the repository's, an absolute path.
func (m Mutation) Overlay(root, dir string) (string, error) {
	path := filepath.Join(root, m.File)
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if m.Old == "" || m.Old == m.New || (m.Run == "") == (m.Check == "") {
		return "", fmt.Errorf("%s: old, new, test or check is missing, or nothing changes", m.Rule)
	}
	if n := strings.Count(string(source), m.Old); n != 1 {
		return "", fmt.Errorf("%s: %q stands %d times in %s, want once", m.Rule, m.Old, n, m.File)
	}
	mutated := filepath.Join(dir, "mutated.go")
	overlay := filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
	return overlay, errors.Join(err,
		os.WriteFile(mutated, []byte(strings.Replace(string(source), m.Old, m.New, 1)), 0o600),
		os.WriteFile(overlay, b, 0o600))
}
