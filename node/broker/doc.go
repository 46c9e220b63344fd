// Package broker is the MQTT broker of one node: who is connected here, what becomes of each of
// their packets, which road a publish takes, and what reaches whom.
//
// It owns the clients of this node (one for each connection), the subscriptions that matter here
// (those of clean clients, and those of connected sessions for messages at QoS 0), the interests that
// tell the other nodes about them, and the counters of what was dropped. A PUBLISH reads as a
// straight line: client.packet → publish → route → the log or the links → deliver → session → conn.
//
// It must never speak before the log has: each packet that promises something leaves when what it
// promises is committed and applied here, and only while the node holds a lease. It knows neither
// raft nor how frames travel; nothing in it waits for a socket, the log or a link: completions come
// on the goroutine that applies the log, on a link's or on the lease's, and none of them may block.
//
// Locks, in the order in which they may be held together: a hold (held frames of one node), a
// connection's, then any of the small tables' own. No two connections' locks are ever held together.
package broker
