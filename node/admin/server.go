package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/skein-mqtt/skein/node/trace"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

// Server is the admin service of one node.
type Server struct {
	adminpb.UnimplementedAdminServer

	config  Config
	state   State
	local   Local
	cluster Cluster
	logger  *slog.Logger

	listener net.Listener
	grpc     *grpc.Server
	health   *health.Server
	peers    peers
	serving  sync.WaitGroup
	stopping <-chan struct{}
	stopped  context.Context // ends with Close
	stop     sync.Once
	halt     context.CancelFunc
}

// Open binds the address and starts to answer. Close ends it.
func Open(config Config, state State, local Local, cluster Cluster) (*Server, error) {
	if config.Gather == 0 {
		config.Gather = 900 * time.Millisecond
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	l, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin.listen: %w", err)
	}
	if config.Tracer == nil {
		config.Tracer = &trace.Tracer{}
	}
	stopped, halt := context.WithCancel(context.Background())
	s := &Server{
		config: config, state: state, local: local, cluster: cluster, logger: config.Logger,
		listener: l, health: health.NewServer(), stopping: stopped.Done(), stopped: stopped, halt: halt,
		grpc: grpc.NewServer(grpc.MaxRecvMsgSize(4 << 20)),
	}
	adminpb.RegisterAdminServer(s.grpc, s)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.serving.Go(func() {
		if err := s.grpc.Serve(l); err != nil {
			s.logger.Error("admin service ended", "error", err)
		}
	})
	return s, nil
}

// Addr is the bound address.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// SetServing tells the standard health service whether the node is ready.
func (s *Server) SetServing(ready bool) {
	st := healthpb.HealthCheckResponse_NOT_SERVING
	if ready {
		st = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", st)
	s.health.SetServingStatus(adminpb.Admin_ServiceDesc.ServiceName, st)
}

// Close ends the calls that are under way and waits for them; a drain's stream ends with its
// node, so it gets a moment to say its last word.
func (s *Server) Close() error {
	s.stop.Do(func() {
		s.halt()
		s.health.Shutdown()
		over := time.AfterFunc(time.Second, s.grpc.Stop)
		s.grpc.GracefulStop()
		over.Stop()
		s.peers.close()
	})
	s.serving.Wait()
	return nil
}

// Version implements the service.
func (s *Server) Version(context.Context, *adminpb.VersionRequest) (*adminpb.VersionResponse, error) {
	return s.config.Version, nil
}

// StateHash implements the service.
func (s *Server) StateHash(context.Context, *adminpb.StateHashRequest) (*adminpb.StateHashResponse, error) {
	applied, digest := s.state.Hash()
	return &adminpb.StateHashResponse{Applied: applied, Hash: digest}, nil
}
