package admin

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// peers holds a connection to each other node's admin service, by way of its peer port, made when first asked.
type peers struct {
	dial func(ctx context.Context, address string) (net.Conn, error) // nil: plain TCP

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn // by peer address
	closed bool
}

// stateUnknown is the state of a node that has not said how it is.
const stateUnknown = "unknown"

var errNoAddress = errors.New("its address is not known")

func (p *peers) way(ctx context.Context, address string) (net.Conn, error) {
	if p.dial != nil {
		return p.dial(ctx, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// client never blocks: the connection is made by the first call.
func (p *peers) client(address string) (adminpb.AdminClient, error) {
	if address == "" {
		return nil, errNoAddress
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, context.Canceled
	}
	c, ok := p.conns[address]
	if !ok {
		var err error
		c, err = grpc.NewClient("passthrough:///"+address,
			grpc.WithTransportCredentials(insecure.NewCredentials()), // the way is secured below
			grpc.WithContextDialer(p.way),
			grpc.WithConnectParams(grpc.ConnectParams{ // a node that came back is asked again soon
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second},
				MinConnectTimeout: time.Second,
			}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
		if err != nil {
			return nil, err
		}
		if p.conns == nil {
			p.conns = map[string]*grpc.ClientConn{}
		}
		p.conns[address] = c
	}
	return adminpb.NewAdminClient(c), nil
}

// keep closes connections to addresses that no node has any more.
func (p *peers) keep(nodes []*adminpb.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for address, c := range p.conns {
		used := false
		for _, n := range nodes {
			used = used || n.PeerAddress == address
		}
		if !used {
			c.Close()
			delete(p.conns, address)
		}
	}
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// answer is one node's part of a gathered list.
type answer[T any] struct {
	node *adminpb.Node
	part T
}

// gather asks every other live node at once and returns what came back within Config.Gather, and
// who did not answer. Nodes without a live incarnation hold no connections: they are not asked, unless
// their process is known to run.
func gather[T any](ctx context.Context, s *Server, nodes []*adminpb.Node, ask func(context.Context, adminpb.AdminClient) (T, error)) ([]answer[T], []*adminpb.Missing) {
	ctx, cancel := context.WithTimeout(ctx, s.config.Gather)
	defer cancel()
	var (
		mu      sync.Mutex
		answers []answer[T]
		missing []*adminpb.Missing
		all     sync.WaitGroup
	)
	s.peers.keep(nodes)
	for _, n := range nodes {
		if n.Id == s.config.Self || n.Incarnation == 0 && n.State != stateUnknown {
			continue
		}
		all.Go(func() {
			var part T
			client, err := s.peers.client(n.PeerAddress)
			if err == nil {
				part, err = ask(ctx, client)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				missing = append(missing, &adminpb.Missing{Node: n.Id, Reason: reason(err)})
				return
			}
			answers = append(answers, answer[T]{node: n, part: part})
		})
	}
	all.Wait()
	sortMissing(missing)
	return answers, missing
}

func reason(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	if st, ok := status.FromError(err); ok {
		if st.Code() == codes.DeadlineExceeded {
			return "no answer in time"
		}
		return st.Message()
	}
	return err.Error()
}
