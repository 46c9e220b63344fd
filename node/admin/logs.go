package admin

import (
	"errors"
	"io"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// Line is one that the node has logged.
type Line struct {
	Time  int64 // ms since 1970
	Level slog.Level
	Text  string
}

// Logs implements the service.
func (s *Server) Logs(req *adminpb.LogsRequest, stream grpc.ServerStreamingServer[adminpb.LogLine]) error {
	least := slog.LevelDebug
	if req.Level != "" {
		if err := least.UnmarshalText([]byte(req.Level)); err != nil {
			return status.Errorf(codes.InvalidArgument, "level: %q is not debug, info, warn or error", req.Level)
		}
	}
	if req.Node != "" && req.Node != s.config.Self {
		return s.logsOfOther(req, stream)
	}
	if s.config.Lines == nil {
		return status.Error(codes.Unimplemented, "this node remembers nothing of its log: see admin.log_lines")
	}
	list, first, _ := s.config.Lines.Read(0)
	after := first + uint64(len(list)) - 1
	var out []*adminpb.LogLine
	for _, l := range list {
		if l.Level >= least {
			out = append(out, s.line(&l))
		}
	}
	if req.Tail > 0 && len(out) > int(req.Tail) {
		out = out[len(out)-int(req.Tail):]
	}
	for _, l := range out {
		if err := stream.Send(l); err != nil {
			return err
		}
	}
	if !req.Follow {
		return nil
	}
	ctx, cancel := s.untilStop(stream.Context())
	defer cancel()
	return s.config.Lines.Watch(ctx, after, func(_ uint64, l Line, _ uint64) error {
		if l.Level < least {
			return nil
		}
		return stream.Send(s.line(&l))
	})
}

func (s *Server) line(l *Line) *adminpb.LogLine {
	return &adminpb.LogLine{Node: s.config.Self, Time: l.Time, Level: l.Level.String(), Text: l.Text}
}

func (s *Server) logsOfOther(req *adminpb.LogsRequest, stream grpc.ServerStreamingServer[adminpb.LogLine]) error {
	if _, err := s.find(req.Node); err != nil {
		return err
	}
	client, ctx, err := s.forward(stream.Context(), func(n *adminpb.Node) bool { return n.Id == req.Node })
	if err != nil {
		return err
	}
	in, err := client.Logs(ctx, req)
	if err != nil {
		return err
	}
	return relay(in, stream)
}

// relay passes a stream of another node on.
func relay[T any](in grpc.ServerStreamingClient[T], out grpc.ServerStreamingServer[T]) error {
	for {
		v, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := out.Send(v); err != nil {
			return err
		}
	}
}
