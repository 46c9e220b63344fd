package replica

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// lossy is a way to the leader on which batches are lost.
type lossy struct {
	clusterpb.PeerClient
	sends   atomic.Int64
	streams atomic.Int64
	drop    func(n int64) bool // the nth batch is lost in silence
	breaks  func(n int64) bool // the stream breaks instead
}

func (l *lossy) wrap(p clusterpb.PeerClient) clusterpb.PeerClient {
	return &lossyClient{PeerClient: p, l: l}
}

type lossyClient struct {
	clusterpb.PeerClient
	l *lossy
}

type lossyStream struct {
	clusterpb.Peer_ProposeClient
	l *lossy
}

func (c *lossyClient) Propose(ctx context.Context, opts ...grpc.CallOption) (clusterpb.Peer_ProposeClient, error) {
	c.l.streams.Add(1)
	s, err := c.PeerClient.Propose(ctx, opts...)
	return &lossyStream{s, c.l}, err
}

func (s *lossyStream) Send(req *clusterpb.ProposeRequest) error {
	n := s.l.sends.Add(1)
	if s.l.breaks != nil && s.l.breaks(n) {
		return errors.New("the stream broke")
	}
	if s.l.drop != nil && s.l.drop(n) {
		return nil
	}
	return s.Peer_ProposeClient.Send(req)
}

func TestGapsAreFilled(t *testing.T) {
	w := newWorld(t, 3, func(c *Config) { c.BatchBytes, c.stall = 2<<10, 300*time.Millisecond })
	n := w.follower()
	l := &lossy{drop: func(n int64) bool { return n < 20 && n%5 == 3 }} // the one after it shows the gap
	n.wrap = l.wrap
	w.upAll()
	w.session(w.all[0])
	n.publish(1, 2000).wait()
	w.agree()
	w.inOrder(w.queued(n)[n.name], 2000)
	if sealed := int64(n.Stats().Batches); l.sends.Load() <= sealed {
		t.Errorf("%d batches were sent %d times", sealed, l.sends.Load())
	}
}

func TestBrokenStreamsAreOpenedAgain(t *testing.T) {
	w := newWorld(t, 3, func(c *Config) { c.BatchBytes = 2 << 10 })
	n := w.follower()
	l := &lossy{breaks: func(n int64) bool { return n%5 == 4 }}
	n.wrap = l.wrap
	w.upAll()
	w.session(w.all[0])
	n.publish(1, 1000).wait()
	w.agree()
	w.inOrder(w.queued(n)[n.name], 1000)
	if l.streams.Load() < 2 {
		t.Errorf("%d streams", l.streams.Load())
	}
}

// TestSilentLossIsNoticed: no later batch shows the gap.
func TestSilentLossIsNoticed(t *testing.T) {
	w := newWorld(t, 3, func(c *Config) { c.stall = 100 * time.Millisecond })
	n := w.follower()
	l := &lossy{drop: func(n int64) bool { return n == 1 }}
	n.wrap = l.wrap
	w.upAll()
	w.session(n)
	if l.streams.Load() < 2 {
		t.Error("the stream was kept")
	}
}

// TestFollowersRefuseBatches: who asks the wrong node learns who leads, and goes on with nothing.
func TestFollowersRefuseBatches(t *testing.T) {
	w := newWorld(t, 3, nil)
	leader, follower := w.leader(), w.follower()
	w.upAll()
	peer, err := leader.dial(follower.address)
	if err != nil {
		t.Fatal(err)
	}
	s, err := peer.Propose(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, p := batcher(t, 1000, 10)
	add(t, &Replica{proposer: p}, 1, 2)
	b := p.take()
	for range 2 {
		if err := s.Send(&clusterpb.ProposeRequest{Batch: b.bytes, First: b.first}); err != nil {
			t.Fatal(err)
		}
		reply, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if reply.Code != clusterpb.ProposeReply_NOT_LEADER || reply.First != b.first || reply.LeaderId != leader.asServer().ID || reply.LeaderAddr != leader.address {
			t.Errorf("reply %v", reply)
		}
	}
	if peer, err = follower.dial(leader.address); err != nil {
		t.Fatal(err)
	}
	if s, err = peer.Propose(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, bytes := range [][]byte{[]byte("rubbish"), b.bytes} { // after the first nothing is taken
		if err := s.Send(&clusterpb.ProposeRequest{Batch: bytes, First: b.first}); err != nil {
			t.Fatal(err)
		}
		if reply, err := s.Recv(); err != nil || reply.Code != clusterpb.ProposeReply_FAILED {
			t.Errorf("reply %v, %v", reply, err)
		}
	}
}
