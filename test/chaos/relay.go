package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// relay is the address that the other nodes know for one of a node's: it passes TCP connections and
// datagrams on.
type relay struct {
	net     *network
	to      string // the node behind it
	target  string // its real address
	who     func(near, far net.Addr) string
	tcp     net.Listener
	udp     *net.UDPConn
	targets *net.UDPAddr
	group   sync.WaitGroup
	gone    chan struct{}
}

// newRelay listens on a loopback port. who finds out which node the far end of a connection
// belongs to; packets relays datagrams, too.
func newRelay(n *network, to, target string, packets bool, who func(near, far net.Addr) string) (*relay, error) {
	r := &relay{net: n, to: to, target: target, who: who, gone: make(chan struct{})}
	var err error
	if r.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("relay for %s: %w", to, err)
	}
	if packets {
		at := r.tcp.Addr().(*net.TCPAddr)
		if r.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: at.Port}); err != nil {
			return nil, fmt.Errorf("relay for %s: %w", to, errors.Join(err, r.tcp.Close()))
		}
		if r.targets, err = net.ResolveUDPAddr("udp", target); err != nil {
			return nil, fmt.Errorf("relay for %s: %w", to, errors.Join(err, r.tcp.Close(), r.udp.Close()))
		}
		r.group.Go(r.datagrams)
	}
	r.group.Go(r.accept)
	return r, nil
}

func (r *relay) address() string { return r.tcp.Addr().String() }

// close ends everything and waits for it.
func (r *relay) close() {
	close(r.gone)
	_ = r.tcp.Close()
	if r.udp != nil {
		_ = r.udp.Close()
	}
	r.net.mu.Lock()
	for p := range r.net.pipes {
		if p.relay == r {
			p.end()
		}
	}
	r.net.mu.Unlock()
	r.group.Wait()
}

func (r *relay) accept() {
	for {
		conn, err := r.tcp.Accept()
		if err != nil {
			return
		}
		r.group.Go(func() { r.connection(conn) })
	}
}

// connection joins one connection with one of our own to the node, once the network lets it.
func (r *relay) connection(conn net.Conn) {
	from := r.who(conn.LocalAddr(), conn.RemoteAddr())
	p := &pipe{relay: r, near: conn, over: make(chan struct{})}
	r.net.mu.Lock()
	r.net.pipes[p] = struct{}{}
	r.net.mu.Unlock()
	defer func() {
		p.end()
		r.net.mu.Lock()
		delete(r.net.pipes, p)
		r.net.mu.Unlock()
	}()
	if from == "" || !p.pass(direction{from, r.to}) || !p.pass(direction{r.to, from}) {
		return
	}
	far, err := net.DialTimeout("tcp", r.target, time.Second)
	if err != nil || !p.join(far) {
		return
	}
	if from == clients { // a reader that stops must be felt at once
		_ = conn.(*net.TCPConn).SetWriteBuffer(socketBuffer)
		_ = far.(*net.TCPConn).SetReadBuffer(socketBuffer)
	}
	var both sync.WaitGroup
	both.Go(func() { p.pump(far, conn, direction{from, r.to}) })
	both.Go(func() { p.pump(conn, far, direction{r.to, from}) })
	both.Wait()
}

// pipe is one relayed connection.
type pipe struct {
	relay *relay
	near  net.Conn

	mu   sync.Mutex
	far  net.Conn
	once sync.Once
	over chan struct{}
}

func (p *pipe) join(far net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.over:
		_ = far.Close()
		return false
	default:
		p.far = far
		return true
	}
}

// end breaks the connection on both sides.
func (p *pipe) end() {
	p.once.Do(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		close(p.over)
		_ = p.near.Close()
		if p.far != nil {
			_ = p.far.Close()
		}
	})
}

// pass waits until the way is free. False: the connection is over.
func (p *pipe) pass(d direction) bool {
	for {
		r, changed := p.relay.net.at(d)
		if !r.cut {
			return p.linger(r.late())
		}
		select {
		case <-changed:
		case <-p.over:
			return false
		case <-p.relay.gone:
			return false
		}
	}
}

func (p *pipe) linger(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.over:
		return false
	}
}

// pump carries one direction. When its source ends, the other side hears of it once the way is free.
func (p *pipe) pump(to, from net.Conn, d direction) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if !p.pass(d) {
			return
		}
		if n > 0 {
			if _, e := to.Write(b[:n]); e != nil {
				p.end()
				return
			}
		}
		if err != nil {
			p.end()
			return
		}
	}
}

func (r *relay) datagrams() {
	b := make([]byte, 64<<10)
	for {
		n, from, err := r.udp.ReadFromUDP(b)
		if err != nil {
			return
		}
		who := r.who(r.udp.LocalAddr(), from)
		rule, _ := r.net.at(direction{who, r.to})
		if who == "" || rule.cut || rand.Float64() < rule.loss {
			continue
		}
		if rule.delay == 0 {
			_, _ = r.udp.WriteToUDP(b[:n], r.targets)
			continue
		}
		later := append([]byte(nil), b[:n]...)
		r.group.Go(func() {
			t := time.NewTimer(rule.delay)
			defer t.Stop()
			select {
			case <-t.C:
				_, _ = r.udp.WriteToUDP(later, r.targets)
			case <-r.gone:
			}
		})
	}
}
