// Package fsmpb is the language of the replicated log: the commands of nodes, gathered in batches, and
// those of the leader. All of it but this file is generated from fsm.proto by scripts/generate.
//
// Everything that applying a command reads is in the command or in replicated state; a field's number is
// never used again, and a binary stops at one that it does not know. It must never hold logic.
package fsmpb
