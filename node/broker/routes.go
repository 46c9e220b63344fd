package broker

import (
	"hash/maphash"
	"sync"

	"github.com/skein-mqtt/skein/fsm"
)

// routes remembers where publishes go, by topic: an entry holds as long as neither the replicated
// subscriptions nor this node's own, nor the access rules, have changed. The number of entries is bounded; a stale one goes
// when it is met, or with the sweep.
type routes struct {
	b      *Broker
	seed   maphash.Seed
	shards [routeShards]routeShard
}

const (
	routeShards = 32
	shardLimit  = 1024 // entries
)

type routeShard struct {
	mu      sync.RWMutex
	entries map[string]*matched
}

// matched is where a publish to a topic goes. It is immutable.
type matched struct {
	route   fsm.Route
	local   uint64
	access  uint64 // the version of the rules that the targets were judged by
	targets []target
}

func (r *routes) init(b *Broker) {
	r.b, r.seed = b, maphash.MakeSeed()
	for i := range r.shards {
		r.shards[i].entries = make(map[string]*matched)
	}
}

// lookup finds the way of a topic, which it does not keep.
func (r *routes) lookup(topic string) (*matched, []target) {
	s := &r.shards[maphash.String(r.seed, topic)%routeShards]
	s.mu.RLock()
	m := s.entries[topic]
	s.mu.RUnlock()
	if m != nil && r.fresh(m) {
		return m, m.targets
	}
	m = &matched{access: r.b.accessVersion()}
	m.targets, m.local = r.b.local.match(topic)
	m.route = r.b.state.Route(topic)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) >= shardLimit {
		clear(s.entries)
	}
	s.entries[string([]byte(topic))] = m
	return m, m.targets
}

func (r *routes) fresh(m *matched) bool {
	return m.route.Generation == r.b.state.RouteGeneration() && m.local == r.b.local.generation.Load() && m.access == r.b.accessVersion()
}

// sweep drops stale entries, which hold on to clients that are gone.
func (r *routes) sweep() {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for k, m := range s.entries {
			if !r.fresh(m) {
				delete(s.entries, k)
			}
		}
		s.mu.Unlock()
	}
}
