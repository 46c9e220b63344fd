// Package otlp exports what becomes of sampled publishes as OpenTelemetry traces.
//
// It owns the sampling, the assembly of a message's steps (package trace) into spans, and the connection to the
// collector. It must never hold a message up: a collector that is slow or away costs spans, nothing else.
package otlp
