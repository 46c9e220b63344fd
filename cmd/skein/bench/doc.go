// Package bench is a load generator for MQTT brokers, ours and others: skein bench.
//
// It owns its clients (over node/conn, which gathers many packets into each write), the sequence
// numbers by which it counts what was lost, repeated or reordered, and the figures it reports. It must
// never be the bottleneck: packets are encoded once and patched, nothing is allocated for a message,
// and whoever reads what makes room for more publishes also writes these.
//
// It knows nothing of how a broker works: what it says about one holds for any.
package bench
