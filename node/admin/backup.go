package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

var (
	// ErrBadBackup: a backup can't be read.
	ErrBadBackup = errors.New("the backup can't be read")
	// ErrHasState: a restore would lose what the cluster has.
	ErrHasState = errors.New("the state that there is would be lost")
)

// chunkSize is how much of a backup goes into one message.
const chunkSize = 256 << 10

// chunks writes into a stream.
type chunks struct {
	stream grpc.ServerStreamingServer[adminpb.BackupChunk]
	first  *adminpb.BackupChunk
	hash   hash.Hash
	size   uint64
}

// Write implements io.Writer.
func (c *chunks) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), chunkSize)]
		m := &adminpb.BackupChunk{}
		if c.first != nil {
			m, c.first = c.first, nil
		}
		m.Data = part
		if err := c.stream.Send(m); err != nil {
			return n, err
		}
		c.hash.Write(part)
		c.size += uint64(len(part))
		n += len(part)
		p = p[len(part):]
	}
	return n, nil
}

// Backup implements the service.
func (s *Server) Backup(_ *adminpb.BackupRequest, stream grpc.ServerStreamingServer[adminpb.BackupChunk]) error {
	ctx, cancel := s.untilStop(stream.Context())
	defer cancel()
	var out *chunks
	err := s.cluster.Backup(ctx, func(index uint64, time int64) io.Writer {
		out = &chunks{
			stream: stream, hash: sha256.New(),
			first: &adminpb.BackupChunk{Index: index, Time: time, Node: s.config.Self},
		}
		return out
	})
	if err != nil {
		return toStatus(err)
	}
	s.order("", "a backup was made")
	return stream.Send(&adminpb.BackupChunk{Last: true, Size: out.size, Sha256: out.hash.Sum(nil)})
}

// Restore implements the service. The data goes to a file first: it is looked at, then read again.
func (s *Server) Restore(stream grpc.ClientStreamingServer[adminpb.RestoreChunk, adminpb.RestoreResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	h := first.Header
	if h == nil {
		return status.Error(codes.InvalidArgument, "the first message is not the header")
	}
	file, err := os.CreateTemp(s.config.Folder, "restore-*.tmp")
	if err != nil {
		return status.Errorf(codes.Internal, "no room for the backup: %v", err)
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}()
	if err := receive(stream, file, h); err != nil {
		return err
	}
	res, err := atLeader(stream.Context(), func() (*adminpb.RestoreResponse, error) { return s.restore(stream.Context(), file, h) })
	if err != nil {
		return err
	}
	return stream.SendAndClose(res)
}

// receive writes the data of a restore to a file.
func receive(stream grpc.ClientStreamingServer[adminpb.RestoreChunk, adminpb.RestoreResponse], file *os.File, h *adminpb.RestoreHeader) error {
	sum, size := sha256.New(), uint64(0)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if size += uint64(len(m.Data)); size > h.Size {
			return status.Errorf(codes.InvalidArgument, "more than the %d bytes that the header says", h.Size)
		}
		if _, err := file.Write(m.Data); err != nil {
			return status.Errorf(codes.Internal, "no room for the backup: %v", err)
		}
		sum.Write(m.Data)
	}
	if size != h.Size || !bytes.Equal(sum.Sum(nil), h.Sha256) {
		return status.Errorf(codes.InvalidArgument, "%d bytes came, of %d, or their digest is not the header's", size, h.Size)
	}
	return nil
}

func (s *Server) restore(ctx context.Context, file *os.File, h *adminpb.RestoreHeader) (*adminpb.RestoreResponse, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	res, err := s.cluster.Restore(ctx, file, h.Force, h.DryRun)
	switch {
	case errors.Is(err, ErrNotLeader):
		return s.restoreAtLeader(ctx, file, h)
	case errors.Is(err, ErrBadBackup):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ErrHasState):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case err != nil:
		return nil, toStatus(err)
	}
	if !h.DryRun {
		s.order("", fmt.Sprintf("the state was replaced by a backup's of index %d", res.BackupIndex))
		s.logger.Warn("the state was replaced by a backup's", "index", res.BackupIndex, "sessions", res.Sessions)
	}
	return res, nil
}

// restoreAtLeader passes a whole backup on.
func (s *Server) restoreAtLeader(ctx context.Context, file *os.File, h *adminpb.RestoreHeader) (*adminpb.RestoreResponse, error) {
	client, out, err := s.forward(ctx, leads)
	if err != nil {
		return nil, err
	}
	stream, err := client.Restore(out)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&adminpb.RestoreChunk{Header: h}); err != nil {
		return closed(stream)
	}
	buf := make([]byte, chunkSize)
	for {
		n, err := file.Read(buf)
		if n > 0 {
			if err := stream.Send(&adminpb.RestoreChunk{Data: buf[:n]}); err != nil {
				return closed(stream)
			}
		}
		if errors.Is(err, io.EOF) {
			return closed(stream)
		}
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
}

// closed ends the sending; the answer says what was wrong with it.
func closed(stream grpc.ClientStreamingClient[adminpb.RestoreChunk, adminpb.RestoreResponse]) (*adminpb.RestoreResponse, error) {
	return stream.CloseAndRecv()
}

// Snapshot implements the service.
func (s *Server) Snapshot(ctx context.Context, req *adminpb.SnapshotRequest) (*adminpb.SnapshotResponse, error) {
	if req.Node != "" && req.Node != s.config.Self {
		return onNode(ctx, s, req.Node, func(ctx context.Context, c adminpb.AdminClient) (*adminpb.SnapshotResponse, error) {
			return c.Snapshot(ctx, req)
		})
	}
	index, err := s.local.Snapshot(req.DryRun)
	if err != nil {
		return nil, toStatus(err)
	}
	return &adminpb.SnapshotResponse{Node: s.config.Self, Index: index}, nil
}

// onNode asks another node.
func onNode[T any](ctx context.Context, s *Server, node string, ask func(context.Context, adminpb.AdminClient) (T, error)) (T, error) {
	var none T
	if _, err := s.find(node); err != nil {
		return none, err
	}
	client, out, err := s.forward(ctx, func(n *adminpb.Node) bool { return n.Id == node })
	if err != nil {
		return none, err
	}
	return ask(out, client)
}
