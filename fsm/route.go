package fsm

import "slices"

// Route is where a publish to a topic goes. It holds while RouteGeneration is what the route says,
// so callers keep routes and look up again when it has changed.
func (f *FSM) Route(topic string) Route {
	f.mu.RLock()
	defer f.mu.RUnlock()
	// Apply changes the generation only under the lock that we hold for reading.
	r := Route{Generation: f.generation.Load()}
	var scratch [16]*filter
	for _, fl := range f.topics.match(scratch[:0], topic) {
		r.Persistent = max(r.Persistent, fl.stats.highest())
		r.QueueQoS0 = r.QueueQoS0 || fl.stats.queue0 > 0
		r.Nodes = connectedNodes(r.Nodes, fl.nodes)
		for _, g := range fl.groups {
			nodes := connectedNodes(nil, g.nodes)
			persistent := g.stats.highest()
			if persistent == 0 && len(nodes) == 0 {
				continue // clean members of dead nodes
			}
			r.Persistent = max(r.Persistent, persistent)
			r.QueueQoS0 = r.QueueQoS0 || g.stats.queue0 > 0
			r.Shared = append(r.Shared, SharedRoute{
				Filter: fl.name, Group: g.name, Persistent: persistent, Nodes: nodes, Weights: weights(nodes, g.nodes),
			})
		}
	}
	return r
}

// connectedNodes adds the live nodes of a list to dst, each once.
func connectedNodes(dst []NodeRef, nodes []presence) []NodeRef {
	for i := range nodes {
		if inc := nodes[i].inc; inc.live && !slices.Contains(dst, inc.ref()) {
			dst = append(dst, inc.ref())
		}
	}
	return dst
}

// weights counts the connected members on each of the nodes.
func weights(refs []NodeRef, nodes []presence) []int {
	out := make([]int, len(refs))
	for i := range nodes {
		p := &nodes[i]
		if k := slices.Index(refs, p.inc.ref()); k >= 0 {
			out[k] += p.online + p.clean
		}
	}
	return out
}
