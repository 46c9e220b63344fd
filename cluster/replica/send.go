package replica

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// How long the sender waits before it tries the same leader again.
const (
	sendAgain   = 20 * time.Millisecond
	sendAgainAt = 500 * time.Millisecond // at most
)

// stallAfter is how long batches may be under way without one passing before they are sent again on
// another stream: a connection can be dead without either end knowing.
const stallAfter = 5 * time.Second

// carry brings batches to whoever leads, until the replica closes.
func (r *Replica) carry() {
	pause := sendAgain
	for {
		to := r.route.get()
		ctx, cancel := context.WithCancel(r.ctx)
		unfollow := r.route.follow(to, cancel)
		before, _ := r.proposer.progress()
		err := r.carryTo(ctx, to)
		unfollow()
		cancel()
		if r.isClosing() {
			return
		}
		if passed, _ := r.proposer.progress(); passed != before || to.changed() {
			pause = sendAgain
		}
		if to.changed() {
			continue
		}
		r.cfg.Logger.Debug("batches did not reach the leader; trying again", "leader", to.id, "error", err)
		select {
		case <-r.closing:
			return
		case <-to.gone:
		case <-time.After(pause):
		}
		pause = min(2*pause, sendAgainAt)
	}
}

// carryTo sends to one leader until ctx ends or it fails.
func (r *Replica) carryTo(ctx context.Context, to *destination) error {
	for to.id == "" || !r.proposer.begun() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.proposer.wake:
		}
	}
	var send func(*batch) error
	failed := make(chan error, 1) // holds the first failure
	if to.id == r.cfg.ID {
		send = func(b *batch) error {
			return r.append(b.bytes, func(err error) { report(failed, err) })
		}
	} else {
		stream, closeStream, err := r.dial(ctx, to.address, failed)
		if err != nil {
			return err
		}
		defer closeStream()
		send = func(b *batch) error {
			return stream.Send(&clusterpb.ProposeRequest{Batch: b.bytes, First: b.first})
		}
	}
	// What was sent before may have been lost, all of it or from some batch on.
	r.proposer.rewind()
	tick := time.NewTicker(r.cfg.stall)
	defer tick.Stop()
	var seen uint64 // batches passed at the last tick
	waited := false // some were under way then
	for {
		b := r.proposer.take()
		if b == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case err := <-failed:
				return err
			case <-r.proposer.wake:
			case <-tick.C:
				passed, under := r.proposer.progress()
				if waited && under && passed == seen {
					return fmt.Errorf("no batch has passed for %s", r.cfg.stall)
				}
				seen, waited = passed, under
			}
			continue
		}
		if err := send(b); err != nil {
			select { // says more than the broken stream does
			case err = <-failed:
			default:
			}
			return err
		}
		select {
		case err := <-failed:
			return err
		default:
		}
	}
}

func report(failed chan<- error, err error) {
	if err == nil {
		return
	}
	select {
	case failed <- err:
	default:
	}
}

// dial opens a stream to a leader, which says on it only what went wrong.
func (r *Replica) dial(ctx context.Context, address string, failed chan<- error) (stream clusterpb.Peer_ProposeClient, closeStream func(), err error) {
	peer, err := r.cfg.Dial(address)
	if err != nil {
		return nil, nil, fmt.Errorf("leader at %s: %w", address, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	if stream, err = peer.Propose(ctx, grpc.WaitForReady(false)); err != nil {
		cancel()
		return nil, nil, fmt.Errorf("leader at %s: %w", address, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			reply, err := stream.Recv()
			if err == nil && reply.Code != clusterpb.ProposeReply_OK {
				err = fmt.Errorf("batch %d: %s: %s", reply.First, reply.Code, reply.Message)
			}
			if err != nil {
				report(failed, err)
				return
			}
		}
	}()
	return stream, func() { cancel(); <-done }, nil
}
