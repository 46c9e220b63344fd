// Package membership finds the other nodes by gossip and tells them where this one can be reached.
//
// It owns the gossip (hashicorp/memberlist), the notes that each node hands round about itself, and
// the search for nodes to join, which goes on for as long as the node runs: names that resolve to
// several addresses, nodes that start later, a cluster that was cut in two.
//
// It must never decide who is a member of the log, nor who is alive: gossip is a hint about where to
// look, and a wrong one must cost nothing but time.
package membership
