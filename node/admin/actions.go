package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// Errors that a Cluster may return (wrapped), for the right status code.
var (
	// ErrNotLeader: this node does not lead; the order belongs to the leader.
	ErrNotLeader = errors.New("this node does not lead the cluster")
	// ErrUnknownNode: no member of that name.
	ErrUnknownNode = errors.New("no such node")
	// ErrLive: the node is in service, or removing it would cost the majority.
	ErrLive = errors.New("the node is in service")
)

// forwarded marks a call that a node passed on, so that two nodes that each take the other for
// the leader don't play ball.
const forwarded = "skein-forwarded"

func (s *Server) find(id string) (*adminpb.Node, error) {
	if id == "" {
		return nil, status.Error(codes.InvalidArgument, "node: is empty")
	}
	nodes, err := s.only(id)
	if err != nil {
		return nil, err
	}
	return nodes[0], nil
}

// forward is a client of the node that role or id picks, or nil when the call may not travel.
func (s *Server) forward(ctx context.Context, pick func(*adminpb.Node) bool) (adminpb.AdminClient, context.Context, error) {
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md.Get(forwarded)) > 0 {
		return nil, nil, status.Error(codes.Unavailable, "the leader is just changing: try again")
	}
	for _, n := range s.cluster.Nodes() {
		if n.Id != s.config.Self && pick(n) {
			client, err := s.peers.client(n.PeerAddress)
			if err != nil {
				return nil, nil, status.Errorf(codes.Unavailable, "node %s: %v", n.Id, err)
			}
			return client, metadata.AppendToOutgoingContext(ctx, forwarded, s.config.Self), nil
		}
	}
	return nil, nil, status.Error(codes.Unavailable, "the cluster has no leader: a majority of the voters must run")
}

func leads(n *adminpb.Node) bool { return n.Role == "leader" }

func toStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrUnknownNode):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, ErrLive):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unavailable, err.Error())
}

// RemoveNode implements the service.
func (s *Server) RemoveNode(ctx context.Context, req *adminpb.RemoveNodeRequest) (*adminpb.RemoveNodeResponse, error) {
	if _, err := s.find(req.Node); err != nil {
		return nil, err
	}
	return atLeader(ctx, func() (*adminpb.RemoveNodeResponse, error) {
		err := s.cluster.MayRemove(req.Node, req.Force)
		if err == nil && !req.DryRun {
			err = s.cluster.Remove(ctx, req.Node, req.Force)
		}
		if errors.Is(err, ErrNotLeader) {
			client, out, err := s.forward(ctx, leads)
			if err != nil {
				return nil, err
			}
			return client.RemoveNode(out, req)
		}
		if err != nil {
			return nil, toStatus(err)
		}
		if req.DryRun {
			return &adminpb.RemoveNodeResponse{}, nil
		}
		s.order("", fmt.Sprintf("%s was removed from the cluster", req.Node))
		s.logger.Warn("node removed", "node", req.Node, "force", req.Force)
		return &adminpb.RemoveNodeResponse{}, nil
	})
}

// leaderPatience is how long an order waits for a leader while they change.
const leaderPatience = 3 * time.Second

// atLeader tries an order again while nobody knows who leads. An order that another node has passed
// on is tried once: that node waits.
func atLeader[T any](ctx context.Context, order func() (T, error)) (T, error) {
	for begin := time.Now(); ; {
		res, err := order()
		if status.Code(err) != codes.Unavailable || travelled(ctx) || time.Since(begin) > leaderPatience {
			return res, err
		}
		select {
		case <-ctx.Done():
			return res, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// TransferLeader implements the service.
func (s *Server) TransferLeader(ctx context.Context, req *adminpb.TransferLeaderRequest) (*adminpb.TransferLeaderResponse, error) {
	if req.Node != "" {
		if _, err := s.find(req.Node); err != nil {
			return nil, err
		}
	}
	leader, err := req.Node, s.cluster.MayTransfer(req.Node)
	if err == nil && !req.DryRun {
		leader, err = s.cluster.Transfer(ctx, req.Node)
	}
	if errors.Is(err, ErrNotLeader) {
		client, out, err := s.forward(ctx, leads)
		if err != nil {
			return nil, err
		}
		return client.TransferLeader(out, req)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	if !req.DryRun {
		s.order("", leader+" was made the leader")
	}
	return &adminpb.TransferLeaderResponse{Leader: leader}, nil
}

// DrainNode implements the service.
func (s *Server) DrainNode(req *adminpb.DrainNodeRequest, stream grpc.ServerStreamingServer[adminpb.DrainProgress]) error {
	if _, err := s.find(req.Node); err != nil {
		return err
	}
	if req.Node != s.config.Self {
		return s.drainOther(req, stream)
	}
	if req.DryRun {
		row := &adminpb.Node{}
		s.local.Node(row)
		return stream.Send(&adminpb.DrainProgress{Node: req.Node, Phase: "not begun: a dry run", Total: row.Clients, Left: row.Clients, Done: true})
	}
	if err := s.local.StartDrain(int(req.Rate), time.Duration(req.TimeoutSeconds)*time.Second); err != nil {
		return toStatus(err)
	}
	s.order("", "a drain of this node")
	s.logger.Info("drain ordered", "rate", req.Rate, "timeout_seconds", req.TimeoutSeconds)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		progress, err := s.local.DrainStatus()
		if err != nil {
			return status.Error(codes.Aborted, err.Error())
		}
		progress.Node = req.Node
		if err := stream.Send(progress); err != nil || progress.Done {
			return err
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return nil // the drain itself goes on
		case <-s.stopping:
			return status.Error(codes.Unavailable, "the node stops")
		}
	}
}

// drainOther relays the stream of the node that is meant.
func (s *Server) drainOther(req *adminpb.DrainNodeRequest, stream grpc.ServerStreamingServer[adminpb.DrainProgress]) error {
	client, ctx, err := s.forward(stream.Context(), func(n *adminpb.Node) bool { return n.Id == req.Node })
	if err != nil {
		return err
	}
	in, err := client.DrainNode(ctx, req)
	if err != nil {
		return err
	}
	return relay(in, stream)
}
