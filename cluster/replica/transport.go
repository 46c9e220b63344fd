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
	pace  *pacer

	mu     sync.Mutex
	pipes  map[*pipe]struct{}
	newest *mark                    // the last entry that this node has applied
	sent   map[raft.ServerID]*state // by the last request outside of a pipeline
}

// NewTransport makes a transport over layer, whose Addr must be how the other servers reach this one.
// Closing the transport closes the layer and every connection that it made or accepted.
func NewTransport(over raft.StreamLayer, logger *slog.Logger) *Transport {
	l := &layer{StreamLayer: over, conns: make(map[*conn]struct{})}
	return &Transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: l, MaxPool: idleConns, Timeout: rpcTimeout, Logger: newRaftLogger(logger),
		}),
		layer: l, pace: newPacer(), pipes: make(map[*pipe]struct{}), sent: make(map[raft.ServerID]*state),
	}
}

// Interrupt fails what is under way: calls to servers that do not answer would hold up a shutdown.
// Nothing goes out or comes in afterwards.
func (t *Transport) Interrupt() {
	t.pace.close()
	t.layer.interrupt()
}

// AppendEntries implements raft.Transport: for heartbeats, which may be held for a moment, and for what is sent
// outside of a pipeline.
func (t *Transport) AppendEntries(id raft.ServerID, at raft.ServerAddress, q *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	if isHeartbeat(q) {
		t.pace.wait(id)
		return t.NetworkTransport.AppendEntries(id, target(id, at), q, r)
	}
	err := t.NetworkTransport.AppendEntries(id, target(id, at), q, r)
	if err == nil && r.Success {
		t.mu.Lock()
		t.sent[id] = new(state).after(q)
		t.mu.Unlock()
	}
	return err
}

// Pace lets heartbeats be held, by less than what raft calls the leader's lease.
func (t *Transport) Pace(leaderLease time.Duration) {
	t.pace.mu.Lock()
	defer t.pace.mu.Unlock()
	t.pace.gap = gapOf(leaderLease)
}

// Question is called after raft was asked whether this node leads; answered, when it knows.
func (t *Transport) Question() (answered func()) { return t.pace.question() }

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
	var c net.Conn
	var err error
	id, address := split(address)
	if d, ok := l.StreamLayer.(ServerDialer); ok {
		c, err = d.DialServer(id, address, timeout)
	} else {
		c, err = l.StreamLayer.Dial(address, timeout)
	}
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
