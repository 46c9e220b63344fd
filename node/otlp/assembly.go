package otlp

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	api "go.opentelemetry.io/otel/trace"

	"github.com/skein-mqtt/skein/node/trace"
)

const (
	// limit bounds the messages, and the deliveries, that are put together at a time.
	limit = 10_000
	// linkPatience is how long a message on the link road may bring further steps; logPatience, how long a commit may take.
	linkPatience = 2 * time.Second
	logPatience  = 30 * time.Second
)

// assembly makes spans of steps. It belongs to one goroutine.
type assembly struct {
	tracer     api.Tracer
	arrivals   map[string]*arrival // by message
	deliveries map[delivery]*sent
}

// arrival is a message from a publisher of this node until it is committed, or taken by the links.
type arrival struct {
	first trace.Step // received
	own   origin     // where it hangs unless the log says otherwise
	road  trace.Step
	last  int64
	held  []trace.Step
}

type delivery struct {
	client string
	id     uint16
}

// sent is a delivery that is not acknowledged yet.
type sent struct {
	step trace.Step
	at   origin
	recs int64 // when PUBREC came
}

func newAssembly(t api.Tracer) *assembly {
	return &assembly{tracer: t, arrivals: make(map[string]*arrival), deliveries: make(map[delivery]*sent)}
}

func moment(ns int64) time.Time { return time.Unix(0, ns) }

// step takes the next step of a message.
func (a *assembly) step(s *trace.Step) {
	m := a.arrivals[s.Message]
	if m != nil {
		m.last = s.Time
	}
	switch s.Kind {
	case "received":
		a.received(s)
	case "road":
		if m != nil {
			m.road = *s
		}
	case "held":
		if m != nil {
			m.held = append(m.held, *s)
		}
	case "committed", "taken":
		if m != nil {
			a.arrived(m, s)
		}
	case trace.Sent:
		a.sent(s, m)
	case "acknowledged":
		a.acknowledged(s)
	case "dropped":
		a.dropped(s, m)
	}
}

func (a *assembly) received(s *trace.Step) {
	if old := a.arrivals[s.Message]; old != nil { // an equal message, or it is sent again
		a.arrived(old, nil)
	}
	if len(a.arrivals) >= limit {
		return
	}
	o, ok := originOf(s.Context, s.Message, 0)
	if !ok {
		o = newOrigin(s.Message)
	}
	a.arrivals[s.Message] = &arrival{first: *s, own: o, last: s.Time}
}

// arrived makes the spans of what a publisher sent. by is the step that ended it; nil: none came.
func (a *assembly) arrived(m *arrival, by *trace.Step) {
	delete(a.arrivals, m.first.Message)
	o := m.own
	if by != nil && by.Index != 0 {
		o, _ = originOf(m.first.Context, m.first.Message, by.Index)
	}
	ctx := context.Background()
	if o.parent.IsValid() {
		ctx = api.ContextWithRemoteSpanContext(ctx, o.parent)
	}
	ctx, span := a.tracer.Start(want(ctx, o), "received", api.WithTimestamp(moment(m.first.Time)), api.WithSpanKind(api.SpanKindServer),
		api.WithAttributes(append(about(&m.first), attribute.String("messaging.client.id", m.first.Publisher), attribute.String("skein.received", m.first.Detail))...))
	for i := range m.held {
		span.AddEvent("held", api.WithTimestamp(moment(m.held[i].Time)), api.WithAttributes(attribute.String("skein.detail", m.held[i].Detail)))
	}
	if m.road.Detail != "" {
		span.SetAttributes(attribute.String("skein.road", m.road.Detail))
	}
	if by != nil {
		name := map[string]string{"committed": "commit", "taken": "link"}[by.Kind]
		child := context.WithValue(ctx, wanted{}, nil)
		_, part := a.tracer.Start(child, name, api.WithTimestamp(moment(by.Time-by.Took)), api.WithAttributes(attribute.String("skein.detail", by.Detail)))
		if by.Index != 0 {
			part.SetAttributes(attribute.Int64("skein.log.index", int64(by.Index)))
		}
		part.End(api.WithTimestamp(moment(by.Time)))
	} else if len(m.road.Detail) > 3 && m.road.Detail[:3] == "log" {
		span.SetStatus(codes.Error, "it was not committed in time")
	}
	span.End(api.WithTimestamp(moment(m.last)))
}

