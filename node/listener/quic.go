package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// protocolQUIC is what clients ask for (ALPN, RFC 7301): the name that is registered for MQTT.
const protocolQUIC = "mqtt"

// quicIdle is how often a silent connection is probed. The client's keepalive, not QUIC's idle time-out, says when
// it counts as gone; a client that vanished is found out within twice as long.
const quicIdle = 15 * time.Second

// quicListener gives each QUIC connection's first stream as a connection: MQTT goes over that alone. Whoever opens none
// in the time of a handshake is closed. It implements net.Listener.
type quicListener struct {
	handshake time.Duration
	socket    net.PacketConn
	transport *quic.Transport
	inner     *quic.Listener
	streams   chan *quicConn
	ctx       context.Context
	stop      context.CancelFunc
	group     sync.WaitGroup
	once      sync.Once
}

// maxQUICOpening bounds the connections that have no stream yet; more are refused.
const maxQUICOpening = 4096

func listenQUIC(address string, g *tlsGuard, handshake time.Duration) (*quicListener, error) {
	socket, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, err
	}
	l := &quicListener{handshake: handshake, socket: socket, transport: &quic.Transport{Conn: socket}, streams: make(chan *quicConn)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	if l.inner, err = l.transport.Listen(g.base, &quic.Config{
		HandshakeIdleTimeout: handshake, MaxIdleTimeout: 2 * quicIdle, KeepAlivePeriod: quicIdle,
		MaxIncomingStreams: 1, MaxIncomingUniStreams: -1, // no early data: it could be replayed
	}); err != nil {
		return nil, errors.Join(err, l.transport.Close(), socket.Close())
	}
	l.group.Go(l.accept)
	return l, nil
}

func (l *quicListener) accept() {
	opening := make(chan struct{}, maxQUICOpening)
	for {
		conn, err := l.inner.Accept(l.ctx)
		if err != nil {
			return // it is closed: there is no other error
		}
		select {
		case opening <- struct{}{}:
		default:
			_ = conn.CloseWithError(0, "too many connections")
			continue
		}
		l.group.Go(func() {
			defer func() { <-opening }()
			ctx, cancel := context.WithTimeout(l.ctx, l.handshake)
			defer cancel()
			stream, err := conn.AcceptStream(ctx)
			if err == nil {
				select {
				case l.streams <- &quicConn{stream, conn}:
					return
				case <-l.ctx.Done():
				}
			}
			_ = conn.CloseWithError(0, "")
		})
	}
}

// Accept implements net.Listener.
func (l *quicListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.streams:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (l *quicListener) Addr() net.Addr { return l.socket.LocalAddr() }

// Close implements net.Listener: connections that were given out go on, until release.
func (l *quicListener) Close() error {
	l.stop()
	err := l.inner.Close()
	l.group.Wait()
	return err
}

// release gives the socket back. All connections have ended.
func (l *quicListener) release() {
	l.once.Do(func() {
		_ = l.transport.Close()
		_ = l.socket.Close()
	})
}

// quicConn is the first stream of a QUIC connection, and ends with it.
type quicConn struct {
	*quic.Stream
	conn *quic.Conn
}

// LocalAddr implements net.Conn.
func (c *quicConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *quicConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// CloseWrite ends what is sent: the client reads to the end of it.
func (c *quicConn) CloseWrite() error { return c.Stream.Close() }

// lastWords is how long what was written has to arrive when a connection is closed: closing it drops what is under way.
const lastWords = time.Second

// Close implements net.Conn. What was written before still arrives, if the client is there.
func (c *quicConn) Close() error {
	c.CancelRead(0)
	if err := c.Stream.Close(); err != nil {
		return errors.Join(err, c.conn.CloseWithError(0, ""))
	}
	time.AfterFunc(lastWords, func() { _ = c.conn.CloseWithError(0, "") })
	return nil
}

// secure is the handshake's outcome: it was over before there was a stream.
func (c *quicConn) secure(g *tlsGuard) (net.Conn, Identity, error) {
	id, err := g.identity(c.conn.ConnectionState().TLS.PeerCertificates)
	if err != nil {
		return nil, id, fmt.Errorf("quic: %w", err)
	}
	return c, id, nil
}
