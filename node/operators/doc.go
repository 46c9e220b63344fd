// Package operators knows who may give orders to a node: the roles, the tokens and certificates that stand
// for them, and the audit log of what was ordered.
//
// It owns the file of operators, the TLS of the ports that operators use, and the verdict on a caller. It must
// never know the orders themselves: those who take them say which role each one needs. It must never keep or
// log a token.
package operators
