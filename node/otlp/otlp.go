package otlp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/skein-mqtt/skein/node/trace"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Config is what an exporter needs.
type Config struct {
	Endpoint string  // of the collector, OTLP by gRPC: http://HOST:PORT, https:// with TLS
	Sample   float64 // this part of the publishes that bring no trace context, 0 to 1
	Node     string
	Version  string
	Tracer   *trace.Tracer
	Logger   *slog.Logger
}

const (
	// stepRate bounds the steps a second that are looked at. Clients choose with their trace contexts what is followed.
	stepRate = 5000
	// lastWords is how long the collector may take for what is left when the node ends.
	lastWords = 2 * time.Second
	sweep     = time.Second
)

// Exporter follows sampled publishes from Open on.
type Exporter struct {
	cfg      Config
	tap      *trace.Tap
	client   sdk.SpanExporter
	provider *sdk.TracerProvider
	assembly *assembly
}

// Open begins to follow publishes. Run exports them.
func Open(cfg Config) (*Exporter, error) {
	client, err := otlptracegrpc.New(context.Background(), otlptracegrpc.WithEndpointURL(cfg.Endpoint)) // it connects later
	if err != nil {
		return nil, fmt.Errorf("otlp.endpoint: %w", err)
	}
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(reporter{SpanExporter: client, cfg: &cfg, logged: new(time.Time)}, sdk.WithBatchTimeout(sweep)), sdk.WithIDGenerator(ids{}), sdk.WithSampler(sdk.AlwaysSample()),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "skein"), attribute.String("service.instance.id", cfg.Node), attribute.String("service.version", cfg.Version),
		)),
	)
	tap, err := cfg.Tracer.Open(trace.Rule{Rate: stepRate, Choose: choice(cfg.Sample)})
	if err != nil {
		return nil, errors.Join(err, provider.Shutdown(context.Background()))
	}
	return &Exporter{cfg: cfg, tap: tap, client: client, provider: provider, assembly: newAssembly(provider.Tracer("skein"))}, nil
}

// choice picks messages: as the publisher's trace context says, else a part of them, the same on every node.
func choice(sample float64) func(*trace.Subject, uint64) (string, bool) {
	return func(s *trace.Subject, id uint64) (string, bool) {
		if text, ok := mqtt.UserValue(s.Props, "traceparent"); ok {
			if c, ok := parseContext(text); ok {
				return text, c.IsSampled()
			}
		}
		return "", trace.Sampled(id, sample)
	}
}

// Run exports until ctx ends, and then what is left.
func (e *Exporter) Run(ctx context.Context) {
	tick := time.NewTicker(sweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			e.tap.Close()
			e.assembly.expire(time.Time{})
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
			defer cancel()
			if err := e.provider.Shutdown(last); err != nil {
				_ = e.client.Shutdown(last) // what it still tries is cut short
				e.cfg.Logger.Warn("the last traces could not be exported", "endpoint", e.cfg.Endpoint, "error", err)
			}
			return
		case step := <-e.tap.C:
			e.assembly.step(&step)
		case now := <-tick.C:
			e.assembly.expire(now)
		}
	}
}

// reporter logs that spans can't be exported, now and then.
type reporter struct {
	sdk.SpanExporter
	cfg    *Config
	logged *time.Time // the batcher calls from one goroutine
}

// ExportSpans implements sdk.SpanExporter.
func (r reporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	if err != nil && time.Since(*r.logged) > time.Minute {
		*r.logged = time.Now()
		r.cfg.Logger.Warn("traces can't be exported: they are lost", "endpoint", r.cfg.Endpoint, "spans", len(spans), "error", err)
	}
	return nil // it is told; nobody else could do anything about it
}
