// Package replica is this node's replica of the log: Raft, its files, and the way of this node's
// commands into it.
//
// Commands of the node are gathered into batches, numbered within its incarnation, and carried to
// whoever leads, again and again until the node's own state machine has passed them; the state machine
// drops repeats and refuses gaps, so each is applied once. The result of a command comes from the
// local state machine too: who has it can read what it wrote.
//
// A commit is told to the followers at once (see Transport), not when Raft next has something to send.
//
// The package must not know sessions or MQTT, decide who is a member, give verdicts, or found a cluster
// by itself: package cluster does.
package replica
