//go:build race

package bench

// raceDetector: its pools lose things on purpose, so nothing can be said about allocations.
const raceDetector = true
