//go:build race

package cluster

// slack stretches the timeouts where the race detector slows everything down.
const slack = 4
