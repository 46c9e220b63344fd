package topic

import "strings"

// Tree keeps values under (filter, key) and finds those whose filters match a name, at a cost that
// grows with the name's depth and the matches, not with the number of filters. Values of one filter
// come in the order in which their keys were added; the order of filters depends on nothing but
// which filters there are. The zero value is an empty tree. Filters are valid and without $share.
//
// It is not safe for concurrent use, but calls of Match, Get, Has and Len may overlap.
type Tree[K comparable, V any] struct {
	root    node[K, V]
	filters int
	len     int
}

// node is a level of the tree. Most have one child or none: those do without a map.
type node[K comparable, V any] struct {
	here     bucket[K, V] // of the filter that ends here
	plus     *node[K, V]
	hash     *node[K, V]
	onlyKey  string
	only     *node[K, V]
	children map[string]*node[K, V]
}

// Add puts v under (filter, key). The value that was there before, if any, is replaced in its place.
// The tree keeps no part of filter.
func (t *Tree[K, V]) Add(filter string, key K, v V) (old V, replaced bool) {
	n := &t.root
	for more := true; more; {
		var level string
		level, filter, more = strings.Cut(filter, "/")
		n = n.obtain(level)
	}
	if n.here.len() == 0 {
		t.filters++
	}
	old, replaced = n.here.put(key, v)
	if !replaced {
		t.len++
	}
	return old, replaced
}

// Remove takes the value under (filter, key) out.
func (t *Tree[K, V]) Remove(filter string, key K) (old V, removed bool) {
	old, removed = t.root.remove(filter, true, key, &t.filters)
	if removed {
		t.len--
	}
	return old, removed
}

// Get returns the value under (filter, key).
func (t *Tree[K, V]) Get(filter string, key K) (v V, ok bool) {
	if n := t.find(filter); n != nil {
		return n.here.get(key)
	}
	return v, false
}

// Count is how many keys a filter has.
func (t *Tree[K, V]) Count(filter string) int {
	if n := t.find(filter); n != nil {
		return n.here.len()
	}
	return 0
}

// Each calls fn for what stands under one filter, taken literally, until it says false. fn must not
// change the tree.
func (t *Tree[K, V]) Each(filter string, fn func(K, V) bool) {
	if n := t.find(filter); n != nil {
		n.here.each(fn)
	}
}

// Len is how many (filter, key) pairs there are.
func (t *Tree[K, V]) Len() int { return t.len }

// Filters is how many distinct filters there are.
func (t *Tree[K, V]) Filters() int { return t.filters }

// Match calls fn for every value whose filter matches name, until it says false. A key with several
// matching filters comes once for each. fn must not change the tree. Match allocates nothing.
func (t *Tree[K, V]) Match(name string, fn func(key K, v V) bool) {
	t.root.match(name, !strings.HasPrefix(name, "$"), fn)
}

// Has tells whether any filter matches name.
func (t *Tree[K, V]) Has(name string) bool {
	return !t.root.match(name, !strings.HasPrefix(name, "$"), func(K, V) bool { return false })
}

// match returns false when fn did. wild: wildcards may match the next level; they may not when it
// is the first and begins with $ [MQTT-4.7.2-1].
func (n *node[K, V]) match(name string, wild bool, fn func(K, V) bool) bool {
	for {
		level, rest, more := strings.Cut(name, "/")
		if wild {
			if n.hash != nil && !n.hash.here.each(fn) {
				return false
			}
			if n.plus != nil {
				if more {
					if !n.plus.match(rest, true, fn) {
						return false
					}
				} else if !n.plus.end(fn) {
					return false
				}
			}
		}
		c := n.child(level)
		if c == nil {
			return true
		}
		if !more {
			return c.end(fn)
		}
		n, name, wild = c, rest, true
	}
}

// end is where the name ends: a/# matches a, too.
func (n *node[K, V]) end(fn func(K, V) bool) bool {
	return n.here.each(fn) && (n.hash == nil || n.hash.here.each(fn))
}

func (t *Tree[K, V]) find(filter string) *node[K, V] {
	n := &t.root
	for more := true; more && n != nil; {
		var level string
		level, filter, more = strings.Cut(filter, "/")
		n = n.exact(level)
	}
	return n
}

// child finds a level of a name, exact one of a filter.
func (n *node[K, V]) child(level string) *node[K, V] {
	if n.only != nil {
		if n.onlyKey == level {
			return n.only
		}
		return nil
	}
	return n.children[level]
}

func (n *node[K, V]) exact(level string) *node[K, V] {
	switch level {
	case "+":
		return n.plus
	case "#":
		return n.hash
	}
	return n.child(level)
}

func (n *node[K, V]) obtain(level string) *node[K, V] {
	if c := n.exact(level); c != nil {
		return c
	}
	c := &node[K, V]{}
	switch {
	case level == "+":
		n.plus = c
	case level == "#":
		n.hash = c
	case n.children != nil:
		n.children[strings.Clone(level)] = c
	case n.only == nil:
		n.onlyKey, n.only = strings.Clone(level), c
	default:
		n.children = map[string]*node[K, V]{n.onlyKey: n.only, strings.Clone(level): c}
		n.onlyKey, n.only = "", nil
	}
	return c
}

func (n *node[K, V]) remove(filter string, more bool, key K, filters *int) (old V, removed bool) {
	if !more {
		old, removed = n.here.remove(key)
		if removed && n.here.len() == 0 {
			*filters--
		}
		return old, removed
	}
	level, rest, more := strings.Cut(filter, "/")
	c := n.exact(level)
	if c == nil {
		return old, false
	}
	old, removed = c.remove(rest, more, key, filters)
	if removed && c.empty() {
		n.drop(level)
	}
	return old, removed
}

func (n *node[K, V]) empty() bool {
	return n.here.len() == 0 && n.plus == nil && n.hash == nil && n.only == nil && n.children == nil
}

func (n *node[K, V]) drop(level string) {
	switch {
	case level == "+":
		n.plus = nil
	case level == "#":
		n.hash = nil
	case n.only != nil:
		n.onlyKey, n.only = "", nil
	default:
		delete(n.children, level)
		if len(n.children) == 0 {
			n.children = nil
		}
	}
}
