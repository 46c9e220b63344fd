package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/skein-mqtt/skein/cluster/membership"
)

func blank(id, founder string) membership.Node {
	return membership.Node{ID: id, Store: "s" + id, Peer: id + ":1", Expect: 3, Founder: founder}
}

func existing(id string) membership.Node {
	n := blank(id, "")
	n.Exists = true
	return n
}

func expecting(id string, expect int) membership.Node {
	n := blank(id, "")
	n.Expect = expect
	return n
}

func TestChoose(t *testing.T) {
	for _, test := range []struct {
		what   string
		named  string // by b, which the test is about
		others []membership.Node
		name   string
		found  string
	}{
		{"alone", "", nil, "", ""},
		{"too few", "", []membership.Node{blank("a", "")}, "", ""},
		{"enough: the lowest id", "", []membership.Node{blank("a", ""), blank("c", "")}, "a", ""},
		{"the lowest is this one", "", []membership.Node{blank("c", ""), blank("d", "")}, "b", ""},
		{"another expectation does not count", "", []membership.Node{blank("a", ""), expecting("c", 5)}, "", ""},
		{"a cluster exists", "", []membership.Node{blank("a", ""), existing("c")}, "", ""},
		{"it exists, though enough name this one", "b", []membership.Node{blank("c", "b"), blank("d", "b"), existing("e")}, "b", ""},
		{"named by too few", "b", []membership.Node{blank("c", "b"), blank("d", "")}, "b", ""},
		{"named by enough", "b", []membership.Node{blank("c", "b"), blank("d", "b")}, "b", "b c d"},
		{"no more found it than are to", "b", []membership.Node{blank("e", "b"), blank("d", "b"), blank("c", "b")}, "b", "b c d"},
		{"a lower one came late", "b", []membership.Node{blank("a", ""), blank("c", "b"), blank("d", "b")}, "b", "b c d"},
		{"a lower founder", "b", []membership.Node{blank("a", "a"), blank("c", "b")}, "a", ""},
		{"a lower founder, though enough name this one", "b", []membership.Node{blank("a", "a"), blank("c", "b"), blank("d", "b")}, "a", ""},
		{"the named one is out of sight", "a", []membership.Node{blank("c", "b"), blank("d", "b")}, "a", ""},
		{"the named one has named another", "c", []membership.Node{blank("a", "a"), blank("c", "a")}, "a", ""},
		{"the named one has not named yet", "a", []membership.Node{blank("a", ""), blank("c", "b")}, "a", ""},
	} {
		f := founding{named: test.named}
		name, founders := f.choose(blank("b", test.named), test.others)
		var found string
		for i, n := range founders {
			if i > 0 {
				found += " "
			}
			found += n.ID
		}
		if name != test.name || found != test.found {
			t.Errorf("%s: named %q, founded %q, want %q, %q", test.what, name, found, test.name, test.found)
		}
	}
	// What was not told yet, the others can't have counted.
	if _, founders := (founding{named: "b"}).choose(blank("b", ""), []membership.Node{blank("c", "b"), blank("d", "b")}); founders != nil {
		t.Errorf("founded in secret: %v", founders)
	}
}

// TestFoundingOnce: fewer than twice as many nodes as a cluster begins with never found two, however
// late and partial the news are, also when nodes restart; and when all hear of each other, they found one.
func TestFoundingOnce(t *testing.T) {
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 1))
		count := 3 + min(2, r.IntN(4))
		type blankNode struct {
			founding                            // what is on its disk
			told     string                     // what its notes say
			view     map[string]membership.Node // what it has heard
			founded  bool
		}
		nodes := make(map[string]*blankNode)
		var ids []string
		for i := range count {
			id := fmt.Sprintf("n%d", i)
			ids = append(ids, id)
			nodes[id] = &blankNode{view: make(map[string]membership.Node)}
		}
		notes := func(id string) membership.Node {
			n := blank(id, nodes[id].told)
			n.Exists = nodes[id].founded
			return n
		}
		var clusters []string
		step := func(id string) {
			n := nodes[id]
			if n.founded {
				return
			}
			var others []membership.Node
			for _, other := range n.view {
				others = append(others, other)
			}
			name, founders := n.choose(notes(id), others)
			if n.named = name; r.IntN(3) > 0 {
				n.told = name // told late at times
			}
			if founders != nil {
				n.founded = true
				clusters = append(clusters, id)
				if len(founders) != 3 || founders[0].ID != id {
					t.Fatalf("seed %d: founders %v", seed, founders)
				}
			}
		}
		cut := make(map[[2]string]bool) // who does not hear whom
		for i := range 30 * count {
			if i%(10*count) == 0 {
				for _, id := range ids {
					for _, other := range ids {
						pair := [2]string{id, other}
						if cut[pair] = r.IntN(2) == 0; cut[pair] {
							delete(nodes[id].view, other)
						}
					}
				}
			}
			id := ids[r.IntN(count)]
			switch r.IntN(12) {
			case 0: // it restarts: only the disk is left
				nodes[id].told = nodes[id].named
				nodes[id].view = make(map[string]membership.Node)
			case 1: // it loses sight of another
				delete(nodes[id].view, ids[r.IntN(count)])
			case 2, 3, 4, 5, 6:
				if other := ids[r.IntN(count)]; other != id && !cut[[2]string{id, other}] {
					nodes[id].view[other] = notes(other)
				}
			default:
				step(id)
			}
		}
		for range 10 { // calm: everybody hears everything
			for _, id := range ids {
				for _, other := range ids {
					if other != id {
						nodes[id].view[other] = notes(other)
					}
				}
			}
			for _, id := range ids {
				step(id)
			}
		}
		if len(clusters) != 1 {
			t.Fatalf("seed %d: %d nodes founded %v", seed, count, clusters)
		}
		if !slices.Contains(ids, clusters[0]) {
			t.Fatal("nobody")
		}
	}
}
