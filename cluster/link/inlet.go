package link

import (
	"slices"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

const (
	reasonLink  = fsm.ReasonLink
	reasonStale = fsm.ReasonStale

	// holdStep is how often a receiver that waits (for its lease, for the log) looks again. Short,
	// because the first publish of a connection often comes before the log tells of its CONNECT.
	holdStep = time.Millisecond
	// maxReturned bounds what a receiver remembers of frames without a member. Far more than can
	// be unacknowledged by then.
	maxReturned = 1 << 16
)

// inlet is what this node knows of one origin's incarnation, across streams.
type inlet struct {
	l    *Links
	from fsm.NodeRef
	self fsm.NodeRef // the incarnation of this node that it is a part of

	mu      sync.Mutex
	closed  bool
	current *intake // the stream that may deliver
	// taken is the last sequence that was delivered. There are no gaps: a frame whose predecessor
	// is missing waits, because that one comes through the log.
	taken       uint64
	unsequenced uint64
	returned    []uint64 // of those taken, found no member; until the origin is known to have heard
	relays      []relayed
	draining    bool   // somebody waits for the lease to deliver relays
	applied     uint64 // how far the log was when somebody last looked
}

// relayed is a frame that came through the log and waits for the lease.
type relayed struct {
	sequence uint64
	frame    []byte
}

// inlet finds or makes the record of an origin. Called with mu held.
func (l *Links) inlet(from fsm.NodeRef) *inlet {
	in := l.in[from]
	if in == nil {
		in = &inlet{l: l, from: from, self: l.host.Self()}
		l.in[from] = in
	}
	return in
}

// attach makes s the stream of its origin. An older one, which the origin has given up, is cut.
func (in *inlet) attach(s *intake) (*clusterpb.LinkAck, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return nil, false
	}
	if in.current != nil {
		close(in.current.cut)
	}
	in.current = s
	s.told = len(in.returned)
	return &clusterpb.LinkAck{Sequence: in.taken, Unsequenced: in.unsequenced, Returned: slices.Clone(in.returned)}, true
}

func (in *inlet) detach(s *intake) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.current == s {
		in.current = nil
	}
}

// close takes nothing more. Relayed frames were committed, so they are delivered even when their
// origin is gone, unless this node's own incarnation has ended.
func (in *inlet) close(discard bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	if in.current != nil {
		close(in.current.cut)
		in.current = nil
	}
	if discard {
		in.relays = nil
	}
}

// outcome of offering a frame to an inlet.
type outcome uint8

const (
	taken   outcome = iota
	holding         // not yet
	severed         // this stream is not the origin's any more
)

// take delivers the next frame of a stream if it may be delivered now.
func (in *inlet) take(s *intake, f *clusterpb.Frame) outcome {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.closed || in.current != s:
		return severed
	case f.QoS > 0 && f.Sequence <= in.taken:
		if slices.Contains(in.returned, f.Sequence) {
			s.returned = append(s.returned, f.Sequence)
		}
	case in.ahead(f):
		return holding
	case f.QoS == 0:
		in.unsequenced++
		in.deliver(f)
	case f.Sequence > in.taken+1 || in.draining || !in.l.host.Leased():
		return holding
	default:
		in.taken = f.Sequence
		if in.deliver(f) == clusterpb.LinkNoMember {
			in.returned = append(in.returned, f.Sequence)
			if n := len(in.returned); n > maxReturned {
				in.returned = slices.Delete(in.returned, 0, n/2)
			}
			s.returned = append(s.returned, f.Sequence)
		}
	}
	return taken
}

// heard notes that the origin has read this stream's greeting: it knows what was returned before.
func (in *inlet) heard(s *intake) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.current == s {
		in.returned = in.returned[min(s.told, len(in.returned)):]
		s.told = 0
	}
}

// ahead tells whether the publisher connected at a place in the log that this node has not reached.
// Delivered now, its message could be followed by an older one from the node that it came from: only
// the log tells that those are stale.
func (in *inlet) ahead(f *clusterpb.Frame) bool {
	index := fsm.Epoch(f.Epoch).Index()
	if index > in.applied {
		in.applied = in.l.state.Applied()
	}
	return index > in.applied
}

// deliver hands a frame on, unless its connection has been taken over: the origin hears that it was
// not taken, for it must not be acknowledged to a publisher whose node has yet to learn of the end.
func (in *inlet) deliver(f *clusterpb.Frame) clusterpb.LinkCode {
	if known, ok := in.l.state.ClientEpoch(f.ClientID); ok && f.Epoch != 0 && uint64(known) > f.Epoch {
		in.l.cfg.Dropped(reasonStale, 1)
		return clusterpb.LinkNoMember
	}
	return in.l.host.Deliver(in.from, f)
}

// Relayed hands over a frame that came to this node through the log. To be called in log order, on
// the goroutine that applies it. frame is copied if it has to wait for the lease.
func (l *Links) Relayed(from fsm.NodeRef, sequence uint64, frame []byte) {
	if l.host.Self().Incarnation == 0 {
		return // for the clients of an earlier incarnation: from has another link to the next one
	}
	l.mu.Lock()
	in := l.in[from]
	if in == nil && from.Incarnation > l.ended[from.Node] {
		in = l.inlet(from)
	}
	if in == nil {
		in = &inlet{l: l, from: from, self: l.host.Self(), closed: true}
	}
	l.mu.Unlock()
	in.mu.Lock()
	wait := in.draining || !l.host.Leased()
	start := wait && !in.draining
	if wait {
		in.draining = true
		in.relays = append(in.relays, relayed{sequence, slices.Clone(frame)})
	} else {
		in.takeRelay(sequence, frame)
	}
	in.mu.Unlock()
	if start {
		l.spawn(in.drain)
	}
}

func (in *inlet) takeRelay(sequence uint64, frame []byte) {
	var f clusterpb.Frame
	if err := clusterpb.DecodeRelay(frame, &f); err != nil {
		in.l.cfg.Logger.Error("a relayed frame can't be read", "peer", in.from.Node, "sequence", sequence, "error", err)
		in.l.cfg.Dropped(reasonLink, 1)
		in.taken = max(in.taken, sequence)
		return
	}
	if sequence <= in.taken {
		if i := slices.Index(in.returned, sequence); i >= 0 {
			in.returned = slices.Delete(in.returned, i, i+1)
			in.repick(&f)
		}
		return
	}
	in.taken = sequence
	if in.deliver(&f) == clusterpb.LinkNoMember {
		in.repick(&f)
	}
}

func (in *inlet) repick(f *clusterpb.Frame) {
	if in.l.cfg.Repick == nil {
		in.l.cfg.Dropped(fsm.ReasonNoMember, 1)
		return
	}
	in.l.cfg.Repick(f)
}

// drain delivers relays that waited, in order, when the lease is back.
func (in *inlet) drain() {
	tick := time.NewTicker(holdStep)
	defer tick.Stop()
	for {
		in.mu.Lock()
		if in.l.host.Self() != in.self {
			in.relays = nil
		}
		for len(in.relays) > 0 && in.l.host.Leased() {
			r := in.relays[0]
			in.relays = in.relays[1:]
			in.takeRelay(r.sequence, r.frame)
		}
		over := len(in.relays) == 0
		if over {
			in.relays, in.draining = nil, false
		}
		in.mu.Unlock()
		if over {
			return
		}
		select {
		case <-in.l.ctx.Done():
			return
		case <-tick.C:
		}
	}
}
