// Package chaos attacks a cluster of real processes with faults while clients use it, and says
// whether what the broker promises held.
//
// It owns its parts, each in files of that name: traffic (clients that remember on their own what a
// client must, and what they send when), faults (what is done to nodes and to the network between
// them, and when), model (what must reach whom, by what the clients sent and were answered),
// validation (what reached them against it) and report. One seed is one schedule: of what the
// clients do, where they cut themselves off, and which fault follows which.
//
// It must never know how the broker works: it sees packets, exit codes, health, and what an
// operator may ask. What it cannot tell from outside (a message that was neither acknowledged nor
// delivered) is allowed. The clients encode packets with the test harness's codec, not the broker's.
package chaos
