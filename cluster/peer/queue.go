package peer

import (
	"context"
	"net"
	"sync"
)

// queue is a net.Listener of the connections that greeted for one protocol.
type queue struct {
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newQueue(address string) *queue {
	return &queue{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// put waits until somebody accepts conn, or closes it.
func (q *queue) put(ctx context.Context, conn net.Conn) {
	select {
	case q.conns <- conn:
	case <-q.closed:
		_ = conn.Close()
	case <-ctx.Done():
		_ = conn.Close()
	}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The port itself stays open.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

// Addr implements net.Listener: the advertised address, which raft takes for its own.
func (q *queue) Addr() net.Addr { return address(q.address) }

// address is HOST:PORT, perhaps with a name for a host.
type address string

// Network implements net.Addr.
func (address) Network() string { return "tcp" }

// String implements net.Addr.
func (a address) String() string { return string(a) }
