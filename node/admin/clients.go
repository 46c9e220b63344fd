package admin

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
	"github.com/skein-mqtt/skein/proto/topic"
)

// ErrUnknownClient: no client and no session has that id.
var ErrUnknownClient = errors.New("no such client")

// travelled tells whether another node has passed the call on: then this one answers for itself alone.
func travelled(ctx context.Context) bool {
	md, ok := metadata.FromIncomingContext(ctx)
	return ok && len(md.Get(forwarded)) > 0
}

// passOn marks a call to another node.
func (s *Server) passOn(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, forwarded, s.config.Self)
}

// describedEvents is how many of its last events a client's description ends with.
const describedEvents = 20

// DescribeClient implements the service.
func (s *Server) DescribeClient(ctx context.Context, req *adminpb.DescribeClientRequest) (*adminpb.DescribeClientResponse, error) {
	if req.Id == "" {
		return nil, status.Error(codes.InvalidArgument, "id: is empty")
	}
	res := &adminpb.DescribeClientResponse{
		Dropped: s.local.Losses(req.Id), Events: s.ownEvents(describedEvents, &adminpb.EventFilter{Client: req.Id}),
	}
	s.local.Clients(func(c *adminpb.Client) bool {
		if c.Id == req.Id {
			c.Node = s.config.Self
			res.Client = c
		}
		return res.Client == nil
	})
	s.local.Subscriptions(func(sub *adminpb.Subscription) bool {
		if sub.Client == req.Id {
			sub.Node = s.config.Self
			res.Subscriptions = append(res.Subscriptions, sub)
		}
		return true
	})
	if travelled(ctx) {
		return res, nil
	}
	if one, ok := s.state.Session(req.Id); ok {
		res.Session = one
		s.state.Subscriptions(req.Id, func(sub *adminpb.Subscription) bool {
			if sub.Client == req.Id {
				sub.Node = one.Node
				res.Subscriptions = append(res.Subscriptions, sub)
			}
			return sub.Client == req.Id
		})
	}
	answers, missing := gather(ctx, s, s.cluster.Nodes(), func(ctx context.Context, c adminpb.AdminClient) (*adminpb.DescribeClientResponse, error) {
		return c.DescribeClient(s.passOn(ctx), req)
	})
	res.Missing = missing
	for _, a := range answers {
		if c := a.part.Client; c != nil && (res.Client == nil || c.Epoch > res.Client.Epoch) {
			res.Client = c
		}
		res.Subscriptions = append(res.Subscriptions, a.part.Subscriptions...)
		res.Events = append(res.Events, a.part.Events...)
		for r, n := range a.part.Dropped {
			if res.Dropped == nil {
				res.Dropped = make(map[string]uint64)
			}
			res.Dropped[r] += n
		}
	}
	res.Events = inTime(res.Events, describedEvents)
	if res.Client == nil && res.Session == nil && len(missing) == 0 && len(res.Dropped) == 0 && len(res.Events) == 0 {
		return nil, status.Errorf(codes.NotFound, "no client %q: it is not connected and has no stored session", req.Id)
	}
	return res, nil
}

// DisconnectClient implements the service.
func (s *Server) DisconnectClient(ctx context.Context, req *adminpb.DisconnectClientRequest) (*adminpb.DisconnectClientResponse, error) {
	if req.DryRun {
		return s.findConnection(ctx, req.Id)
	}
	if s.local.Disconnect(req.Id) {
		s.order(req.Id, "its connection was closed by an operator")
		s.logger.Warn("client disconnected by an operator", "client", req.Id)
		return &adminpb.DisconnectClientResponse{Node: s.config.Self}, nil
	}
	absent := status.Errorf(codes.NotFound, "client %q is not connected", req.Id)
	if req.Local || travelled(ctx) {
		return nil, absent
	}
	answers, missing := gather(ctx, s, s.cluster.Nodes(), func(ctx context.Context, c adminpb.AdminClient) (*adminpb.DisconnectClientResponse, error) {
		res, err := c.DisconnectClient(s.passOn(ctx), req)
		if status.Code(err) == codes.NotFound {
			return nil, nil
		}
		return res, err
	})
	for _, a := range answers {
		if a.part != nil {
			return a.part, nil
		}
	}
	if len(missing) > 0 {
		return nil, status.Errorf(codes.Unavailable, "client %q is not on the nodes that answered; %s did not: %s", req.Id, missing[0].Node, missing[0].Reason)
	}
	return nil, absent
}

// findConnection tells where a client is connected.
func (s *Server) findConnection(ctx context.Context, id string) (*adminpb.DisconnectClientResponse, error) {
	d, err := s.DescribeClient(ctx, &adminpb.DescribeClientRequest{Id: id})
	if err != nil {
		return nil, err
	}
	if d.Client == nil {
		return nil, status.Errorf(codes.NotFound, "client %q is not connected", id)
	}
	return &adminpb.DisconnectClientResponse{Node: d.Client.Node}, nil
}

