package lease

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// Stream is the node's end of a Lease stream.
type Stream interface {
	Send(*clusterpb.LeaseRequest) error
	Recv() (*clusterpb.LeaseReply, error)
}

// Way leads to the current leader.
type Way interface {
	// Leader names the current leader, as far as this node knows; empty: none.
	Leader() string
	// Moved holds a token after another node became the leader.
	Moved() <-chan struct{}
	// Open opens a stream to it that ends with ctx.
	Open(ctx context.Context) (Stream, error)
}

// lookAgain is how often a node without a leader looks for one.
const lookAgain = 10 * time.Millisecond

// beats is how often in its duration a lease is renewed.
const beats = 4

// Run keeps a stream to the leader until ctx ends: requests several times per lease, reports at once
// when asked for.
func (h *Holder) Run(ctx context.Context, way Way) {
	for ctx.Err() == nil {
		if leader := way.Leader(); leader != "" {
			if err := h.converse(ctx, way, leader); err != nil && ctx.Err() == nil {
				h.cfg.Logger.Debug("lease stream ended", "leader", leader, "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookAgain):
		}
	}
}

var (
	errLeader = errors.New("another node leads")
	errSilent = errors.New("the leader does not answer")
)

// converse is one stream.
func (h *Holder) converse(ctx context.Context, way Way, leader string) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := way.Open(ctx)
	if err != nil {
		cancel()
		return err
	}
	h.opened.Store(true)
	replies := make(chan struct{}, 1)
	var again atomic.Int64 // what the newest of them said
	ended := make(chan error, 1)
	go func() { // ends with ctx; waited for below
		for {
			r, err := stream.Recv()
			if err != nil {
				cancel() // a Send may hang in the same stream
				ended <- err
				return
			}
			h.take(r)
			if r.AgainMs > 0 {
				again.Store(int64(r.AgainMs))
			}
			token(replies)
		}
	}()
	err = h.ask(ctx, stream, way, leader, replies, &again)
	cancel()
	return errors.Join(err, <-ended)
}

func (h *Holder) ask(ctx context.Context, stream Stream, way Way, leader string, replies <-chan struct{}, again *atomic.Int64) error {
	beat := h.cfg.Duration / beats
	tick := time.NewTimer(beat)
	defer tick.Stop()
	heard := time.Now()
	for {
		switch {
		case way.Leader() != leader:
			return errLeader
		case time.Since(heard) > 4*h.cfg.Duration:
			return errSilent
		}
		if err := stream.Send(h.request()); err != nil {
			return err
		}
		tick.Reset(beat)
	wait:
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
				break wait
			case <-h.urgent:
				break wait
			case <-replies:
				heard = time.Now()
				if d := time.Duration(again.Swap(0)) * time.Millisecond; 0 < d && d <= 2*beat {
					tick.Reset(d)
				}
			case <-way.Moved():
				if way.Leader() != leader {
					return errLeader
				}
			}
		}
	}
}
