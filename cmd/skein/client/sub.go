package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Subscribe is what 'skein sub' does.
type Subscribe struct {
	Config
	Filters []mqtt.Subscription
	Count   int           // messages after which it ends; 0: none
	Wait    time.Duration // after which it ends; 0: never
	// Only makes the session and its subscriptions, and ends.
	Only bool
	// Deliver gets each message, a QoS 2 message once. An error ends it.
	Deliver func(p *mqtt.Publish) error
}

// ErrWait: Wait was over before Count messages had arrived.
var ErrWait = errors.New("time is up")

// Run subscribes and hands on what arrives until it is enough, ctx ends, or Deliver fails.
func (c *Subscribe) Run(ctx context.Context) error {
	seen := 0
	var failed error
	s := &session{cfg: c.Config}
	s.deliver = func(p *mqtt.Publish) {
		seen++
		if failed == nil {
			failed = c.Deliver(p)
		}
	}
	subscribed := false
	s.resumed = func(present bool) error {
		if subscribed && !present && !c.Clean {
			s.log("%v", errLost)
		}
		if !present || !subscribed {
			p := &mqtt.Subscribe{PacketID: s.id(), Filters: c.Filters}
			s.send(p.Append(nil, c.Version))
		}
		return nil
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	defer s.goodbye()
	ping := ticker(c.KeepAlive)
	defer ping.Stop()
	var wait <-chan time.Time
	if c.Wait > 0 {
		wait = time.After(c.Wait)
	}
	for failed == nil && (c.Count == 0 || seen < c.Count) {
		select {
		case <-ctx.Done():
			return nil
		case <-wait:
			if c.Count > 0 {
				return fmt.Errorf("%w: %d of %d messages", ErrWait, seen, c.Count)
			}
			return nil
		case <-ping.C:
			s.send((&mqtt.Pingreq{}).Append(nil, c.Version))
		case m := <-s.in:
			if m.err == nil && mqtt.TypeOf(m.first) == mqtt.SUBACK {
				if err := c.granted(m); err != nil {
					return err
				}
				if subscribed = true; c.Only {
					return nil
				}
				continue
			}
			if err := s.take(ctx, m); err != nil {
				return err
			}
		}
	}
	return failed
}

// granted looks at a SUBACK: a filter that is refused ends it.
func (c *Subscribe) granted(m packet) error {
	var a mqtt.Suback
	if err := a.Decode(c.Version, m.first, m.body); err != nil {
		return err
	}
	for i, code := range a.Codes {
		if code >= 0x80 && i < len(c.Filters) {
			return fmt.Errorf("subscription to %s refused: %s", c.Filters[i].Filter, mqtt.ReasonCode(code))
		}
	}
	return nil
}
