// Package lease decides who may serve, and for how long.
//
// It owns both sides of the lease: the Holder, through which a node knows at any instant whether it
// may admit clients and acknowledge anything, and the Leader, which grants leases, gives the verdict
// on nodes that stopped renewing them, computes the watermark (the log index that every live
// incarnation has applied), and keeps the log's clock. The promise between the two: when a NodeDown is
// in the log, the lease of that incarnation has run out wherever the node is, asleep or cut off.
//
// It must never trust a wall clock for a lease (a suspended machine must wake without one, so time is
// CLOCK_BOOTTIME), never grant on a guess (the leader asks a majority first), and never touch the
// log other than through the small interface it is given.
package lease
