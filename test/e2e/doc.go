// Package e2e holds tests of whole clusters: real processes, killed, paused and cut, seen through
// MQTT alone. The quick ones are part of go test ./...; TEST_SKEIN_HEAVY=1 makes them longer.
//
// It must never look inside a broker: what a client or an operator can't see is tested elsewhere.
package e2e
