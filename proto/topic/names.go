package topic

import (
	"strings"

	"github.com/tidwall/btree"
)

// NameTree keeps a value for each of many names and finds those that a filter matches, in byte
// order of the names. A read costs as much as its matches and the distinct values at the levels of
// each +: it leaps over what can't match. The zero value is an empty tree. It keeps the names.
//
// It is not safe for concurrent use, but reads may overlap.
type NameTree[V any] struct {
	rows btree.Map[string, V]
}

// Set puts v under name and returns what was there.
func (t *NameTree[V]) Set(name string, v V) (old V, replaced bool) { return t.rows.Set(name, v) }

// Get returns the value of name.
func (t *NameTree[V]) Get(name string) (V, bool) { return t.rows.Get(name) }

// Delete takes name out and returns its value.
func (t *NameTree[V]) Delete(name string) (old V, deleted bool) { return t.rows.Delete(name) }

// Len is how many names there are.
func (t *NameTree[V]) Len() int { return t.rows.Len() }

// MatchFilter calls fn for every name that a valid filter, without $share, matches, until it says
// false. fn must not change the tree.
func (t *NameTree[V]) MatchFilter(filter string, fn func(name string, v V) bool) {
	if !HasWildcard(filter) {
		if v, ok := t.rows.Get(filter); ok {
			fn(filter, v)
		}
		return
	}
	levels := strings.Split(filter, "/")
	it := t.rows.Iter()
	for ok := it.Seek(prefixOf(levels)); ok; {
		name := it.Key()
		switch next, matches := leap(levels, name); {
		case matches:
			if !fn(name, it.Value()) {
				return
			}
			ok = it.Next()
		case next == "":
			return
		case next <= name: // the very next name may match
			ok = it.Next()
		default:
			ok = it.Seek(next)
		}
	}
}

// prefixOf is the least name that can match: the levels before the first wildcard.
func prefixOf(levels []string) string {
	for i, l := range levels {
		if l == "+" || l == "#" {
			return strings.Join(levels[:i], "/")
		}
	}
	return strings.Join(levels, "/")
}

// leap tells whether the filter matches name. If it does not, no match lies between name and next;
// next is empty when there is none at all behind name.
func leap(levels []string, name string) (next string, matches bool) {
	if (levels[0] == "+" || levels[0] == "#") && strings.HasPrefix(name, "$") {
		return "%", false // the byte after $ [MQTT-4.7.2-1]
	}
	plus := -1 // where the value of the last + ends
	at := 0    // where the level begins
	for i, l := range levels {
		if l == "#" {
			return "", true
		}
		end := len(name)
		if n := strings.IndexByte(name[at:], '/'); n >= 0 {
			end = at + n
		}
		last := end == len(name)
		switch {
		case l == "+":
			plus = end
		case l != name[at:end]:
			want := name[:at] + l
			if i+1 < len(levels) && levels[i+1] != "#" {
				want += "/"
			}
			if want > name {
				return want, false
			}
			// A name may sort between a match's level and its slash: a, a!b, a/c.
			if i+1 < len(levels) && name < want+"/" {
				return want + "/", false
			}
			return pass(name, plus), false
		}
		if last {
			if i+1 == len(levels) || i+2 == len(levels) && levels[i+1] == "#" {
				return "", true
			}
			return name, false // longer names with the same levels follow it
		}
		at = end + 1
	}
	return pass(name, plus), false // too deep
}

// pass leaps over the names that have the same value at the level of the last +. A value that has
// this one as its prefix may come before the slash, but not after it: byte '/' + 1 is '0'.
func pass(name string, plus int) string {
	if plus < 0 {
		return ""
	}
	return name[:plus] + "0"
}
