// Package session is the protocol state of one connected MQTT session: what is in flight in each
// direction, which packet ids are taken, what may be sent next and which acknowledgement leaves
// next. It is pure: packets and results go in, encoded packets and small decisions come out.
//
// It owns no socket, no clock, no goroutine and no lock (its caller holds the connection's), and
// it never talks to the log: it says what must be committed, and is told when it was.
package session
