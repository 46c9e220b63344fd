package sim

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

var errReset = errors.New("sim: connection reset")

// pipe is a client's connection as its node has it. The test holds the other end: what the client
// sends stays on the way until it is delivered, and what it does not read fills the socket.
type pipe struct {
	mu      sync.Mutex
	wake    sync.Cond
	way     []byte // sent by the client, not arrived
	in      []byte // arrived, not read by the node
	out     []byte // written by the node, not read by the client
	room    int    // of out
	gone    bool   // the client has closed its end: the node reads what has arrived, then EOF
	reset   bool   // nothing passes any more
	shut    bool   // the node will not write any more
	closed  bool   // by the node
	expired bool
	timer   *time.Timer
	witness func([]byte) // sees what the node writes
}

func newPipe(room int) *pipe {
	p := &pipe{room: room}
	p.wake.L = &p.mu
	return p
}

// Read implements net.Conn.
func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.closed:
			return 0, net.ErrClosed
		case p.reset:
			return 0, errReset
		case len(p.in) > 0:
			n := copy(b, p.in)
			p.in = p.in[n:]
			return n, nil
		case p.gone:
			return 0, io.EOF
		case p.expired:
			return 0, os.ErrDeadlineExceeded
		}
		p.wake.Wait()
	}
}

// Write implements net.Conn.
func (p *pipe) Write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.witness != nil && !p.reset {
		p.witness(b)
	}
	for len(b) > 0 {
		switch {
		case p.closed || p.shut:
			return n, net.ErrClosed
		case p.reset || p.gone:
			return n, errReset
		case p.expired:
			return n, os.ErrDeadlineExceeded
		}
		if k := min(len(b), p.room-len(p.out)); k > 0 {
			p.out = append(p.out, b[:k]...)
			b, n = b[k:], n+k
			continue
		}
		p.wake.Wait()
	}
	return n, nil
}

// Close implements net.Conn.
func (p *pipe) Close() error {
	p.change(func() {
		p.closed, p.shut = true, true
		if p.timer != nil {
			p.timer.Stop()
		}
	})
	return nil
}

// CloseWrite ends the node's direction.
func (p *pipe) CloseWrite() error {
	p.change(func() { p.shut = true })
	return nil
}

// SetDeadline implements net.Conn.
func (p *pipe) SetDeadline(t time.Time) error {
	p.change(func() {
		if p.timer != nil {
			p.timer.Stop()
		}
		p.timer = time.AfterFunc(time.Until(t), func() { p.change(func() { p.expired = true }) })
	})
	return nil
}

func (p *pipe) SetReadDeadline(t time.Time) error  { return p.SetDeadline(t) }
func (p *pipe) SetWriteDeadline(t time.Time) error { return p.SetDeadline(t) }

type address string

func (a address) Network() string { return "sim" }
func (a address) String() string  { return string(a) }

func (p *pipe) LocalAddr() net.Addr  { return address("node") }
func (p *pipe) RemoteAddr() net.Addr { return address("client") }

func (p *pipe) change(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
	p.wake.Broadcast()
}
