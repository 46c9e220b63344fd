package client

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Publish is what 'skein pub' does.
type Publish struct {
	Config
	// Next gives the messages in turn, io.EOF behind the last one. It may block; PacketID and Dup are
	// not its own to set.
	Next func() (mqtt.Publish, error)
}

// Run publishes all messages and returns when the last one is acknowledged. A message that the broker
// refuses is reported and ends it.
func (p *Publish) Run(ctx context.Context) error {
	s := &session{cfg: p.Config, deliver: func(*mqtt.Publish) {}}
	if err := s.connect(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, failed := make(chan mqtt.Publish), make(chan error, 1)
	go func() { // ends with the last message, or when nobody takes it any more
		for {
			m, err := p.Next()
			if err != nil {
				failed <- err
				return
			}
			select {
			case messages <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	ping := ticker(p.KeepAlive)
	defer ping.Stop()
	over := false
	for !over || len(s.inflight) > 0 {
		source := messages
		if over || len(s.inflight) >= s.window {
			source = nil
		}
		select {
		case <-ctx.Done():
			s.goodbye()
			return ctx.Err()
		case m := <-source:
			s.publish(m)
		case err := <-failed:
			if over = true; !errors.Is(err, io.EOF) {
				s.goodbye()
				return err
			}
		case <-ping.C:
			s.send((&mqtt.Pingreq{}).Append(nil, p.Version))
		case m := <-s.in:
			if err := s.take(ctx, m); err != nil {
				s.goodbye()
				return err
			}
		}
	}
	s.goodbye()
	return nil
}

// take handles a packet, and connects again where the connection has ended.
func (s *session) take(ctx context.Context, m packet) error {
	err := m.err
	if err == nil {
		_, err = s.handle(m)
	}
	if err == nil || errors.Is(err, errMessage) {
		return err
	}
	s.log("connection lost: %v", err)
	s.drop()
	s.next++
	return s.connect(ctx)
}

// ticker is for PINGREQ: well within the keep alive.
func ticker(keepAlive uint16) *time.Ticker {
	if keepAlive == 0 {
		t := time.NewTicker(time.Hour)
		t.Stop()
		return t
	}
	return time.NewTicker(time.Duration(keepAlive) * time.Second / 2)
}