// about are the attributes that each span of a message has.
func about(s *trace.Step) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "mqtt"), attribute.String("messaging.destination.name", s.Topic),
		attribute.Int("mqtt.qos", int(s.QoS)), attribute.String("skein.message", s.Message),
	}
}

// hangs tells where a step at a subscriber belongs.
func hangs(s *trace.Step, m *arrival) (origin, bool) {
	if o, ok := originOf(s.Context, s.Message, s.Index); ok {
		return o, true
	}
	if m != nil {
		return m.own, true
	}
	return origin{}, false
}

func (a *assembly) sent(s *trace.Step, m *arrival) {
	o, ok := hangs(s, m)
	if !ok { // of another node's, without a context
		return
	}
	d := &sent{step: *s, at: o}
	if s.PacketID == 0 {
		a.delivered(d, s.Time, "")
		return
	}
	if len(a.deliveries) < limit {
		a.deliveries[delivery{s.Client, s.PacketID}] = d
	}
}

func (a *assembly) acknowledged(s *trace.Step) {
	k := delivery{s.Client, s.PacketID}
	d := a.deliveries[k]
	switch {
	case d == nil:
	case s.Detail == "PUBREC":
		d.recs = s.Time
	default:
		delete(a.deliveries, k)
		a.delivered(d, s.Time, "")
	}
}

// delivered makes the span of a delivery. lost is why it was none.
func (a *assembly) delivered(d *sent, end int64, lost string) {
	parent := api.NewSpanContext(api.SpanContextConfig{TraceID: d.at.trace, SpanID: d.at.received, TraceFlags: api.FlagsSampled, Remote: true})
	_, span := a.tracer.Start(api.ContextWithRemoteSpanContext(context.Background(), parent), "delivered", api.WithTimestamp(moment(d.step.Time)),
		api.WithSpanKind(api.SpanKindClient), api.WithAttributes(append(about(&d.step), attribute.String("messaging.client.id", d.step.Client))...))
	if d.step.Index != 0 {
		span.SetAttributes(attribute.Int64("skein.log.index", int64(d.step.Index)))
	}
	if d.recs != 0 {
		span.AddEvent("PUBREC", api.WithTimestamp(moment(d.recs)))
	}
	if lost != "" {
		span.SetStatus(codes.Error, lost)
	}
	span.End(api.WithTimestamp(moment(end)))
}

// dropped tells of a delivery that there will be none of, or of a publish that was refused.
func (a *assembly) dropped(s *trace.Step, m *arrival) {
	if m != nil && s.Client == s.Publisher && m.road.Detail == "" {
		m.road.Detail = "none: " + s.Detail
		a.arrived(m, nil)
		return
	}
	if o, ok := hangs(s, m); ok {
		a.delivered(&sent{step: *s, at: o}, s.Time, s.Detail)
	}
}

// expire gives up waiting for what should have come before now; zero: for all.
func (a *assembly) expire(now time.Time) {
	due := func(at int64, patience time.Duration) bool { return now.IsZero() || now.Sub(moment(at)) > patience }
	for _, m := range a.arrivals {
		patience := linkPatience
		if len(m.road.Detail) > 3 && m.road.Detail[:3] == "log" {
			patience = logPatience
		}
		if due(m.last, patience) {
			a.arrived(m, nil)
		}
	}
	for k, d := range a.deliveries {
		if due(d.step.Time, logPatience) {
			delete(a.deliveries, k)
			a.delivered(d, max(d.step.Time, d.recs), "it was not acknowledged in time")
		}
	}
}
