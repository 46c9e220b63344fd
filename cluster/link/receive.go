package link

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

const (
	// admitPatience is how long a new stream waits for this node's state machine to know the
	// incarnations that it names.
	admitPatience = 2 * time.Second
	// signsOfLife is how often a receiver that holds frames tells that it is there.
	signsOfLife = 100 * time.Millisecond
)

// intake is one incoming stream.
type intake struct {
	in       *inlet
	cut      chan struct{} // closed under the inlet's mutex: the stream is over
	due      chan struct{} // holds one token: an acknowledgement is due
	told     int           // how many returned sequences the greeting named; under the inlet's mutex
	returned []uint64      // to name in the next acknowledgement; under the inlet's mutex
}

// HandleLink serves one incoming stream until it ends: the server's handler of Link. It blocks.
func (l *Links) HandleLink(stream clusterpb.Peer_LinkServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	in, code, err := l.admit(stream.Context(), first)
	if err != nil {
		return err
	}
	if code != clusterpb.LinkAck_OK {
		return stream.Send(&clusterpb.LinkAck{Code: code})
	}
	s := &intake{in: in, cut: make(chan struct{}), due: make(chan struct{}, 1)}
	hello, ok := in.attach(s)
	if !ok {
		return status.Error(codes.Aborted, "the incarnation has just ended")
	}
	defer in.detach(s)
	if err := stream.Send(hello); err != nil {
		return err
	}
	read := make(chan error, 1)
	if !l.spawn(func() { read <- s.read(stream) }) { // its Recv ends when this function returns
		return status.Error(codes.Unavailable, "closing")
	}
	return s.acknowledge(stream, read)
}

// admit finds out whether a stream's ends are what they say, and waits while the state machine is
// behind.
func (l *Links) admit(ctx context.Context, first *clusterpb.LinkData) (*inlet, clusterpb.LinkAck_Code, error) {
	from := fsm.NodeRef{Node: first.Node, Incarnation: first.Incarnation}
	deadline := time.Now().Add(admitPatience)
	tick := time.NewTicker(holdStep)
	defer tick.Stop()
	for {
		in, code, err := l.tryAdmit(from, first)
		if in != nil || code != clusterpb.LinkAck_OK || err != nil {
			return in, code, err
		}
		if time.Now().After(deadline) {
			return nil, 0, status.Errorf(codes.Unavailable, "incarnation %d of %s or %d of %s is not known here yet", from.Incarnation, from.Node, first.TargetIncarnation, first.Target)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-l.ctx.Done():
			return nil, 0, status.Error(codes.Unavailable, "closing")
		}
	}
}

// tryAdmit returns neither inlet nor code nor error while it is too early to say.
func (l *Links) tryAdmit(from fsm.NodeRef, first *clusterpb.LinkData) (*inlet, clusterpb.LinkAck_Code, error) {
	// Under the lock, as in open: PeerDown and Reset come after what is read here has changed.
	l.mu.Lock()
	defer l.mu.Unlock()
	self := l.host.Self()
	live, ok := l.state.Live(from.Node)
	switch {
	case l.closed:
		return nil, 0, status.Error(codes.Unavailable, "closing")
	case self.Node != first.Target || from.Node == self.Node || from.Node == "":
		return nil, 0, status.Errorf(codes.InvalidArgument, "a link from %q to %q came to %q", from.Node, first.Target, self.Node)
	case self.Incarnation > first.TargetIncarnation:
		return nil, clusterpb.LinkAck_GONE, nil
	case l.ended[from.Node] >= from.Incarnation || ok && live.Incarnation > from.Incarnation:
		return nil, clusterpb.LinkAck_REFUSED, nil
	case self.Incarnation < first.TargetIncarnation || !ok || live.Incarnation < from.Incarnation:
		return nil, 0, nil
	}
	return l.inlet(from), 0, nil
}

// read takes what the stream brings, in order.
func (s *intake) read(stream clusterpb.Peer_LinkServer) error {
	var decoder clusterpb.LinkDecoder
	var f clusterpb.Frame
	for first := true; ; first = false {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		if first {
			s.in.heard(s)
		}
		sequenced := false
		decoder.Feed(message.Frames)
		for {
			ok, err := decoder.Next(&f)
			if err != nil {
				s.in.l.cfg.Logger.Error("a link is cut", "peer", s.in.from.Node, "error", err)
				return status.Error(codes.InvalidArgument, err.Error())
			}
			if !ok {
				break
			}
			sequenced = sequenced || f.QoS > 0
			if !s.take(stream.Context(), &f) {
				return status.Error(codes.Aborted, "superseded")
			}
		}
		if sequenced || decoder.Partial() { // a large frame arrives in pieces: show signs of life
			s.ackDue()
		}
	}
}

func (s *intake) ackDue() {
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// take delivers f when it may be delivered, and shows signs of life until then. false: the stream
// is over.
func (s *intake) take(ctx context.Context, f *clusterpb.Frame) bool {
	result := s.in.take(s, f)
	if result != holding {
		return result == taken
	}
	s.ackDue() // of what came before it
	tick := time.NewTicker(holdStep)
	defer tick.Stop()
	for told := time.Now(); result == holding; result = s.in.take(s, f) {
		if time.Since(told) >= signsOfLife {
			s.ackDue()
			told = time.Now()
		}
		select {
		case <-tick.C:
		case <-s.cut:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return result == taken
}

// acknowledge tells the origin how far its frames were taken whenever there is news, the latest
// news if there was more than one, until the stream ends.
func (s *intake) acknowledge(stream clusterpb.Peer_LinkServer, read <-chan error) error {
	for {
		select {
		case <-s.due:
		case err := <-read:
			return err
		case <-s.cut:
			return status.Error(codes.Aborted, "superseded, or an incarnation has ended")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err := stream.Send(s.ack()); err != nil {
			return err
		}
	}
}

func (s *intake) ack() *clusterpb.LinkAck {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	ack := &clusterpb.LinkAck{Sequence: s.in.taken, Unsequenced: s.in.unsequenced, Returned: s.returned}
	s.returned = nil
	return ack
}
