package mutate

import (
	"errors"
	"path/filepath"
	"testing"
)

// The lists follow the code: what a mutation would change is still there. Whether it is seen is for
// scripts/mutate and scripts/planted, which take minutes.
func TestMutations(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	all, err := Mutations()
	more, err2 := Planted()
	if err := errors.Join(err, err2); err != nil || len(all) == 0 || len(more) == 0 {
		t.Fatalf("%d and %d mutations: %v", len(all), len(more), err)
	}
	all = append(all, more...)
	rules := make(map[string]bool)
	for _, m := range all {
		if _, err := m.Overlay(root, t.TempDir()); err != nil {
			t.Error(err)
		}
		if rules[m.Rule] {
			t.Errorf("%q is there twice", m.Rule)
		}
		rules[m.Rule] = true
	}
}
