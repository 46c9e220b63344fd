package fsm

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var levelNames = []string{"a", "b", "a!", "a0", "", "$x", "é"}

func drawName(t *rapid.T) string {
	n := strings.Join(rapid.SliceOfN(rapid.SampledFrom(levelNames), 1, 4).Draw(t, "name"), "/")
	if n == "" {
		return "/"
	}
	return n
}

func drawFilter(t *rapid.T) string {
	parts := rapid.SliceOfN(rapid.SampledFrom(append([]string{"+", "+"}, levelNames...)), 1, 4).Draw(t, "filter")
	if rapid.Bool().Draw(t, "hash") {
		parts[len(parts)-1] = "#"
	}
	if f := strings.Join(parts, "/"); f != "" {
		return f
	}
	return "+"
}

// TestRetainedScan compares the leaping scan with a look at every topic.
func TestRetainedScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newRetainedTable()
		names := make(map[string]bool)
		for range rapid.IntRange(0, 60).Draw(t, "names") {
			n := drawName(t)
			names[n] = true
			table.put(retainedRow{topic: n, message: &Message{Topic: n}})
		}
		for range 5 {
			f := drawFilter(t)
			var want, got []string
			for n := range names {
				if matches(f, n) {
					want = append(want, n)
				}
			}
			sort.Strings(want)
			table.scan(f, "", func(m *Message) bool { got = append(got, m.Topic); return true })
			if !slices.Equal(got, want) {
				t.Fatalf("%q:\n got %q\nwant %q", f, got, want)
			}
			n := 0
			table.scan(f, "", func(*Message) bool { n++; return n < 2 })
			if n > 2 || n > len(want) {
				t.Fatalf("%q went on after false: %d", f, n)
			}
		}
	})
}

// TestFilters compares the tree with a look at every filter.
func TestFilters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := newFilters()
		in := make(map[string]*filter)
		for range rapid.IntRange(0, 80).Draw(t, "changes") {
			f := drawFilter(t)
			if fl := in[f]; fl != nil && rapid.Bool().Draw(t, "remove") {
				tree.discard(fl)
				delete(in, f)
			} else {
				in[f] = tree.obtain(f)
			}
		}
		for f, fl := range in {
			if tree.get(f) != fl {
				t.Fatalf("%q is lost", f)
			}
		}
		for range 5 {
			n := drawName(t)
			var want, got []string
			for f := range in {
				if matches(f, n) {
					want = append(want, f)
				}
			}
			for _, fl := range tree.match(nil, n) {
				got = append(got, fl.name)
			}
			sort.Strings(want)
			sort.Strings(got)
			if !slices.Equal(got, want) {
				t.Fatalf("%q:\n got %q\nwant %q", n, got, want)
			}
		}
		for _, fl := range in {
			tree.discard(fl)
		}
		if !tree.root.empty() {
			t.Fatal("levels are left")
		}
	})
}

// TestRanges compares the sets with maps, and makes sure that none is written in place.
func TestRanges(t *testing.T) {
	const top = 40
	draw := func(t *rapid.T, label string) []Range {
		var rs []Range
		for range rapid.IntRange(0, 5).Draw(t, label) {
			lo := rapid.Uint64Range(1, top).Draw(t, "lo")
			rs = append(rs, Range{lo, rapid.Uint64Range(lo, min(top, lo+4)).Draw(t, "hi")})
		}
		return rs
	}
	set := func(rs []Range) (m [top + 2]bool) {
		for _, r := range rs {
			for i := r.Lo; i <= r.Hi; i++ {
				m[i] = true
			}
		}
		return m
	}
	rapid.Check(t, func(t *rapid.T) {
		a := union(nil, draw(t, "a"))
		more := draw(t, "more")
		b := union(nil, slices.Clone(more))
		floor := rapid.Uint64Range(0, top).Draw(t, "floor")
		copyA, copyB := slices.Clone(a), slices.Clone(b)
		sum, diff, high := union(a, more), subtract(a, b), above(a, floor)
		if !slices.Equal(a, copyA) || !slices.Equal(b, copyB) {
			t.Fatal("written in place")
		}
		sa, sb, ss, sd, sh := set(a), set(b), set(sum), set(diff), set(high)
		for i := uint64(1); i <= top; i++ {
			if ss[i] != (sa[i] || sb[i]) || sd[i] != (sa[i] && !sb[i]) || sh[i] != (sa[i] && i > floor) || contains(a, i) != sa[i] {
				t.Fatalf("%d: a %v b %v sum %v difference %v above %d %v", i, a, b, sum, diff, floor, high)
			}
		}
		for _, rs := range [][]Range{a, sum, diff, high} {
			for i, r := range rs {
				if r.Lo > r.Hi || i > 0 && r.Lo <= rs[i-1].Hi+1 {
					t.Fatalf("not in form: %v", rs)
				}
			}
		}
	})
}

func TestPairs(t *testing.T) {
	for _, tt := range []struct {
		in   []uint64
		want string
	}{
		{[]uint64{1, 2, 5, 9}, "[{5 9}] true"},
		{[]uint64{2, 5}, "[{4 5}] true"},
		{[]uint64{5}, "[] false"},
		{[]uint64{6, 5}, "[] false"},
		{[]uint64{0, 5}, "[] false"},
		{[]uint64{5, 11}, "[] false"},
	} {
		got, ok := pairs(tt.in, 3, 10)
		if s := fmt.Sprint(got, ok); s != tt.want {
			t.Errorf("%v: %s, want %s", tt.in, s, tt.want)
		}
	}
}
