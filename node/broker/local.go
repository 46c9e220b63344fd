package broker

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/topic"
)

// subKey names a subscription of a client: the filter, without $share, and the group.
type subKey struct{ filter, group string }

// sub is a subscription of a client that is connected here. What is not atomic is fixed: a changed
// subscription is another sub.
type sub struct {
	fsm.Subscription
	c          *client
	persistent bool // it has the log's messages from the log, and the links' at QoS 0 only
	ids        []uint32
	slot       uint64 // of a clean client's SUBSCRIBE: of two under way the later one counts
	// since is the log index at which the subscriber read the retained messages: what the log carried
	// up to there came that way or is not owed.
	since atomic.Uint64
}

func (s *sub) key() subKey { return subKey{s.Filter, s.Group} }

func newSub(c *client, s fsm.Subscription) *sub {
	n := &sub{Subscription: s, c: c, persistent: !c.sess.Clean()}
	if s.ID != 0 {
		n.ids = []uint32{s.ID}
	}
	return n
}

// local are the subscriptions of the clients that are connected here.
type local struct {
	generation atomic.Uint64 // changes with every change
	mu         sync.RWMutex
	tree       topic.Tree[*client, *sub]
	groups     map[subKey]*group
}

// group is a shared subscription's members on this node.
type group struct {
	members []*sub
	turn    int
}

func (l *local) init() { l.groups = make(map[subKey]*group) }

// put adds a subscription, or replaces the client's own under the same key.
func (l *local) put(s *sub) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.generation.Add(1)
	if s.Group == "" {
		l.tree.Add(s.Filter, s.c, s)
		return
	}
	g := l.groups[s.key()]
	if g == nil {
		g = &group{}
		l.groups[s.key()] = g
	}
	if i := g.find(s.c); i >= 0 {
		g.members[i] = s
		return
	}
	g.members = append(g.members, s)
}

func (l *local) remove(s *sub) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.generation.Add(1)
	if s.Group == "" {
		if now, ok := l.tree.Get(s.Filter, s.c); ok && now == s {
			l.tree.Remove(s.Filter, s.c)
		}
		return
	}
	g := l.groups[s.key()]
	if g == nil {
		return
	}
	if i := g.find(s.c); i >= 0 && g.members[i] == s {
		g.members = slices.Delete(g.members, i, i+1)
	}
	if len(g.members) == 0 {
		delete(l.groups, s.key())
	}
}

func (g *group) find(c *client) int {
	return slices.IndexFunc(g.members, func(s *sub) bool { return s.c == c })
}

// members are a group's, beginning with the one whose turn it is.
func (l *local) members(filter, name string) []*sub {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[subKey{filter, name}]
	if g == nil {
		return nil
	}
	g.turn++
	n := len(g.members)
	out := make([]*sub, 0, n)
	for i := range n {
		out = append(out, g.members[(g.turn+i)%n])
	}
	return out
}

// target is a client that a message reaches outside of shared groups, with all of its matching
// subscriptions as one [MQTT-3.3.4-3].
type target struct {
	c     *client
	since *sub // the oldest of them counts
	as    grant
	// own is what the client gets of its own messages, if it has a subscription with No Local: nil
	// for nothing.
	noLocal bool
	own     *grant
	denied  bool // it may not have messages of this topic
}

// grant is how a message is delivered.
type grant struct {
	qos        byte
	asIs       bool // retain as published
	persistent bool
	ids        []uint32
}

func (g *grant) add(s *sub) {
	g.qos = max(g.qos, s.QoS)
	g.asIs = g.asIs || s.RetainAsPublished
	g.persistent = s.persistent
	if len(s.ids) > 0 {
		g.ids = append(slices.Clip(g.ids), s.ids...)
		slices.Sort(g.ids)
	}
}

// match gathers the targets of a topic.
func (l *local) match(name string) (targets []target, generation uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	at := make(map[*client]int)
	var all []*sub
	l.tree.Match(name, func(c *client, s *sub) bool {
		i, ok := at[c]
		if !ok {
			i = len(targets)
			at[c] = i
			targets = append(targets, target{c: c, since: s, denied: !c.mayReceive(name)})
		}
		t := &targets[i]
		if s.since.Load() < t.since.since.Load() {
			t.since = s
		}
		t.as.add(s)
		if s.NoLocal {
			t.noLocal = true
		}
		all = append(all, s)
		return true
	})
	for _, s := range all {
		if t := &targets[at[s.c]]; t.noLocal && !s.NoLocal {
			if t.own == nil {
				t.own = &grant{}
			}
			t.own.add(s)
		}
	}
	return targets, l.generation.Load()
}
