package cluster

import (
	"slices"
	"strings"

	"github.com/skein-mqtt/skein/cluster/membership"
)

// founding is how blank nodes agree on who founds the cluster, and with whom. Each names a founder in
// its notes, on its disk first. A founder needs as many nodes that name it as the cluster is to begin
// with, itself among them. A node changes its mind only when the founder that it named has named
// another, and a founder only before it has founded, for a lower id: so whoever was counted stays with
// its founder, and two founders would take twice as many blank nodes. pure: state in, choice out.
type founding struct {
	named string // node id of the founder that this node has named; on its disk
}

// choose looks at the other nodes: whom to name from now on, and, once enough name this node, who
// founds the cluster, this node first. self is what this node has told, so its Founder is what the
// others can see.
func (f founding) choose(self membership.Node, others []membership.Node) (name string, founders []membership.Node) {
	blank := make(map[string]membership.Node)
	for _, n := range others {
		if n.Exists {
			return f.named, nil // there is a cluster: it is joined
		}
		if n.Expect == self.Expect && n.ID != self.ID {
			blank[n.ID] = n
		}
	}
	name = f.named
	switch named, known := blank[f.named]; {
	case f.named == "":
		if len(blank)+1 >= self.Expect {
			name = self.ID
			for id := range blank {
				name = min(name, id)
			}
		}
	case f.named == self.ID:
		for id, n := range blank {
			if n.Founder == id {
				name = min(name, id)
			}
		}
	case known && named.Founder != "":
		name = named.Founder
	}
	if name != self.ID || f.named != self.ID || self.Founder != self.ID {
		return name, nil
	}
	for _, n := range blank {
		if n.Founder == self.ID {
			founders = append(founders, n)
		}
	}
	if len(founders)+1 < self.Expect {
		return name, nil
	}
	slices.SortFunc(founders, func(a, b membership.Node) int { return strings.Compare(a.ID, b.ID) })
	return name, append([]membership.Node{self}, founders[:self.Expect-1]...)
}
