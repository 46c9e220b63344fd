// Package conformance holds transcripts of what the specifications of MQTT ask of a server, and the
// tables of their statements.
//
// A transcript under testdata drives real nodes with one client action to a line and shows every
// packet that arrives because of it. Each runs twice, with the same result: against one node, and
// with each client on another node of a cluster of three. Those under testdata/limits run against a
// node that allows less. A case names the statements that it holds; the tables under clauses list
// them all, in our own words.
//
// It owns transcripts, the language that they are written in, and the tables. It must never know what
// a broker does inside, and it decodes what it gets with the harness's own codec.
package conformance
