// Package topic owns the rules of topic names and topic filters: which are valid, which filter
// matches which name, and two indexes over them, from filters to subscribers (Tree) and from names
// to values (NameTree). It knows nothing of packets, sessions or access control, takes no locks
// and starts nothing: callers guard what they share.
package topic
