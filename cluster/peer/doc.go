// Package peer is the port that nodes talk to each other through: one listener for raft and for gRPC,
// and the connections to the ports of the others.
//
// It owns the greeting that begins every connection (which cluster, what for, meant for whom), the
// gRPC server and its limits, the pool of gRPC clients, and the detection of peers that are cut off.
//
// It must never let a node of another cluster in, never hand a raft stream to a server that it was
// not meant for (with a blank disk a node has another server id, and what the old one promised is
// gone), and never block a caller of the pool.
package peer
