// Package sim runs whole clusters inside one test: the real brokers, state machines and links of
// several nodes, with a log, leases, a network and clients that are simulated. One scheduler, the
// test, decides what happens next: which batch enters the log, who applies an entry, which message of
// a link arrives, whose lease ends, who dies. Time is the bubble's of testing/synctest, so nothing
// sleeps, and a seed replays a history exactly (not under the race detector, whose scheduler chooses
// at random).
//
// It owns what stands in for cluster, raft and sockets, and gives guarantees exactly as those do: no
// lease after a verdict, barriers by the watermark of live incarnations, results between the other
// effects of an entry. It must never promise more than they do, or bugs would hide behind it.
//
// Scenarios (of node/broker) use Run, which lets everything flow until nothing moves, and hold back
// what they want to look at. Random histories use the single steps.
package sim
