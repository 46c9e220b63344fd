package peer

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// ErrClosed: the port is closed.
var ErrClosed = errors.New("peer: the port is closed")

// connection names a gRPC connection of the pool.
type connection struct {
	address string
	control bool
}

// Peer is the client of the node at an address, over the connection for bulk: batches and links. It
// does not block: the connection is made by the first call, and again whenever it is lost.
func (p *Port) Peer(address string) (clusterpb.PeerClient, error) { return p.client(address, false) }

// Control is Peer over a connection of its own, for leases and questions, which must not wait behind
// what links carry.
func (p *Port) Control(address string) (clusterpb.PeerClient, error) { return p.client(address, true) }

func (p *Port) client(address string, control bool) (clusterpb.PeerClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pool == nil {
		return nil, ErrClosed
	}
	key := connection{address, control}
	c := p.pool[key]
	if c == nil {
		var err error
		c, err = grpc.NewClient("passthrough:///"+address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) {
				return p.dial(ctx, to, kindRPC, "")
			}),
			grpc.WithConnectParams(grpc.ConnectParams{ // a node that came back is reached soon
				Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
				MinConnectTimeout: time.Second,
			}),
			grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connectionWindow),
			grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize),
			grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
		if err != nil {
			return nil, err
		}
		p.pool[key] = c
	}
	return clusterpb.NewPeerClient(c), nil
}

// Keep closes the connections to all addresses but these: their nodes are gone, or have moved.
func (p *Port) Keep(addresses []string) {
	p.mu.Lock()
	var gone []*grpc.ClientConn
	for key, c := range p.pool {
		if !slices.Contains(addresses, key.address) {
			gone = append(gone, c)
			delete(p.pool, key)
		}
	}
	p.mu.Unlock()
	for _, c := range gone {
		_ = c.Close()
	}
}
