package link

import (
	"cmp"
	"slices"
)

// Stats is what metrics tell of the link to one node.
type Stats struct {
	Node      string
	Connected bool // a stream stands and its receiver has answered
	Congested bool // publishers pause
	Unacked   int  // bytes that are queued or not acknowledged
}

// Stats reads the links to the newest incarnations, by node.
func (l *Links) Stats() (list []Stats) {
	for node, k := range l.out.Load().byNode {
		k.mu.Lock()
		list = append(list, Stats{Node: node, Connected: k.connected, Congested: k.congested.Load(), Unacked: k.keptBytes + k.loose})
		k.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b Stats) int { return cmp.Compare(a.Node, b.Node) })
	return list
}
