package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/skein-mqtt/skein/node/operators"
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

	listeners []net.Listener // of operators
	servers   []*grpc.Server
	health    *health.Server
	peers     peers
	serving   sync.WaitGroup
	stopping  <-chan struct{}
	stopped   context.Context // ends with Close
	stop      sync.Once
	halt      context.CancelFunc
}

// handshakePatience bounds how long a connection may take until its first call can come.
const handshakePatience = 10 * time.Second

// Open binds the addresses and starts to answer. Close ends it.
func Open(config Config, state State, local Local, cluster Cluster) (*Server, error) {
	if config.Gather == 0 {
		config.Gather = 900 * time.Millisecond
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Gate == nil {
		var err error
		if config.Gate, err = operators.Open(operators.Config{LocalRole: operators.Admin}); err != nil {
			return nil, err
		}
	}
	if config.Tracer == nil {
		config.Tracer = &trace.Tracer{}
	}
	stopped, halt := context.WithCancel(context.Background())
	s := &Server{
		config: config, state: state, local: local, cluster: cluster, logger: config.Logger,
		health: health.NewServer(), stopping: stopped.Done(), stopped: stopped, halt: halt, peers: peers{dial: config.Dial},
	}
	if err := s.bind(); err != nil {
		for _, l := range s.listeners {
			_ = l.Close()
		}
		return nil, err
	}
	for _, l := range s.listeners {
		var creds grpc.ServerOption = grpc.EmptyServerOption{}
		d := door{s: s, local: true}
		if config.Seal != nil && l.Addr().Network() == "tcp" {
			creds, d.local = grpc.Creds(credentials.NewTLS(config.Seal.Config())), false
		}
		s.serve(l, creds, grpc.UnaryInterceptor(d.unary), grpc.StreamInterceptor(d.stream))
	}
	if config.Nodes != nil {
		s.serve(config.Nodes)
	}
	return s, nil
}

// bind opens the operators' listeners.
func (s *Server) bind() error {
	if s.config.Listen != "" {
		l, err := net.Listen("tcp", s.config.Listen)
		if err != nil {
			return fmt.Errorf("admin.listen: %w", err)
		}
		s.listeners = append(s.listeners, l)
		if s.config.Seal == nil && !localListener(l) {
			return fmt.Errorf("admin.listen: %s can be reached from other hosts, and there is no certificate for it: set admin.cert and admin.key", s.config.Listen)
		}
	}
	if s.config.Socket != "" {
		l, err := operators.ListenUnix(s.config.Socket)
		if err != nil {
			return fmt.Errorf("admin.socket: %w", err)
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

// serve answers calls that come in by l.
func (s *Server) serve(l net.Listener, options ...grpc.ServerOption) {
	server := grpc.NewServer(append(options, grpc.MaxRecvMsgSize(4<<20), grpc.ConnectionTimeout(handshakePatience))...)
	adminpb.RegisterAdminServer(server, s)
	adminpb.RegisterAccessServer(server, s.access())
	healthpb.RegisterHealthServer(server, s.health)
	reflection.Register(server)
	s.servers = append(s.servers, server)
	s.serving.Go(func() {
		if err := server.Serve(l); err != nil {
			s.logger.Error("admin service ended", "error", err)
		}
	})
}

// access is the service Access, or one that knows nothing where the node keeps no users.
func (s *Server) access() adminpb.AccessServer {
	if s.config.Access == nil {
		return adminpb.UnimplementedAccessServer{}
	}
	return &accessServer{s: s, state: s.config.Access, rules: s.config.Rules}
}

// Addr is the bound address of Listen, or of Socket without it.
func (s *Server) Addr() net.Addr { return s.listeners[0].Addr() }

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
		var group sync.WaitGroup
		for _, server := range s.servers {
			group.Go(func() {
				over := time.AfterFunc(time.Second, server.Stop)
				server.GracefulStop()
				over.Stop()
			})
		}
		group.Wait()
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
