package otlp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	api "go.opentelemetry.io/otel/trace"
)

// parseContext reads a traceparent as W3C Trace Context has it: 00-TRACE-PARENT-FLAGS.
func parseContext(text string) (c api.SpanContext, ok bool) {
	parts := strings.Split(text, "-")
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" || parts[0] == "00" && len(parts) != 4 || strings.ToLower(text) != text {
		return c, false
	}
	id, err := api.TraceIDFromHex(parts[1])
	if err != nil {
		return c, false
	}
	parent, err := api.SpanIDFromHex(parts[2])
	if err != nil {
		return c, false
	}
	flags, err := hex.DecodeString(parts[3])
	if err != nil || len(flags) != 1 {
		return c, false
	}
	return api.NewSpanContext(api.SpanContextConfig{TraceID: id, SpanID: parent, TraceFlags: api.TraceFlags(flags[0]) & api.FlagsSampled, Remote: true}), true
}

// origin is where the spans of a message hang: the trace, and the span of its arrival from its publisher. Every node
// works out the same, from the publisher's context or from the place in the log, so that no node tells another.
type origin struct {
	trace    api.TraceID
	received api.SpanID
	parent   api.SpanContext // the publisher's; not valid: there is none
}

func digest(parts ...string) (sum [32]byte) {
	return sha256.Sum256([]byte(strings.Join(parts, "\x00")))
}

func (o origin) withSpan(message string) origin {
	sum := digest(string(o.trace[:]), o.parent.SpanID().String(), message)
	o.received = api.SpanID(sum[:8])
	return o
}

// originOf is that of a message with a trace context or an index; false: with neither only the node that it was
// published on knows.
func originOf(text, message string, index uint64) (origin, bool) {
	if parent, ok := parseContext(text); ok {
		return origin{trace: parent.TraceID(), parent: parent}.withSpan(message), true
	}
	if index == 0 {
		return origin{}, false
	}
	sum := digest("log", message, strconv.FormatUint(index, 10))
	return origin{trace: api.TraceID(sum[:16])}.withSpan(message), true
}

// newOrigin is that of a message that this node alone follows.
func newOrigin(message string) origin {
	var o origin
	_, _ = rand.Read(o.trace[:]) // it never fails
	return o.withSpan(message)
}

// wanted is the key of the ids that a span is to have.
type wanted struct{}

func want(ctx context.Context, o origin) context.Context { return context.WithValue(ctx, wanted{}, o) }

// ids gives a span the ids that its context asks for, else random ones.
type ids struct{}

// NewIDs implements sdk.IDGenerator.
func (ids) NewIDs(ctx context.Context) (api.TraceID, api.SpanID) {
	if o, ok := ctx.Value(wanted{}).(origin); ok {
		return o.trace, o.received
	}
	o := newOrigin("")
	return o.trace, o.received
}

// NewSpanID implements sdk.IDGenerator.
func (ids) NewSpanID(ctx context.Context, _ api.TraceID) (id api.SpanID) {
	if o, ok := ctx.Value(wanted{}).(origin); ok {
		return o.received
	}
	_, _ = rand.Read(id[:]) // it never fails
	return id
}
