package replica

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// uncommitted bounds the batches of a stream that are not committed yet; origins keep to far fewer.
const uncommitted = 64

// HandlePropose serves a node that proposes batches, until it ends the stream. They are appended in the
// order in which they come. Only what goes wrong is answered, and from then on nothing of this stream is
// appended: the origin sends again, in order, on another.
func (r *Replica) HandlePropose(stream clusterpb.Peer_ProposeServer) error {
	s := &inlet{r: r, stream: stream, room: make(chan struct{}, uncommitted)}
	defer s.group.Wait() // they answer on the stream
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s.take(req)
	}
}

// inlet is one node's stream of batches.
type inlet struct {
	r      *Replica
	stream clusterpb.Peer_ProposeServer
	room   chan struct{}  // holds a token for each batch that is not committed
	group  sync.WaitGroup // those batches

	mu     sync.Mutex
	broken error // the first failure
}

func (s *inlet) take(req *clusterpb.ProposeRequest) {
	err := s.failure()
	if err == nil {
		err = checkBatch(req)
	}
	if err != nil {
		s.refuse(req.First, err)
		return
	}
	s.room <- struct{}{}
	s.group.Add(1)
	err = s.r.append(req.Batch, func(err error) {
		defer s.group.Done()
		<-s.room
		if err != nil {
			s.refuse(req.First, err)
		}
	})
	if err != nil {
		<-s.room
		s.group.Done()
		s.refuse(req.First, err)
	}
}

func (s *inlet) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// refuse answers that a batch was not taken, or perhaps not.
func (s *inlet) refuse(first uint64, err error) {
	reply := &clusterpb.ProposeReply{Code: clusterpb.ProposeReply_FAILED, First: first, Message: err.Error()}
	if errors.Is(err, ErrNotLeader) || errors.Is(err, ErrClosed) {
		reply.Code = clusterpb.ProposeReply_NOT_LEADER
	}
	reply.LeaderId, reply.LeaderAddr = s.r.Leader()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = err
	}
	_ = s.stream.Send(reply) // a broken stream ends the loop
}

// checkBatch looks at a batch from outside: one that no node can read would stop them all.
func checkBatch(req *clusterpb.ProposeRequest) error {
	if req.Group != 0 {
		return fmt.Errorf("group %d is unknown", req.Group)
	}
	var first uint64
	commands := 0
	for b := req.Batch; len(b) > 0; {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("the batch can't be read: %w", protowire.ParseError(n))
		}
		b = b[n:]
		switch n = protowire.ConsumeFieldValue(field, kind, b); {
		case n < 0:
			return fmt.Errorf("the batch can't be read: %w", protowire.ParseError(n))
		case field == 3 && kind == protowire.VarintType:
			first, _ = protowire.ConsumeVarint(b)
		case field == 4 && kind == protowire.BytesType:
			commands++
		}
		b = b[n:]
	}
	switch {
	case commands == 0:
		return errors.New("the batch is empty")
	case commands > batchCommands:
		return fmt.Errorf("the batch has %d commands, more than %d", commands, batchCommands)
	case first != req.First:
		return fmt.Errorf("the batch begins at %d, not at %d", first, req.First)
	}
	return nil
}