// DeleteSession implements the service.
func (s *Server) DeleteSession(ctx context.Context, req *adminpb.DeleteSessionRequest) (*adminpb.DeleteSessionResponse, error) {
	if _, ok := s.state.Session(req.Id); req.DryRun && ok {
		return &adminpb.DeleteSessionResponse{}, nil
	} else if req.DryRun {
		return nil, status.Errorf(codes.NotFound, "no session %q", req.Id)
	}
	err := s.local.DeleteSession(ctx, req.Id)
	if errors.Is(err, ErrUnknownClient) {
		return nil, status.Errorf(codes.NotFound, "no session %q", req.Id)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	s.order(req.Id, "its session was deleted by an operator")
	s.logger.Warn("session deleted by an operator", "client", req.Id)
	return &adminpb.DeleteSessionResponse{}, nil
}

// DeleteRetained implements the service: an empty retained message for each topic that has one now.
func (s *Server) DeleteRetained(ctx context.Context, req *adminpb.DeleteRetainedRequest) (*adminpb.DeleteRetainedResponse, error) {
	if err := topic.ValidateFilter(req.Filter); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "filter %q: %v", req.Filter, err)
	}
	var topics []string
	s.state.Retained(req.Filter, "", func(r *adminpb.Retained) bool {
		topics = append(topics, r.Topic)
		return true
	})
	res := &adminpb.DeleteRetainedResponse{}
	if req.DryRun {
		res.Deleted = uint64(len(topics))
		return res, nil
	}
	for _, t := range topics {
		if _, err := s.local.Publish(ctx, &adminpb.PublishRequest{Topic: t, Retain: true}); err != nil {
			return nil, status.Errorf(codes.Unavailable, "after %d of %d: %v", res.Deleted, len(topics), err)
		}
		res.Deleted++
	}
	s.order("", fmt.Sprintf("%d retained messages that match %s were deleted by an operator", res.Deleted, req.Filter))
	s.logger.Warn("retained messages deleted by an operator", "filter", req.Filter, "messages", res.Deleted)
	return res, nil
}

// Publish implements the service.
func (s *Server) Publish(ctx context.Context, req *adminpb.PublishRequest) (*adminpb.PublishResponse, error) {
	if err := topic.ValidateName(req.Topic); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "topic %q: %v", req.Topic, err)
	}
	if req.Qos > 2 {
		return nil, status.Errorf(codes.InvalidArgument, "qos: %d is not 0, 1 or 2", req.Qos)
	}
	matched, err := s.local.Publish(ctx, req)
	if err != nil {
		return nil, toStatus(err)
	}
	return &adminpb.PublishResponse{Matched: matched}, nil
}

// Explain implements the service.
func (s *Server) Explain(ctx context.Context, req *adminpb.ExplainRequest) (*adminpb.ExplainResponse, error) {
	if err := topic.ValidateName(req.Topic); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "topic %q: %v", req.Topic, err)
	}
	if req.Qos > 2 {
		return nil, status.Errorf(codes.InvalidArgument, "qos: %d is not 0, 1 or 2", req.Qos)
	}
	res := &adminpb.ExplainResponse{}
	res.Road, res.Reason = s.local.Road(req)
	if req.AsUser {
		var may bool
		may, res.Verdict = s.local.MayPublish(req.Username, req.Publisher, req.Topic)
		res.Refused = !may
	}
	page := &adminpb.Page{Size: largestPage}
	for {
		list, err := s.ListSubscriptions(ctx, &adminpb.ListSubscriptionsRequest{Page: page, Topic: req.Topic})
		if err != nil {
			return nil, err
		}
		res.Missing = list.Missing
		for _, sub := range list.Subscriptions {
			e := s.explain(req, sub)
			if res.Refused {
				e.Outcome, e.Delivered = "not delivered: the publisher may not publish to it", false
			}
			res.Subscriptions = append(res.Subscriptions, e)
		}
		if list.NextToken == "" {
			return res, nil
		}
		page.Token = list.NextToken
	}
}

// explain is what would become of a publish for one subscription.
func (s *Server) explain(req *adminpb.ExplainRequest, sub *adminpb.Subscription) *adminpb.Explained {
	e := &adminpb.Explained{Subscription: sub, Qos: min(req.Qos, sub.Qos), Delivered: true}
	queues := false
	if one, ok := s.state.Session(sub.Client); ok {
		queues = one.QueueQos0
	}
	no := func(why string) *adminpb.Explained {
		e.Outcome, e.Delivered = why, false
		return e
	}
	switch {
	case sub.NoLocal && req.Publisher == sub.Client:
		return no("not delivered: No Local, and it is the publisher")
	case !s.local.MayReceive(sub.Client, req.Topic):
		return no("not delivered: this node's access list forbids it (counted as not_allowed)")
	case sub.Node == "" && e.Qos == 0 && !queues:
		return no("not delivered: it is offline and QoS 0 is not queued (counted as offline)")
	case sub.Node == "":
		e.Outcome = "queued: it is offline"
	default:
		e.Outcome = "delivered by " + sub.Node
	}
	if sub.Group != "" {
		e.Outcome += ", if it is chosen among the members of group " + sub.Group
	}
	return e
}
