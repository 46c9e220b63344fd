package lease

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// ServerStream is the leader's end of a Lease stream.
type ServerStream interface {
	Context() context.Context
	Send(*clusterpb.LeaseReply) error
	Recv() (*clusterpb.LeaseRequest, error)
}

// conversation is one node's stream, at the leader.
type conversation struct {
	mu    sync.Mutex
	reply *clusterpb.LeaseReply // to a request
	push  *clusterpb.LeaseReply // the newest watermark, unless a newer reply tells it
	wake  chan struct{}
}

// say queues a reply; of the ones that were not sent yet the newest of each kind counts.
func (c *conversation) say(r *clusterpb.LeaseReply) {
	c.mu.Lock()
	if r.Sequence == 0 {
		c.push = r
	} else {
		c.reply = r
		c.push = nil
	}
	c.mu.Unlock()
	token(c.wake)
}

func (c *conversation) next() (*clusterpb.LeaseReply, *clusterpb.LeaseReply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, b := c.reply, c.push
	c.reply, c.push = nil, nil
	return a, b
}

// Serve handles a node's stream until it ends, or this node leads no more. It blocks.
func (l *Leader) Serve(stream ServerStream) error {
	c := &conversation{wake: make(chan struct{}, 1)}
	l.mu.Lock()
	r := l.now
	if r == nil || l.closed {
		l.mu.Unlock()
		return status.Error(codes.FailedPrecondition, "this node does not lead")
	}
	r.conversations[c] = struct{}{}
	read := make(chan error, 1)
	l.group.Go(func() { read <- l.listen(r, c, stream) }) // its Recv ends when this function returns
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(r.conversations, c)
		delete(r.pending, c)
	}()
	for {
		select {
		case <-c.wake:
		case err := <-read:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-r.ctx.Done():
			return status.Error(codes.FailedPrecondition, "this node leads no more")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		reply, push := c.next()
		for _, m := range []*clusterpb.LeaseReply{reply, push} {
			if m == nil {
				continue
			}
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}

func (l *Leader) listen(r *reign, c *conversation, stream ServerStream) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		l.hear(r, c, req)
	}
}

// hear takes a request or report.
func (l *Leader) hear(r *reign, c *conversation, req *clusterpb.LeaseRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.cfg.Clock()
	r.core.clock(now, req.Node, req.Clock)
	if req.WantLease {
		r.core.sync(now, l.state.Members())
		r.core.report(refOf(req), req.Applied)
		if _, open := r.conversations[c]; open {
			r.pending[c] = req
		}
	} else if r.core.ready {
		c.say(&clusterpb.LeaseReply{
			Sequence: req.Sequence, Reason: "not asked for", Clock: r.clock(now), Commit: l.log.CommitIndex(), LeaderId: l.self,
		})
	}
	if r.core.ready {
		l.push(r)
		token(r.wake)
	}
}

// Local opens the stream of a node that leads itself. It ends with ctx.
func (l *Leader) Local(ctx context.Context) Stream {
	ctx, cancel := context.WithCancel(ctx)
	p := &pipe{ctx: ctx, requests: make(chan *clusterpb.LeaseRequest), replies: make(chan *clusterpb.LeaseReply)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		cancel()
		return near{p}
	}
	l.group.Go(func() {
		defer cancel()
		_ = l.Serve(far{p}) // whatever ends it, the near end sees its context done and opens another
	})
	return near{p}
}

// pipe is a stream inside of the process.
type pipe struct {
	ctx      context.Context
	requests chan *clusterpb.LeaseRequest
	replies  chan *clusterpb.LeaseReply
}

type (
	near struct{ p *pipe }
	far  struct{ p *pipe }
)

func (s far) Context() context.Context               { return s.p.ctx }
func (s far) Send(r *clusterpb.LeaseReply) error     { return put(s.p.ctx, s.p.replies, r) }
func (s far) Recv() (*clusterpb.LeaseRequest, error) { return get(s.p.ctx, s.p.requests) }
func (s near) Send(r *clusterpb.LeaseRequest) error  { return put(s.p.ctx, s.p.requests, r) }
func (s near) Recv() (*clusterpb.LeaseReply, error)  { return get(s.p.ctx, s.p.replies) }

func put[T any](ctx context.Context, c chan<- T, v T) error {
	select {
	case c <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func get[T any](ctx context.Context, c <-chan T) (T, error) {
	select {
	case v := <-c:
		return v, nil
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}
