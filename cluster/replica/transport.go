package replica

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// rpcTimeout bounds one call of raft. For a snapshot it grows with the size.
	rpcTimeout = 5 * time.Second
	// idleConns is how many connections to a server are kept.
	idleConns = 3
)

// Transport is raft's own network transport, with nudges: see pipe. It embeds the concrete transport so
// that raft finds WithPreVote on it, without which it silently does without pre-votes.
type Transport struct {
	*raft.NetworkTransport
	layer *layer

	mu    sync.Mutex
	pipes map[*pipe]struct{}
}

// NewTransport makes a transport over layer, whose Addr must be how the other servers reach this one.
// Closing the transport closes the layer and every connection that it made or accepted.
func NewTransport(over raft.StreamLayer, logger *slog.Logger) *Transport {
	l := &layer{StreamLayer: over, conns: make(map[*conn]struct{})}
	return &Transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: l, MaxPool: idleConns, Timeout: rpcTimeout, Logger: newRaftLogger(logger),
		}),
		layer: l, pipes: make(map[*pipe]struct{}),
	}
}

// Interrupt fails what is under way: calls to servers that do not answer would hold up a shutdown.
// Nothing goes out or comes in afterwards.
func (t *Transport) Interrupt() { t.layer.interrupt() }

// Close ends the transport and returns when no call from another server is being served any more: raft
// takes heartbeats on the connection's goroutine, and may write its term to disk for one. Raft calls it when
// it has shut down.
func (t *Transport) Close() error {
	err := t.NetworkTransport.Close()
	t.layer.interrupt()
	t.layer.served.Wait()
	return err
}

// layer knows the connections, to close them: raft's transport leaves those that it accepted to the
// other side.
type layer struct {
	raft.StreamLayer

	served sync.WaitGroup // connections that were accepted

	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{}
}

type conn struct {
	net.Conn
	layer *layer
	ended func() // nil: it was made, not accepted
	once  sync.Once
}

var errInterrupted = errors.New("replica: the transport is closed")

func (l *layer) Accept() (net.Conn, error) {
	for {
		c, err := l.StreamLayer.Accept()
		if err != nil {
			return nil, err
		}
		if known, err := l.add(c, true); err == nil {
			return known, nil
		}
	}
}

func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return nil, errInterrupted
	}
	c, err := l.StreamLayer.Dial(address, timeout)
	if err != nil {
		return nil, err
	}
	return l.add(c, false)
}

func (l *layer) add(c net.Conn, accepted bool) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.Join(errInterrupted, c.Close())
	}
	known := &conn{Conn: c, layer: l}
	if accepted {
		l.served.Add(1)
		known.ended = l.served.Done
	}
	l.conns[known] = struct{}{}
	return known, nil
}

func (l *layer) interrupt() {
	l.mu.Lock()
	l.closed = true
	conns := l.conns
	l.conns = make(map[*conn]struct{})
	l.mu.Unlock()
	for c := range conns {
		_ = c.Conn.Close() // whoever uses it meets the error
	}
}

// Close is called by who uses the connection, when it is done with it.
func (c *conn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.conns, c)
	c.layer.mu.Unlock()
	err := c.Conn.Close()
	if c.ended != nil {
		c.once.Do(c.ended)
	}
	return err
}
