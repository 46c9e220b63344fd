package mutate

import (
	"path/filepath"
	"testing"
)

// The list follows the code: what a mutation would change is still there. Whether the tests see it is
// for scripts/mutate, which takes minutes.
func TestMutations(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	all, err := Mutations()
	if err != nil || len(all) == 0 {
		t.Fatalf("%d mutations: %v", len(all), err)
	}
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
