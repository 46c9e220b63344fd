package run

import (
	"context"
	"sync"

	"github.com/skein-mqtt/skein/cmd/skein/version"
	"github.com/skein-mqtt/skein/node/otlp"
)

// export exports traces until ctx ends, if there is a collector for them.
func (n *node) export(ctx context.Context, group *sync.WaitGroup) error {
	if n.cfg.OTLP.Endpoint == "" {
		return nil
	}
	e, err := otlp.Open(otlp.Config{
		Endpoint: n.cfg.OTLP.Endpoint, Sample: n.cfg.OTLP.Sample, Node: n.id, Version: version.Number, Tracer: &n.tracer, Logger: n.logger,
	})
	if err != nil {
		return err
	}
	group.Go(func() { e.Run(ctx) })
	return nil
}
