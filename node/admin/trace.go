package admin

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/node/trace"
	"github.com/skein-mqtt/skein/proto/adminpb"
	"github.com/skein-mqtt/skein/proto/topic"
)

func nowMilli() int64 { return time.Now().UnixMilli() }

// Trace implements the service.
func (s *Server) Trace(req *adminpb.TraceRequest, stream grpc.ServerStreamingServer[adminpb.TraceStep]) error {
	switch {
	case req.Client == "" && req.Filter == "":
		return status.Error(codes.InvalidArgument, "client or filter: one of them must be given")
	case req.Sample < 0 || req.Sample > 1:
		return status.Errorf(codes.InvalidArgument, "sample: %g is not between 0 and 1", req.Sample)
	case req.Rate > 100_000:
		return status.Errorf(codes.InvalidArgument, "rate: %d is more than 100000 steps a second", req.Rate)
	}
	if req.Filter != "" {
		if err := topic.ValidateFilter(req.Filter); err != nil {
			return status.Errorf(codes.InvalidArgument, "filter %q: %v", req.Filter, err)
		}
	}
	tap, err := s.config.Tracer.Open(trace.Rule{Client: req.Client, Filter: req.Filter, Sample: req.Sample, Rate: int(req.Rate)})
	if errors.Is(err, trace.ErrTooMany) {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	if err != nil {
		return err
	}
	defer tap.Close()
	if err := begun(stream); err != nil {
		return err
	}
	joined := func(node string) *adminpb.TraceStep {
		return &adminpb.TraceStep{Node: node, Time: uint64(time.Now().UnixNano()), Kind: "joined"}
	}
	own := func(ctx context.Context, send func(*adminpb.TraceStep) error) error {
		if !req.Local {
			if err := send(joined(s.config.Self)); err != nil {
				return err
			}
		}
		for {
			select {
			case <-ctx.Done():
				return nil
			case step := <-tap.C:
				if err := send(s.step(&step)); err != nil {
					return err
				}
			}
		}
	}
	if req.Local {
		ctx, cancel := s.untilStop(stream.Context())
		defer cancel()
		return own(ctx, stream.Send)
	}
	f := following[adminpb.TraceStep]{
		s: s, own: own, out: stream.Send, joined: joined,
		open: func(ctx context.Context, c adminpb.AdminClient) (grpc.ServerStreamingClient[adminpb.TraceStep], error) {
			return c.Trace(ctx, &adminpb.TraceRequest{Client: req.Client, Filter: req.Filter, Sample: req.Sample, Rate: req.Rate, Local: true})
		},
		lost: func(node, reason string) *adminpb.TraceStep {
			return &adminpb.TraceStep{Node: node, Time: uint64(time.Now().UnixNano()), Kind: "lost", Detail: reason}
		},
	}
	return f.run(stream.Context())
}

func (s *Server) step(t *trace.Step) *adminpb.TraceStep {
	return &adminpb.TraceStep{
		Node: s.config.Self, Time: uint64(t.Time), Message: t.Message, Kind: t.Kind, Client: t.Client, Publisher: t.Publisher,
		Topic: t.Topic, Qos: uint32(t.QoS), PacketId: uint32(t.PacketID), Index: t.Index, TookNano: uint64(t.Took), Detail: t.Detail,
		Skipped: t.Skipped,
	}
}
