package topic

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// naive is the specification's matching, level by level, with nothing clever.
func naive(filter, name string) bool {
	f, n := strings.Split(filter, "/"), strings.Split(name, "/")
	if name[0] == '$' && (f[0] == "#" || f[0] == "+") {
		return false
	}
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i == len(n) || level != "+" && level != n[i] {
			return false
		}
		if i == len(n)-1 && i == len(f)-2 && f[i+1] == "#" {
			return true
		}
	}
	return len(f) == len(n)
}

var (
	levels = []string{"", "a", "b", "ab", "a!", "a0", "$", "$a", "é", "\x01", "\U0010FFFF"}
	names  = rapid.Custom(func(t *rapid.T) string {
		return some(rapid.SliceOfN(rapid.SampledFrom(levels), 1, 4).Draw(t, "levels"))
	})
	filters = rapid.Custom(func(t *rapid.T) string {
		ls := rapid.SliceOfN(rapid.SampledFrom(append([]string{"+", "+"}, levels...)), 0, 4).Draw(t, "levels")
		if len(ls) == 0 || rapid.Bool().Draw(t, "#") {
			ls = append(ls, "#")
		}
		return some(ls)
	})
)

// some makes a topic that is not empty.
func some(levels []string) string {
	if s := strings.Join(levels, "/"); s != "" {
		return s
	}
	return "/"
}

func TestMatchNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		filter, name := filters.Draw(t, "filter"), names.Draw(t, "name")
		if got := Match(filter, name); got != naive(filter, name) {
			t.Fatalf("Match(%q, %q) is %v", filter, name, got)
		}
	})
}

// TestTreeModel: a tree is a list of (filter, key, value) that is searched through.
func TestTreeModel(t *testing.T) {
	type row struct {
		filter string
		key    int
	}
	rapid.Check(t, func(t *rapid.T) {
		var tree Tree[int, int]
		var order []row
		model := make(map[row]int)
		few := rapid.SliceOfN(filters, 1, 12).Draw(t, "filters")
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				r := row{rapid.SampledFrom(few).Draw(t, "filter"), rapid.IntRange(0, 40).Draw(t, "key")}
				v := rapid.Int().Draw(t, "value")
				old, there := model[r]
				if got, replaced := tree.Add(r.filter, r.key, v); got != old || replaced != there {
					t.Fatalf("Add: %d, %v, want %d, %v", got, replaced, old, there)
				}
				if !there {
					order = append(order, r)
				}
				model[r] = v
			},
			"addMany": func(t *rapid.T) {
				f := rapid.SampledFrom(few).Draw(t, "filter")
				for key := range 30 {
					r := row{f, key}
					if _, there := model[r]; !there {
						order = append(order, r)
					}
					model[r] = key
					tree.Add(f, key, key)
				}
			},
			"remove": func(t *rapid.T) {
				r := row{rapid.SampledFrom(few).Draw(t, "filter"), rapid.IntRange(0, 40).Draw(t, "key")}
				old, there := model[r]
				if got, removed := tree.Remove(r.filter, r.key); got != old || removed != there {
					t.Fatalf("Remove: %d, %v, want %d, %v", got, removed, old, there)
				}
				delete(model, r)
				order = slices.DeleteFunc(order, func(o row) bool { return o == r })
			},
			"removeMany": func(t *rapid.T) {
				f := rapid.SampledFrom(few).Draw(t, "filter")
				for key := range 35 {
					tree.Remove(f, key)
					delete(model, row{f, key})
				}
				order = slices.DeleteFunc(order, func(o row) bool { return o.filter == f && o.key < 35 })
			},
			"match": func(t *rapid.T) {
				name := names.Draw(t, "name")
				var got []string
				tree.Match(name, func(key, v int) bool {
					got = append(got, fmt.Sprint(key, "=", v))
					return true
				})
				var want []string
				for r, v := range model {
					if naive(r.filter, name) {
						want = append(want, fmt.Sprint(r.key, "=", v))
					}
				}
				n := 0
				tree.Match(name, func(int, int) bool { n++; return n < 2 })
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) || tree.Has(name) != (len(want) > 0) || n != min(2, len(want)) {
					t.Fatalf("%q: got %v, stopped after %d, want %v", name, got, n, want)
				}
			},
			"": func(t *rapid.T) {
				byFilter := make(map[string][]row)
				for _, r := range order {
					byFilter[r.filter] = append(byFilter[r.filter], r)
				}
				if tree.Len() != len(model) || tree.Filters() != len(byFilter) {
					t.Fatalf("%d pairs and %d filters, want %d and %d", tree.Len(), tree.Filters(), len(model), len(byFilter))
				}
				for _, f := range few {
					var got []row
					tree.Each(f, func(key, v int) bool {
						if w, ok := tree.Get(f, key); !ok || w != v || v != model[row{f, key}] {
							t.Fatalf("Get(%q, %d): %d, %v", f, key, w, ok)
						}
						got = append(got, row{f, key})
						return true
					})
					if !slices.Equal(got, byFilter[f]) || tree.Count(f) != len(got) {
						t.Fatalf("%q: %v, want %v", f, got, byFilter[f])
					}
				}
				if len(model) == 0 && (tree.root.only != nil || tree.root.children != nil || tree.root.plus != nil || tree.root.hash != nil) {
					t.Fatal("an empty tree keeps nodes")
				}
			},
		})
	})
}

