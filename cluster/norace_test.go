//go:build !race

package cluster

// slack stretches the timeouts where the race detector slows everything down. Without it they are the
// defaults.
const slack = 1
