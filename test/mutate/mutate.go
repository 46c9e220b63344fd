// Package mutate shows that tests can fail. A list of mutations breaks one rule of the protocol each,
// and names the test that must go red for it; the tree itself is never changed (go's -overlay).
// scripts/mutate runs it.
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
}

//go:embed mutations.txt
var list string

// Mutations reads the list. Each has a line "rule", and after it "file", "old" and "new" (repeated for
// more lines) and "test".
func Mutations() ([]Mutation, error) {
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
			return nil, fmt.Errorf("mutations.txt:%d: the first key must be rule", n+1)
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
		default:
			return nil, fmt.Errorf("mutations.txt:%d: unknown key %q", n+1, key)
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
	if m.Old == "" || m.Old == m.New || m.Run == "" {
		return "", fmt.Errorf("%s: old, new or test is missing, or nothing changes", m.Rule)
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
