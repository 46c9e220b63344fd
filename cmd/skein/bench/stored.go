package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// anyNumber of deliveries that are not waited for.
const anyNumber = 1 << 62

// stored publishes what the broker has to keep, and then measures how fast it hands it out: retained
// messages to who subscribes, or the queues of sessions to who comes back.
func (r *run) stored(ctx context.Context) (*Result, error) {
	if err := r.fill(ctx); err != nil {
		return nil, err
	}
	cfg := &r.cfg
	before, err := look(cfg.PIDs)
	if err != nil {
		return nil, err
	}
	r.recording.Store(true)
	begin := time.Now()
	err = each(len(r.subscribers), len(r.subscribers), func(i int) error {
		s := r.subscribers[i]
		s.asked.Store(now())
		if err := s.dial(cfg.SubAddrs[i%len(cfg.SubAddrs)], cfg, cfg.Persistent); err != nil || cfg.Mode == Replay {
			return err
		}
		return s.subscribe(cfg.QoS, r.filter(i))
	})
	last := begin
	if err == nil {
		last, err = r.settle(ctx)
	}
	after, lookErr := look(cfg.PIDs)
	r.recording.Store(false)
	after.at = last
	r.finish()
	res := r.result()
	res.Delivered = r.received()
	if cfg.Mode == Retained {
		res.Reordered = 0 // the order of retained messages means nothing
	}
	if lookErr == nil {
		res.take(&after, &before, cfg.PIDs)
	}
	return res, errors.Join(err, lookErr)
}

// fill publishes all messages and waits until the broker has answered for them.
func (r *run) fill(ctx context.Context) error {
	for _, p := range r.publishers {
		p.forgiven.Store(anyNumber)
	}
	r.pace = pace{begin: now(), n: len(r.publishers)}
	r.publishing.Store(true)
	ba := conn.NewBatch()
	for _, p := range r.publishers {
		p.pump(now(), ba)
		ba.Flush()
	}
	moved := time.Now()
	for acked := uint64(0); !r.complete() || r.unacked(); {
		if err := r.wait(ctx, 2*time.Millisecond, nil); err != nil {
			return err
		}
		n := uint64(0)
		for _, p := range r.publishers {
			n += p.sent.Load() - uint64(p.unacked.Load())
		}
		if n != acked {
			acked, moved = n, time.Now()
		}
		if time.Since(moved) > r.cfg.Drain {
			return fmt.Errorf("bench: the broker has acknowledged %d messages of %d, and no more within %s", n, r.cfg.Count, r.cfg.Drain)
		}
	}
	r.publishing.Store(false)
	return nil
}

// forget removes the retained messages.
func (r *run) forget() {
	cfg := r.cfg
	cfg.Payload = 0
	_ = each(len(r.publishers), 50, func(i int) error {
		c := &client{id: fmt.Sprintf("%s-f%d", r.name, i), ready: make(chan error, 1)}
		if err := c.dial(cfg.PubAddrs[i%len(cfg.PubAddrs)], &cfg, false); err != nil {
			return err
		}
		defer c.close()
		topics, at := r.publishers[i].topics, r.publishers[i].topicAt
		template := r.publishers[i].template
		name := append([]byte(nil), template[at-len(r.topic(i))-1:at+digits]...)
		for k := range topics {
			number(name[len(name)-digits:], k)
			c.write(func(out []byte) []byte {
				out, _ = mqtt.AppendPublish(out, cfg.Version, mqtt.PublishHeader{Retain: true}, string(name), nil, nil, nil)
				return out
			})
		}
		return nil
	})
}

// digits is how long the number is with which the topics of a publisher that has many end.
const digits = 7

// number writes k as decimal digits that fill b.
func number(b []byte, k int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + k%10)
		k /= 10
	}
}
