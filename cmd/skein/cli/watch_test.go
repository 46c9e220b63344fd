package cli

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

func fakeEvents() []*adminpb.Event {
	return []*adminpb.Event{
		{Node: "node1", Sequence: 4, Time: ago(30 * time.Hour), Kind: "node", Message: "it is in service", Count: 1},
		{Node: "node2", Sequence: 7, Time: ago(time.Minute), Kind: "connected", Client: "a\x1b[31m", Message: "with a clean session", Count: 1},
		{Node: "node1", Sequence: 5, Time: ago(time.Second), Kind: "dropped", Warning: true, Client: "a", Reason: "queue_full", Message: "12 messages were not delivered: queue_full", Count: 12},
	}
}

func (fake) ListEvents(_ context.Context, req *adminpb.ListEventsRequest) (*adminpb.ListEventsResponse, error) {
	if req.Filter.GetNode() == "node9" {
		return nil, status.Error(codes.NotFound, `no node "node9"`)
	}
	return &adminpb.ListEventsResponse{Events: fakeEvents(), Missing: []*adminpb.Missing{{Node: "node3", Reason: "no answer in time"}}}, nil
}

// WatchEvents tells one that is listed already, one that is new, and one of a node that can't be followed.
func (fake) WatchEvents(_ *adminpb.WatchEventsRequest, s grpc.ServerStreamingServer[adminpb.Event]) error {
	for _, e := range []*adminpb.Event{
		fakeEvents()[1],
		{Node: "node2", Sequence: 9, Time: ago(0), Kind: "refused", Warning: true, Reason: "not authorized", Message: "not authorized", Count: 1, Missed: 1},
		{Node: "node3", Time: ago(0), Kind: "node", Warning: true, Message: "node1 can't follow its events: connection refused", Count: 1},
	} {
		if err := s.Send(e); err != nil {
			return err
		}
	}
	return nil
}

func (fake) Trace(req *adminpb.TraceRequest, s grpc.ServerStreamingServer[adminpb.TraceStep]) error {
	at := uint64(clock.UnixNano())
	step := func(ms float64, node, kind, client, detail string) *adminpb.TraceStep {
		return &adminpb.TraceStep{
			Node: node, Time: at + uint64(ms*1e6), Message: "89abcdef01234567", Kind: kind, Client: client, Publisher: "p", Topic: req.Filter + req.Client, Detail: detail,
		}
	}
	done := step(1.5, "node1", "committed", "p", "the publisher's acknowledgement is due")
	done.Index, done.TookNano = 77, 1_400_000
	sent := step(1.75, "node2", "sent", "s", "at QoS 1")
	sent.PacketId, sent.Skipped = 3, 2
	for _, s2 := range []*adminpb.TraceStep{
		{Node: "node1", Kind: "joined"},
		{Node: "node3", Kind: "lost", Detail: "no answer"},
		step(0, "node1", "received", "p", "QoS 1, 4 bytes"), done, sent,
	} {
		if err := s.Send(s2); err != nil {
			return err
		}
	}
	return nil
}

func (fake) Logs(req *adminpb.LogsRequest, s grpc.ServerStreamingServer[adminpb.LogLine]) error {
	return s.Send(&adminpb.LogLine{Node: req.Node, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local).UnixMilli(), Level: "INFO", Text: "msg=hello\x1b"})
}
