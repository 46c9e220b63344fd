package fsm

import (
	"slices"
	"strings"

	"github.com/tidwall/btree"
)

// filter is a topic filter that somebody subscribed to: who, and on which nodes. All of it is
// derived, but for the groups' counters.
type filter struct {
	name   string
	subs   []*subscription // of persistent sessions, outside of groups; in no particular order
	stats  grants
	nodes  []presence
	groups []*group // by name
}

// group is a shared subscription group of a filter.
type group struct {
	filter  *filter
	name    string
	members []*subscription // by client id
	stats   grants
	nodes   []presence
	turn    uint64 // counts the picks (replicated)
	round   uint64 // see touchGroup
}

// grants counts persistent subscriptions.
type grants struct {
	qos    [3]int
	queue0 int // of sessions that queue QoS 0
}

// highest is one more than the highest granted QoS; 0: there is none.
func (g *grants) highest() byte {
	for q := 2; q >= 0; q-- {
		if g.qos[q] > 0 {
			return byte(q) + 1
		}
	}
	return 0
}

// presence is how many connected subscribers an incarnation has; a dead one's count for nothing
// and wait for Reap.
type presence struct {
	inc    *incarnation
	clean  int // as the node says (Interest)
	online int // connected persistent sessions
}

// filters is a tree of filters by level, and the groups in order.
type filters struct {
	root   level
	groups *btree.BTreeG[*group]
}

func newFilters() filters {
	return filters{groups: btree.NewBTreeGOptions(func(a, b *group) bool {
		if a.filter.name != b.filter.name {
			return a.filter.name < b.filter.name
		}
		return a.name < b.name
	}, btree.Options{NoLocks: true})}
}

// level is a node of the tree. Most have one child or none: those do without a map.
type level struct {
	filter   *filter
	onlyKey  string
	only     *level
	children map[string]*level
}

func (l *level) child(key string) *level {
	if l.only != nil {
		if l.onlyKey == key {
			return l.only
		}
		return nil
	}
	return l.children[key]
}

func (l *level) add(key string) *level {
	if c := l.child(key); c != nil {
		return c
	}
	c := &level{}
	switch {
	case l.children != nil:
		l.children[key] = c
	case l.only == nil:
		l.onlyKey, l.only = key, c
	default:
		l.children = map[string]*level{l.onlyKey: l.only, key: c}
		l.onlyKey, l.only = "", nil
	}
	return c
}

func (l *level) remove(key string) {
	if l.only != nil {
		l.onlyKey, l.only = "", nil
		return
	}
	delete(l.children, key)
	if len(l.children) == 0 {
		l.children = nil
	}
}

func (l *level) empty() bool { return l.filter == nil && l.only == nil && l.children == nil }

// cut is the first level of a name or filter and the rest; more tells whether there is a rest.
func cut(s string) (first, rest string, more bool) {
	return strings.Cut(s, "/")
}

func (t *filters) get(name string) *filter {
	l := &t.root
	for more := true; more; {
		var key string
		key, name, more = cut(name)
		if l = l.child(key); l == nil {
			return nil
		}
	}
	return l.filter
}

// obtain makes the filter if it is new; name must not alias an entry.
func (t *filters) obtain(name string) *filter {
	l := &t.root
	rest, more := name, true
	for more {
		var key string
		key, rest, more = cut(rest)
		l = l.add(key)
	}
	if l.filter == nil {
		l.filter = &filter{name: name}
	}
	return l.filter
}

// discard removes the filter if nothing is left of it.
func (t *filters) discard(fl *filter) {
	if len(fl.subs) == 0 && len(fl.nodes) == 0 && len(fl.groups) == 0 {
		t.root.prune(fl.name)
	}
}

func (l *level) prune(name string) {
	key, rest, more := cut(name)
	c := l.child(key)
	if more {
		c.prune(rest)
	} else {
		c.filter = nil
	}
	if c.empty() {
		l.remove(key)
	}
}

// match appends the filters that match a topic name, in an order that depends on nothing else.
// Filters that begin with a wildcard do not match names that begin with $ [MQTT-4.7.2-1].
func (t *filters) match(dst []*filter, name string) []*filter {
	return t.root.match(dst, name, !strings.HasPrefix(name, "$"))
}

func (l *level) match(dst []*filter, name string, wild bool) []*filter {
	key, rest, more := cut(name)
	if wild {
		if c := l.child("#"); c != nil && c.filter != nil {
			dst = append(dst, c.filter)
		}
		if c := l.child("+"); c != nil {
			dst = c.matched(dst, rest, more)
		}
	}
	if c := l.child(key); c != nil && key != "+" && key != "#" {
		dst = c.matched(dst, rest, more)
	}
	return dst
}

func (l *level) matched(dst []*filter, rest string, more bool) []*filter {
	if more {
		return l.match(dst, rest, true)
	}
	if l.filter != nil {
		dst = append(dst, l.filter)
	}
	if c := l.child("#"); c != nil && c.filter != nil { // a/# matches a
		dst = append(dst, c.filter)
	}
	return dst
}

func (fl *filter) group(name string) *group {
	if i, ok := fl.findGroup(name); ok {
		return fl.groups[i]
	}
	return nil
}

func (fl *filter) findGroup(name string) (int, bool) {
	return slices.BinarySearchFunc(fl.groups, name, func(g *group, name string) int { return strings.Compare(g.name, name) })
}

// obtainGroup makes the group if it is new; name must not alias an entry.
func (f *FSM) obtainGroup(fl *filter, name string) *group {
	i, ok := fl.findGroup(name)
	if ok {
		return fl.groups[i]
	}
	g := &group{filter: fl, name: name, round: f.round}
	fl.groups = slices.Insert(fl.groups, i, g)
	f.topics.groups.Set(g)
	return g
}

func (f *FSM) discardGroup(g *group) {
	if len(g.members) != 0 || len(g.nodes) != 0 {
		return
	}
	f.touchGroup(g)
	if i, ok := g.filter.findGroup(g.name); ok {
		g.filter.groups = slices.Delete(g.filter.groups, i, i+1)
		f.topics.groups.Delete(g)
	}
}

// count adds to what an incarnation has here. It tells whether the set of nodes changed.
func count(nodes *[]presence, inc *incarnation, clean, online int) bool {
	list := *nodes
	i := 0
	for i < len(list) && list[i].inc.before(inc) {
		i++
	}
	if i == len(list) || list[i].inc != inc {
		list = slices.Insert(list, i, presence{inc: inc})
	}
	p := &list[i]
	had := p.clean+p.online > 0
	p.clean += clean
	p.online += online
	has := p.clean+p.online > 0
	if !has {
		list = slices.Delete(list, i, i+1)
	}
	*nodes = list
	return had != has
}

// present counts a persistent session's subscription on the node that holds its connection.
func (f *FSM) present(s *subscription, inc *incarnation, clean, online int) {
	nodes := &s.filter.nodes
	if s.group != nil {
		nodes = &s.group.nodes
	}
	if count(nodes, inc, clean, online) {
		f.rerouted()
	}
}
