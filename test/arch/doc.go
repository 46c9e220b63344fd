// Package arch keeps the rules of the project's structure as tests: who may import whom, what must not
// be called where, that every package says what it owns.
//
// It reads the files themselves. A test that asked the go command for the imports would be answered from
// the cache after a violation came in. It must never run, build or import what it looks at.
package arch
