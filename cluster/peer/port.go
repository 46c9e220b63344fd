package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// Identity is which cluster this node belongs to. Clusters of one name that were founded apart have
// different ones; their logs must never mix.
type Identity interface {
	// Get is the identity; empty: the node is blank.
	Get() string
	// Adopt makes id the node's for ever, on its disk too, unless it has one already. It blocks for
	// a disk write.
	Adopt(id string) error
}

// Security proves who is at the two ends of a connection, and hides what it carries. Server and Client run their side
// of a handshake until ctx ends at most; they return the secured connection and which node is at its other end.
type Security interface {
	Server(ctx context.Context, conn net.Conn) (net.Conn, string, error)
	Client(ctx context.Context, conn net.Conn) (net.Conn, string, error)
}

// Config of a port. Bind, Cluster, Server and Identity are required.
type Config struct {
	Bind      string // HOST:PORT; port 0 takes a free one
	Advertise string // HOST:PORT as the others should use it, port 0: the bound one; empty: as bound
	Cluster   string // nodes of another name are refused
	Server    string // this node's server id: raft streams for another are refused
	Identity  Identity
	Security  Security // nil: connections are plain, and whoever knows the cluster's name is taken for a node
	Logger    *slog.Logger
}

const (
	// greetPatience bounds how long a new connection may take until its protocol begins.
	greetPatience = 2 * time.Second
	// maxGreeting bounds the connections that have not said yet what they are for; more wait in the
	// kernel's queue.
	maxGreeting = 128
	// maxMessage bounds a gRPC message: a batch may hold one packet of the largest size that MQTT has.
	maxMessage = 320 << 20
	// The windows let a link go at full speed over a path of some 30 ms.
	streamWindow     = 4 << 20
	connectionWindow = 8 << 20
	bufferSize       = 64 << 10
)

// Port is a node's port. All methods may be called from any goroutine.
type Port struct {
	cfg      Config
	listener net.Listener
	address  string
	rpc      *queue // connections for the gRPC server
	raft     *queue // connections for raft
	orders   *queue // connections for Orders

	refused  atomic.Uint64
	lastWarn atomic.Int64 // ms since 1970

	ctx   context.Context
	stop  context.CancelFunc
	loud  context.Context // ends with Quiet: raft dials under it
	quiet context.CancelFunc
	group sync.WaitGroup
	once  sync.Once
	err   error

	mu       sync.Mutex
	server   *grpc.Server
	greeting map[net.Conn]struct{}
	pool     map[connection]*grpc.ClientConn // nil: closed
}

// Open binds the port and begins to take connections; gRPC's wait until Serve is called.
func Open(cfg Config) (*Port, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Cluster) > maxName || len(cfg.Server) > maxName {
		return nil, fmt.Errorf("the cluster's name and a node's id must not be longer than %d bytes", maxName)
	}
	listen := net.ListenConfig{KeepAliveConfig: probes}
	listener, err := listen.Listen(context.Background(), "tcp", cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("peer address: %w", err)
	}
	p := &Port{cfg: cfg, listener: listener, greeting: make(map[net.Conn]struct{}), pool: make(map[connection]*grpc.ClientConn)}
	if p.address, err = advertised(cfg.Advertise, listener.Addr().String()); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.loud, p.quiet = context.WithCancel(p.ctx)
	p.rpc, p.raft, p.orders = newQueue(p.address), newQueue(p.address), newQueue(p.address)
	p.group.Go(p.accept)
	return p, nil
}

// advertised is the address that the others use.
func advertised(configured, bound string) (string, error) {
	host, port, err := net.SplitHostPort(bound)
	if err != nil {
		return "", fmt.Errorf("peer address: %w", err)
	}
	if configured != "" {
		h, p, err := net.SplitHostPort(configured)
		if err != nil {
			return "", fmt.Errorf("advertised peer address: %w", err)
		}
		if p == "0" {
			p = port
		}
		return net.JoinHostPort(h, p), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		return "", fmt.Errorf("peer address %s is bound to every address: advertise the one that the other nodes can reach", bound)
	}
	return bound, nil
}

// Address is where the others reach this port.
func (p *Port) Address() string { return p.address }

// Orders are the connections that other nodes have made with DialOrders: what they carry is none of this package's
// business. To be taken once; connections wait, not for long, until they are accepted. Closing it refuses more.
func (p *Port) Orders() net.Listener { return p.orders }

// DialOrders connects to the Orders of the node at an address, until ctx ends at most. The caller closes the connection.
func (p *Port) DialOrders(ctx context.Context, address string) (net.Conn, error) {
	return p.dial(ctx, address, kindOrders, "")
}

