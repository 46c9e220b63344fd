// Package auth decides who may connect and what they may do: user names and passwords in the files
// that mosquitto_passwd writes, access lists in the form of Mosquitto's acl_file, TLS identities.
//
// It owns the formats, the verdicts and the watching of its files: a file that changes is read again
// while the node runs, and one that can't be read leaves the last good one in force, with an error in
// the log. It must never log a secret, nor let the time that a verdict takes tell whether a user exists.
package auth
