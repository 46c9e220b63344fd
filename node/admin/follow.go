package admin

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// rejoin is how often follow looks for nodes that came, or came back.
const rejoin = time.Second

// following is one stream to an operator that joins what the nodes tell.
type following[T any] struct {
	s    *Server
	only string // the node that is wanted; empty: all
	// own tells what this node has to tell, until ctx ends.
	own func(ctx context.Context, send func(*T) error) error
	// open asks another node for its part.
	open func(context.Context, adminpb.AdminClient) (grpc.ServerStreamingClient[T], error)
	// joined and lost, where they are set, make what the operator hears of a node that takes part from now
	// on, or does not any more.
	joined func(node string) *T
	lost   func(node, reason string) *T
	out    func(*T) error

	mu     sync.Mutex // of out and of what follows
	failed error
	stop   context.CancelFunc
	with   map[string]bool // nodes whose stream is open, or was when last asked
	group  sync.WaitGroup
}

// run returns when the operator has gone, or this node stops.
func (f *following[T]) run(ctx context.Context) error {
	ctx, f.stop = context.WithCancel(ctx)
	defer f.group.Wait()
	defer f.stop()
	f.with = make(map[string]bool)
	if f.only != "" {
		if _, err := f.s.only(f.only); err != nil {
			return err
		}
	}
	if f.only == "" || f.only == f.s.config.Self {
		f.group.Go(func() {
			if err := f.own(ctx, f.send); err != nil {
				f.fail(err)
			}
		})
	}
	tick := time.NewTicker(rejoin)
	defer tick.Stop()
	for {
		f.join(ctx)
		select {
		case <-ctx.Done():
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.failed
		case <-f.s.stopping:
			return status.Error(codes.Unavailable, "the node stops")
		case <-tick.C:
		}
	}
}

// fail ends it for a reason.
func (f *following[T]) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.failed = err
	}
	f.stop()
}

func (f *following[T]) send(v *T) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out(v)
}

// join opens the streams of nodes that are not followed yet.
func (f *following[T]) join(ctx context.Context) {
	for _, n := range f.s.cluster.Nodes() {
		if n.Id == f.s.config.Self || n.Incarnation == 0 && n.State != stateUnknown || f.only != "" && f.only != n.Id {
			continue
		}
		f.mu.Lock()
		open, known := f.with[n.Id]
		f.with[n.Id] = true
		f.mu.Unlock()
		if open {
			continue
		}
		f.group.Go(func() {
			heard, err := f.copy(ctx, n)
			f.mu.Lock()
			f.with[n.Id] = false
			f.mu.Unlock()
			if ctx.Err() == nil && f.lost != nil && (heard || !known) {
				if f.send(f.lost(n.Id, reason(err))) != nil {
					f.stop()
				}
			}
		})
	}
}

// copy relays one node's stream until it breaks. heard: the node took part.
func (f *following[T]) copy(ctx context.Context, n *adminpb.Node) (heard bool, err error) {
	client, err := f.s.peers.client(n.PeerAddress)
	if err != nil {
		return false, err
	}
	in, err := f.open(ctx, client)
	if err != nil {
		return false, err
	}
	if _, err := in.Header(); err != nil { // it comes when the node takes part, before there is anything to tell
		return false, err
	}
	if f.joined != nil {
		if err := f.send(f.joined(n.Id)); err != nil {
			f.stop()
			return true, err
		}
	}
	for {
		v, err := in.Recv()
		if err != nil {
			return true, err
		}
		if err := f.send(v); err != nil {
			f.stop()
			return true, err
		}
	}
}
