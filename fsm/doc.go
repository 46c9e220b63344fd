// Package fsm is the replicated state of the cluster: every session, clean client, subscription,
// queued message, retained message, will, user, role, ban and member, as one deterministic state machine that is
// driven by one log.
//
// It owns the commands of the log (package fsmpb says how they look), what they do to the state,
// what they ask of the node that applies them (Effect), the snapshot of the state and the reads
// of it. Two replicas that have applied the same entries are equal, whichever node they run on and
// whether or not one of them came from a snapshot: their Hash is the same.
//
// It must never look at a clock, draw a random number, let the order of a map decide anything,
// start a goroutine, do I/O other than on the reader and writer of a snapshot, or read a node's
// configuration. Time is the log's clock: the largest stamp that the log has carried. The name of
// the node only decides which effects are handed out, never what the state becomes.
//
// What the entry's bytes hold belongs to raft: Apply copies everything that it keeps.
package fsm
