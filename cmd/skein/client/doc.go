// Package client is 'skein pub' and 'skein sub': an MQTT client for people and scripts, which goes on
// with its session on the next of several addresses when a connection breaks.
//
// It owns the client's half of a session for as long as the process lives: what is in flight is sent
// again, in order, and a QoS 2 message is printed once. It must never keep anything on disk: a session
// that is resumed by another process begins with an empty memory.
package client