// TestNameTreeModel: the names that a filter matches, in byte order.
func TestNameTreeModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tree NameTree[int]
		model := make(map[string]int)
		for i, name := range rapid.SliceOfN(names, 0, 60).Draw(t, "names") {
			old, there := model[name]
			if i%5 == 4 {
				if got, deleted := tree.Delete(name); got != old || deleted != there {
					t.Fatalf("Delete: %d, %v", got, deleted)
				}
				delete(model, name)
				continue
			}
			if got, replaced := tree.Set(name, i); got != old || replaced != there {
				t.Fatalf("Set: %d, %v", got, replaced)
			}
			model[name] = i
		}
		checkNames(t, &tree, model, filters.Draw(t, "filter"))
		checkNames(t, &tree, model, names.Draw(t, "exact"))
	})
}

func checkNames(t rapid.TB, tree *NameTree[int], model map[string]int, filter string) {
	t.Helper()
	var got, want []string
	tree.MatchFilter(filter, func(name string, v int) bool {
		if w, ok := tree.Get(name); v != model[name] || !ok || w != v {
			t.Fatalf("%q is %d and %d", name, v, w)
		}
		got = append(got, name)
		return true
	})
	for _, name := range slices.Sorted(maps.Keys(model)) {
		if naive(filter, name) {
			want = append(want, name)
		}
	}
	if !slices.Equal(got, want) || tree.Len() != len(model) {
		t.Fatalf("%q: got %q, want %q", filter, got, want)
	}
	n := 0
	tree.MatchFilter(filter, func(string, int) bool { n++; return false })
	if n != min(1, len(want)) {
		t.Fatalf("%d calls after it was told to stop", n)
	}
}

// TestBucketModel: keys in the order in which they were added, with many coming and going.
func TestBucketModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b bucket[int, int]
		var order []int
		model := make(map[int]int)
		for i, op := range rapid.SliceOfN(rapid.IntRange(-80, 120), 0, 300).Draw(t, "ops") {
			key := max(op, -op) % 60
			old, there := model[key]
			if op < 0 {
				if got, removed := b.remove(key); got != old || removed != there {
					t.Fatalf("remove: %d, %v", got, removed)
				}
				delete(model, key)
				order = slices.DeleteFunc(order, func(k int) bool { return k == key })
			} else {
				if got, replaced := b.put(key, i); got != old || replaced != there {
					t.Fatalf("put: %d, %v", got, replaced)
				}
				if !there {
					order = append(order, key)
				}
				model[key] = i
			}
			if b.len() != len(order) || b.gaps*2 > len(b.slots) || b.index == nil && len(b.slots) >= indexFrom {
				t.Fatalf("%d live, %d gaps in %d slots, want %d", b.len(), b.gaps, len(b.slots), len(order))
			}
		}
		var got []int
		b.each(func(k, v int) bool {
			if w, ok := b.get(k); !ok || w != v || v != model[k] {
				t.Fatalf("%d is %d", k, v)
			}
			got = append(got, k)
			return true
		})
		if !slices.Equal(got, order) {
			t.Fatalf("got %v, want %v", got, order)
		}
	})
}

// TestOverlappingReads is for the race detector: reads may overlap.
func TestOverlappingReads(t *testing.T) {
	var tree Tree[int, int]
	var nt NameTree[int]
	for i := range 200 {
		tree.Add(fmt.Sprintf("a/%d/+", i%20), i, i)
		nt.Set(fmt.Sprintf("a/%d/%d", i%20, i), i)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				n := 0
				tree.Match(fmt.Sprintf("a/%d/x", i%20), func(int, int) bool { n++; return true })
				nt.MatchFilter(fmt.Sprintf("a/%d/+", i%20), func(string, int) bool { n++; return true })
				if n != 20 || !tree.Has("a/1/y") || tree.Len() != 200 {
					t.Errorf("%d matches", n)
				}
			}
		})
	}
	wg.Wait()
}

// FuzzMatch: whatever is valid is matched alike by all that match.
func FuzzMatch(f *testing.F) {
	for _, s := range [][3]string{
		{"a/+/#", "a/b", "a/b/c"}, {"#", "$SYS/a", "a"}, {"+/b", "a/b", "a!/b"}, {"a/#", "a", "a0"}, {"$share/g/a", "a", "b"}, {"/+/", "//", "/"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, filter, name, other string) {
		if ValidateFilter(filter) != nil || ValidateName(name) != nil || ValidateName(other) != nil {
			return
		}
		_, filter, _, err := ParseShare(filter)
		if err != nil {
			t.Fatal(err)
		}
		want := naive(filter, name)
		var tree Tree[string, int]
		tree.Add(filter, "k", 1)
		tree.Add(other, "o", 2)
		got := false
		tree.Match(name, func(key string, _ int) bool { got = got || key == "k"; return true })
		if Match(filter, name) != want || got != want {
			t.Fatalf("%q, %q: Match %v, tree %v, naive %v", filter, name, Match(filter, name), got, want)
		}
		var nt NameTree[int]
		nt.Set(name, 1)
		nt.Set(other, 2)
		nt.Set(other+"/x", 3)
		model := map[string]int{name: 1}
		model[other], model[other+"/x"] = 2, 3
		if v, _ := nt.Get(name); v != model[name] {
			return // name is one of the others
		}
		checkNames(t, &nt, model, filter)
	})
}