// Serve answers gRPC calls with s, until Close. To be called once.
func (p *Port) Serve(s clusterpb.PeerServer) {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connectionWindow),
		grpc.ReadBufferSize(bufferSize), grpc.WriteBufferSize(bufferSize),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Second, Timeout: 2 * time.Second}),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(ownUnary), grpc.StreamInterceptor(ownStream),
	)
	clusterpb.RegisterPeerServer(server, s)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return
	}
	p.server = server
	p.group.Go(func() {
		if err := server.Serve(p.rpc); err != nil && p.ctx.Err() == nil {
			p.cfg.Logger.Error("the server for other nodes ended", "error", err)
		}
	})
}

// Quiet ends all gRPC calls of others, takes no more, and waits for the handlers to return. Raft's streams
// go on, but it dials nobody any more. This node's own calls go on.
func (p *Port) Quiet() {
	p.quiet()
	p.mu.Lock()
	server := p.server
	p.mu.Unlock()
	if server != nil {
		server.Stop()
	}
	_ = p.rpc.Close()
}

// Close ends everything and waits for it.
func (p *Port) Close() error {
	p.once.Do(func() {
		p.mu.Lock()
		p.stop()
		for conn := range p.greeting {
			_ = conn.Close()
		}
		clients := p.pool
		p.pool = nil
		p.mu.Unlock()
		p.err = p.listener.Close()
		p.Quiet()
		_ = p.raft.Close()
		_ = p.orders.Close()
		for _, c := range clients {
			_ = c.Close()
		}
		p.group.Wait()
	})
	return p.err
}

func (p *Port) accept() {
	slots := make(chan struct{}, maxGreeting)
	for {
		select {
		case slots <- struct{}{}:
		case <-p.ctx.Done():
			return
		}
		conn, err := p.listener.Accept()
		if err != nil {
			<-slots
			if p.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely: the connections that exist must go on.
			p.cfg.Logger.Warn("a connection of another node could not be taken", "error", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-p.ctx.Done():
			}
			continue
		}
		p.group.Go(func() {
			defer func() { <-slots }()
			p.welcome(conn)
		})
	}
}

// welcome finds out what a connection is for and hands it on.
func (p *Port) welcome(conn net.Conn) {
	if !p.greets(conn) {
		_ = conn.Close()
		return
	}
	secured, g, err := p.receive(conn)
	p.mu.Lock()
	delete(p.greeting, conn)
	p.mu.Unlock()
	if err != nil {
		_ = conn.Close()
		if p.ctx.Err() == nil {
			p.refuse(conn.RemoteAddr(), err)
		}
		return
	}
	ctx, q := p.ctx, p.rpc
	switch g.kind {
	case kindRaft:
		q = p.raft
	case kindOrders:
		q = p.orders
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, greetPatience) // nobody may want them
		defer cancel()
	}
	impatient(conn, g.kind)
	q.put(ctx, secured)
}

// receive finds out who is there, and for what. On an error conn is still the caller's to close.
func (p *Port) receive(conn net.Conn) (secured net.Conn, g greeting, err error) {
	deadline := time.Now().Add(greetPatience)
	_ = conn.SetDeadline(deadline)
	secured = conn
	if p.cfg.Security != nil {
		ctx, cancel := context.WithDeadline(p.ctx, deadline)
		defer cancel()
		tls, node, err := p.cfg.Security.Server(ctx, conn)
		if err != nil {
			return nil, g, err
		}
		secured = proved{tls, node}
	}
	if g, err = receive(secured, &p.cfg); err != nil {
		return nil, g, err
	}
	return secured, g, conn.SetDeadline(time.Time{})
}

// warnInterval is how often the log says that connections are refused.
const warnInterval = 10 * time.Second

// Refused counts the connections that were not let in.
func (p *Port) Refused() uint64 { return p.refused.Load() }

// refuse counts, and says so in the log, but not as often as a stranger likes.
func (p *Port) refuse(from net.Addr, err error) {
	count := p.refused.Add(1)
	level, last, now := slog.LevelDebug, p.lastWarn.Load(), time.Now().UnixMilli()
	if now-last >= warnInterval.Milliseconds() && p.lastWarn.CompareAndSwap(last, now) {
		level = slog.LevelWarn
	}
	p.cfg.Logger.Log(p.ctx, level, "a connection to the port for nodes was refused", "from", from.String(), "error", err, "refused", count)
}

func (p *Port) greets(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return false
	}
	p.greeting[conn] = struct{}{}
	return true
}
