package sim

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

var (
	errCut  = errors.New("sim: the network between the nodes is cut")
	errDown = errors.New("sim: the node is down")
)

// route is the way from one node to another.
type route struct{ from, to string }

// stream is one stream of a link. What either side sends stays on the way until it is delivered.
type stream struct {
	route  route
	ctx    context.Context // of the origin
	served context.Context // of the receiver
	stop   context.CancelFunc

	mu     sync.Mutex
	wake   sync.Cond
	data   lane[*clusterpb.LinkData]
	acks   lane[*clusterpb.LinkAck]
	over   bool // the receiver has ended it: what it said before still arrives
	broken error
}

type lane[T proto.Message] struct{ way, in []T }

func (l *lane[T]) send(m T) { l.way = append(l.way, proto.CloneOf(m)) }

func (l *lane[T]) deliver() bool {
	if len(l.way) == 0 {
		return false
	}
	l.in, l.way = append(l.in, l.way[0]), l.way[1:]
	return true
}

func (l *lane[T]) take() (m T, ok bool) {
	if len(l.in) == 0 {
		return m, false
	}
	m, l.in = l.in[0], l.in[1:]
	return m, true
}

// peer is a node as another one calls it.
type peer struct {
	clusterpb.PeerClient
	w     *World
	route route
}

// Link implements clusterpb.PeerClient.
func (p peer) Link(ctx context.Context, _ ...grpc.CallOption) (clusterpb.Peer_LinkClient, error) {
	if p.w.Cut(p.route.from, p.route.to) {
		return nil, errCut
	}
	links := p.w.Node(p.route.to).reached.Load()
	if links == nil {
		return nil, errDown
	}
	s := &stream{route: p.route, ctx: ctx}
	s.wake.L = &s.mu
	s.served, s.stop = context.WithCancel(context.Background())
	context.AfterFunc(ctx, func() { s.sever(context.Cause(ctx)) })
	p.w.mu.Lock()
	p.w.streams = append(p.w.streams, s)
	p.w.mu.Unlock()
	p.w.group.Go(func() {
		_ = links.HandleLink(server{s: s})
		s.mu.Lock()
		s.over = true
		s.wake.Broadcast()
		s.mu.Unlock()
		s.stop()
	})
	return origin{s: s}, nil
}

// sever ends a stream for both ends, at once.
func (s *stream) sever(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = err
		s.stop()
	}
	s.wake.Broadcast()
}

// origin is a stream at the node that sends.
type origin struct {
	grpc.ClientStream
	s *stream
}

func (o origin) Send(m *clusterpb.LinkData) error {
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	s.data.send(m)
	return nil
}

func (o origin) Recv() (*clusterpb.LinkAck, error) {
	s := o.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.broken != nil {
			return nil, s.broken
		}
		if m, ok := s.acks.take(); ok {
			return m, nil
		}
		if s.over && len(s.acks.way) == 0 {
			return nil, io.EOF
		}
		s.wake.Wait()
	}
}

// server is a stream at the node that receives.
type server struct {
	grpc.ServerStream
	s *stream
}

func (r server) Context() context.Context { return r.s.served }

func (r server) Send(m *clusterpb.LinkAck) error {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	s.acks.send(m)
	return nil
}

func (r server) Recv() (*clusterpb.LinkData, error) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if m, ok := s.data.take(); ok {
			return m, nil
		}
		if s.broken != nil {
			return nil, s.broken
		}
		if s.over {
			return nil, io.EOF
		}
		s.wake.Wait()
	}
}

// Cut tells whether the network between two nodes is cut.
func (w *World) Cut(a, b string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cuts[route{a, b}]
}

// SetCut cuts the network between two nodes, with everything on its way, or mends it.
func (w *World) SetCut(a, b string, cut bool) {
	w.mu.Lock()
	w.cuts[route{a, b}], w.cuts[route{b, a}] = cut, cut
	w.mu.Unlock()
	if cut {
		w.breakStreams(a, b)
	}
	w.Settle()
}

// BreakLink breaks the streams between two nodes, which may connect again.
func (w *World) BreakLink(a, b string) {
	w.breakStreams(a, b)
	w.Settle()
}

func (w *World) breakStreams(a, b string) {
	for _, s := range w.streamList() {
		if r := s.route; r == (route{a, b}) || r == (route{b, a}) {
			s.sever(errCut)
		}
	}
}

func (w *World) streamList() []*stream {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.streams)
}

// HoldLink keeps what one node sends another, or its acknowledgements, on the way.
func (w *World) HoldLink(from, to string, data, acks bool) {
	w.held[route{from, to}] = [2]bool{data, acks}
}

// Carry delivers the next message, or acknowledgement, of one of the streams from one node to another.
// False: there is none.
func (w *World) Carry(from, to string, acks bool) bool {
	for _, s := range w.streamList() {
		if s.route == (route{from, to}) && s.carry(acks) {
			w.Settle()
			return true
		}
	}
	return false
}

func (s *stream) carry(acks bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return false
	}
	moved := false
	if acks {
		moved = s.acks.deliver()
	} else {
		moved = s.data.deliver()
	}
	s.wake.Broadcast()
	return moved
}

// prune forgets streams that have ended.
func (w *World) prune() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams = slices.DeleteFunc(w.streams, func(s *stream) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.broken != nil || s.over && len(s.acks.way)+len(s.acks.in) == 0
	})
}
