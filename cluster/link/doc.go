// Package link carries publishes from one node to another: the link road.
//
// It owns one ordered stream per ordered pair of nodes, the frames of QoS 1 and 2 that a peer has
// not acknowledged yet, and, as a receiver, how far each origin's frames were taken. Every frame of
// QoS 1 and 2 is delivered once, in order, or its target's incarnation ends: across broken streams by
// sending again and by sequence numbers without gaps, across a network that is cut by relaying
// through the log.
//
// It must never wait for a peer on a caller's goroutine, never know what an MQTT session is, and
// never acknowledge a frame that this node has not checked (lease, epoch) and handed on.
package link
