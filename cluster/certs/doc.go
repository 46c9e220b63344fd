// Package certs is what nodes prove themselves to each other with: an authority of the cluster's own, the
// certificates that it issues to nodes and operators, and the TLS between nodes.
//
// It owns files, names and validity of certificates, and the verdict on who is at the other end. It must never
// take a certificate for more than its name says (an operator's is no node's), and never fall back to plain text.
//
// Between nodes nothing is verified by host names: nodes move. A certificate says which node of which cluster its
// bearer is (package certname), and the cluster's authority signed it.
package certs
