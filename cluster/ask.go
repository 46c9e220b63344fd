package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/cluster/lease"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// maxAsked bounds the nodes that one question goes to.
const maxAsked = 8

// authority is who may be the leader, as it is asked. It answers with the leader's address when it is
// not, and with codes.FailedPrecondition when the one who asks is no member.
type authority interface {
	Announce(context.Context, *clusterpb.AnnounceRequest) (*clusterpb.AnnounceReply, error)
	Join(context.Context, *clusterpb.JoinRequest) (*clusterpb.JoinReply, error)
	Leave(context.Context, *clusterpb.LeaveRequest) (*clusterpb.LeaveReply, error)
	Check(context.Context, *clusterpb.CheckRequest) (*clusterpb.CheckReply, error)
}

// ask puts a question to the leader: to whom this node takes for it, to whom that one names, else to
// anybody. question tells the address to go on with, and whether it was answered. It blocks.
func (c *Cluster) ask(ctx context.Context, question func(context.Context, authority) (next string, done bool, err error)) error {
	var errs []error
	asked := make(map[string]bool)
	for places := c.places(); len(places) > 0 && len(asked) < maxAsked && ctx.Err() == nil; {
		place := places[0]
		places = places[1:]
		if asked[place] {
			continue
		}
		asked[place] = true
		next, done, err := c.askAt(ctx, place, question)
		switch {
		case done:
			return nil
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", place, err))
		case next != "":
			places = append([]string{next}, places...)
		}
	}
	if len(errs) == 0 {
		return errors.Join(ErrNoLeader, ctx.Err())
	}
	return errors.Join(errs...)
}

func (c *Cluster) askAt(ctx context.Context, place string, question func(context.Context, authority) (string, bool, error)) (string, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	leader, err := c.authorityAt(place)
	if err != nil {
		return "", false, err
	}
	next, done, err := question(ctx, leader)
	if s, ok := status.FromError(err); ok && err != nil {
		if s.Code() == codes.FailedPrecondition {
			err = ErrRemoved
		} else {
			err = errors.New(s.Message())
		}
	}
	return next, done && err == nil, err
}

// places are the addresses to ask, the likeliest first.
func (c *Cluster) places() []string {
	var out []string
	if _, address := c.log.Leader(); address != "" {
		out = append(out, address)
	}
	for _, n := range c.others() {
		if n.Exists && n.Peer != "" {
			out = append(out, n.Peer)
		}
	}
	if servers, err := c.log.Servers(); err == nil {
		for _, s := range servers {
			if s.ID != c.id {
				out = append(out, s.Address)
			}
		}
	}
	return out
}

func (c *Cluster) authorityAt(address string) (authority, error) {
	if address == c.address {
		return service{c: c}, nil
	}
	client, err := c.dial.Control(address)
	return remote{client}, err
}

// remote is another node's service.
type remote struct{ client clusterpb.PeerClient }

func (r remote) Announce(ctx context.Context, req *clusterpb.AnnounceRequest) (*clusterpb.AnnounceReply, error) {
	return r.client.Announce(ctx, req)
}

func (r remote) Join(ctx context.Context, req *clusterpb.JoinRequest) (*clusterpb.JoinReply, error) {
	return r.client.Join(ctx, req)
}

func (r remote) Leave(ctx context.Context, req *clusterpb.LeaveRequest) (*clusterpb.LeaveReply, error) {
	return r.client.Leave(ctx, req)
}

func (r remote) Check(ctx context.Context, req *clusterpb.CheckRequest) (*clusterpb.CheckReply, error) {
	return r.client.Check(ctx, req)
}

// leaseWay leads this node's lease requests to the leader. It implements lease.Way.
type leaseWay struct{ c *Cluster }

// Leader names the server that this node takes for the leader.
func (w leaseWay) Leader() string {
	id, _ := w.c.log.Leader()
	return id
}

// Moved holds a token after another node became the leader.
func (w leaseWay) Moved() <-chan struct{} { return w.c.ledBy }

// Open opens a stream to it. A leader that does not take it in the time of a lease may as well be gone.
func (w leaseWay) Open(ctx context.Context) (lease.Stream, error) {
	id, address := w.c.log.Leader()
	switch {
	case id == w.c.id:
		return w.c.leader.Local(ctx), nil
	case address == "":
		return nil, ErrNoLeader
	}
	client, err := w.c.dial.Control(address)
	if err != nil {
		return nil, err
	}
	open, cancel := context.WithCancel(ctx)
	patience := time.AfterFunc(w.c.cfg.Lease, cancel)
	stream, err := client.Lease(open)
	if !patience.Stop() && err == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		cancel()
		return nil, err
	}
	context.AfterFunc(ctx, cancel)
	return stream, nil
}
