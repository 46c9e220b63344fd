package chaos

import (
	"math/rand/v2"
	"sync"
	"time"
)

// network is what stands between the nodes: every node is reached through relays of its own, which
// let pass what the rules let pass. It holds back rather than drops, as TCP does on a network that
// loses packets; datagrams are dropped.
type network struct {
	mu      sync.Mutex
	rules   map[direction]rule
	changed chan struct{} // closed and replaced when a rule changes
	pipes   map[*pipe]struct{}
}

// direction is the way from one node to another.
type direction struct{ from, to string }

// rule is what happens on it.
type rule struct {
	cut   bool
	delay time.Duration
	loss  float64 // of what is sent; on a stream it comes later, as TCP sends it again
}

// again is how much later it comes.
const again = 200 * time.Millisecond

// late is how long something takes on its way.
func (r rule) late() time.Duration {
	if rand.Float64() < r.loss {
		return r.delay + again
	}
	return r.delay
}

func newNetwork() *network {
	return &network{rules: make(map[direction]rule), changed: make(chan struct{}), pipes: make(map[*pipe]struct{})}
}

// Set changes rules.
func (n *network) Set(r rule, ways ...direction) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range ways {
		n.rules[d] = r
	}
	n.change()
}

// Heal removes all rules.
func (n *network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.rules)
	n.change()
}

func (n *network) change() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Reset breaks all connections between nodes.
func (n *network) Reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.pipes {
		p.end()
	}
}

func (n *network) at(d direction) (rule, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rules[d], n.changed
}

// both are the two ways between a node and each of some others.
func both(a string, others ...string) (out []direction) {
	for _, b := range others {
		out = append(out, direction{a, b}, direction{b, a})
	}
	return out
}
