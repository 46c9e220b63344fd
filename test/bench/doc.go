// Package bench keeps the budgets of the hot paths: what a delivery may allocate, as tests that are
// exact, and what it costs, as benchmarks.
//
// It owns a node without a disk and without peers, whose log is applied at once, so that nothing runs
// beside what is measured. It must never fail because of time: a busy machine is not a regression.
package bench
