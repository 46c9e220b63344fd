package admin

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

func checkKinds(f *adminpb.EventFilter) error {
	for _, k := range f.GetKinds() {
		if !slices.Contains(event.Kinds, event.Kind(k)) {
			return status.Errorf(codes.InvalidArgument, "filter.kinds: there is no kind %q; there are %v", k, event.Kinds)
		}
	}
	return nil
}

func wanted(f *adminpb.EventFilter, e *event.Event) bool {
	return (f.GetClient() == "" || f.Client == e.Client) && (!f.GetWarnings() || e.Warning) &&
		(len(f.GetKinds()) == 0 || slices.Contains(f.Kinds, string(e.Kind)))
}

func (s *Server) event(e *event.Event) *adminpb.Event {
	return &adminpb.Event{
		Node: s.config.Self, Sequence: e.Sequence, Time: e.Time, Kind: string(e.Kind), Warning: e.Warning, Client: e.Client,
		Reason: e.Reason, Message: e.Message, Count: e.Count,
	}
}

// order tells of an operator's order.
func (s *Server) order(client, message string) {
	s.config.Events.Add(event.Event{Kind: event.Order, Client: client, Message: message})
}

// ownEvents are this node's newest.
func (s *Server) ownEvents(limit int, f *adminpb.EventFilter) (list []*adminpb.Event) {
	for _, e := range s.config.Events.Last(limit, func(e *event.Event) bool { return wanted(f, e) }) {
		list = append(list, s.event(&e))
	}
	return list
}

// inTime puts events of several nodes in order and leaves the newest.
func inTime(list []*adminpb.Event, limit int) []*adminpb.Event {
	slices.SortStableFunc(list, func(a, b *adminpb.Event) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Sequence, b.Sequence))
	})
	return list[max(0, len(list)-limit):]
}

// ListEvents implements the service.
func (s *Server) ListEvents(ctx context.Context, req *adminpb.ListEventsRequest) (*adminpb.ListEventsResponse, error) {
	size, err := pageSize(req.Page)
	if err != nil {
		return nil, err
	}
	if err := checkKinds(req.Filter); err != nil {
		return nil, err
	}
	res := &adminpb.ListEventsResponse{}
	only := req.Filter.GetNode()
	if only == "" || only == s.config.Self {
		res.Events = s.ownEvents(size, req.Filter)
	}
	if req.GetPage().GetLocal() {
		return res, nil
	}
	nodes, err := s.only(only)
	if err != nil {
		return nil, err
	}
	answers, missing := gather(ctx, s, nodes, func(ctx context.Context, c adminpb.AdminClient) (*adminpb.ListEventsResponse, error) {
		return c.ListEvents(ctx, &adminpb.ListEventsRequest{Page: &adminpb.Page{Size: uint32(size), Local: true}, Filter: req.Filter})
	})
	res.Missing = missing
	for _, a := range answers {
		res.Events = append(res.Events, a.part.Events...)
	}
	res.Events = inTime(res.Events, size)
	return res, nil
}

// begun sends the header at once: it tells that the node takes part.
func begun(stream grpc.ServerStream) error { return stream.SendHeader(metadata.MD{}) }

// WatchEvents implements the service.
func (s *Server) WatchEvents(req *adminpb.WatchEventsRequest, stream grpc.ServerStreamingServer[adminpb.Event]) error {
	if err := checkKinds(req.Filter); err != nil {
		return err
	}
	if err := begun(stream); err != nil {
		return err
	}
	own := func(ctx context.Context, send func(*adminpb.Event) error) error {
		after := s.config.Events.Now()
		if req.Since > 0 {
			after = s.config.Events.Since(req.Since)
		}
		return s.config.Events.Watch(ctx, after, func(e *event.Event, missed uint64) error {
			if !wanted(req.Filter, e) && missed == 0 {
				return nil
			}
			out := s.event(e)
			out.Missed = missed
			return send(out)
		})
	}
	if req.Local {
		ctx, cancel := s.untilStop(stream.Context())
		defer cancel()
		return own(ctx, stream.Send)
	}
	f := following[adminpb.Event]{
		s: s, only: req.Filter.GetNode(), own: own, out: stream.Send,
		open: func(ctx context.Context, c adminpb.AdminClient) (grpc.ServerStreamingClient[adminpb.Event], error) {
			return c.WatchEvents(ctx, &adminpb.WatchEventsRequest{Filter: req.Filter, Local: true, Since: req.Since})
		},
		lost: func(node, reason string) *adminpb.Event {
			return &adminpb.Event{
				Node: node, Time: nowMilli(), Kind: string(event.Node), Warning: true, Count: 1,
				Message: s.config.Self + " can't follow its events: " + reason,
			}
		},
	}
	return f.run(stream.Context())
}

// untilStop is a context that ends when the node stops, too.
func (s *Server) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.stopped, cancel)
	return ctx, func() { stop(); cancel() }
}
