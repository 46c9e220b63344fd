// Package listener accepts connections: TCP, TLS with certificates or pre-shared keys, WebSocket's
// underlying ones, QUIC and Unix sockets, with or without a PROXY protocol header in front.
//
// It owns addresses, certificates, keys, who a client is according to them, and whatever comes before
// the first byte of the client's own protocol. It knows no MQTT, and nothing that a stranger does before his first packet makes
// another connection wait.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/skein-mqtt/skein/node/files"
)

// Config of one listener.
type Config struct {
	Spec Spec
	// Handshake bounds what comes before the client's first byte: the PROXY header and TLS.
	Handshake time.Duration
	// Serve runs one connection and calls done when it has ended; it may return before. It is called
	// in a goroutine of its own and owns nc, whose RemoteAddr is the client's own. For ws and wss the
	// upgrade is still to come.
	Serve  func(nc net.Conn, s *Spec, id Identity, done func())
	Logger *slog.Logger

	look time.Duration // for tests: how often the files are looked at
}

// Listener accepts for one Spec.
type Listener struct {
	config  Config
	inner   net.Listener
	guard   guard // nil: none
	loaded  files.Stamps
	release func() // after the last connection; nil: nothing to do

	active  atomic.Int64  // connections
	refused atomic.Uint64 // beyond Spec.MaxConnections
	group   sync.WaitGroup
	done    func() // group.Done

	ctx  context.Context // ends with Stop
	stop context.CancelFunc

	mu      sync.Mutex
	pending map[net.Conn]struct{} // in their handshake
	closed  bool
}

// Open binds the address. Nothing is accepted until Start.
func Open(config Config) (*Listener, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Handshake <= 0 {
		config.Handshake = 10 * time.Second
	}
	l := &Listener{config: config, pending: make(map[net.Conn]struct{})}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.done = func() {
		l.active.Add(-1)
		l.group.Done()
	}
	s := &l.config.Spec
	var err error
	if l.guard = newGuard(s, config.Logger); l.guard != nil {
		l.loaded = files.Look(l.guard.files())
		if err = l.guard.load(); err != nil {
			return nil, fmt.Errorf("listen: %s: %w", s.URL, err)
		}
	}
	if s.Network == "unix" {
		removeStale(s.Address)
	}
	if err := l.bind(s); err != nil {
		return nil, fmt.Errorf("listen: %s: %w", s.URL, err)
	}
	return l, nil
}

func (l *Listener) bind(s *Spec) (err error) {
	if g, ok := l.guard.(*tlsGuard); ok && s.Scheme == "quic" {
		var q *quicListener
		if q, err = listenQUIC(s.Address, g, l.config.Handshake); err == nil {
			l.inner, l.release = q, q.release
		}
		return err
	}
	l.inner, err = net.Listen(s.Network, s.Address)
	return err
}

// removeStale removes a socket that nobody listens on any more: a process that was killed leaves it.
func removeStale(path string) {
	st, err := os.Lstat(path)
	if err != nil || st.Mode()&os.ModeSocket == 0 {
		return
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(path)
	}
}

// Addr is the bound address.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Spec is what it was opened with.
func (l *Listener) Spec() Spec { return l.config.Spec }

// Start accepts until Close.
func (l *Listener) Start() {
	l.group.Go(l.accept)
	if l.guard != nil {
		l.group.Go(func() { files.Watch(l.ctx, l.config.look, l.loaded, l.guard.files, l.Reload) })
	}
}

// Stop takes no more connections; those that are being served go on.
func (l *Listener) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	l.stop()
	l.inner.Close()
	for nc := range l.pending {
		nc.Close()
	}
}

// Close is Stop, and waits until every connection has ended: whoever calls it has
// them closed.
func (l *Listener) Close() error {
	l.Stop()
	l.group.Wait()
	if l.release != nil {
		l.release()
	}
	return nil
}

// Active is how many connections it has, those in their handshake among them.
func (l *Listener) Active() int { return int(l.active.Load()) }

// Refused counts the connections that there was no room for: see Spec.MaxConnections.
func (l *Listener) Refused() uint64 { return l.refused.Load() }

func (l *Listener) accept() {
	wait := time.Duration(0)
	for {
		nc, err := l.inner.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, or a connection that was gone before we took it.
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			l.config.Logger.Warn("accept failed", "listener", l.config.Spec.URL, "error", err)
			time.Sleep(wait)
			continue
		}
		wait = 0
		if limit := l.config.Spec.MaxConnections; l.active.Add(1) > int64(limit) && limit > 0 {
			l.active.Add(-1)
			l.refused.Add(1)
			_ = nc.Close()
			continue
		}
		l.group.Add(1)
		go l.serve(nc)
	}
}

func (l *Listener) serve(raw net.Conn) {
	nc, id := raw, Identity{}
	if l.config.Spec.Proxy != nil || l.guard != nil {
		var err error
		if nc, id, err = l.handshake(raw); err != nil {
			raw.Close()
			l.done()
			level := slog.LevelDebug // strangers may fail as often as they like
			if errors.Is(err, errRefused) {
				level = slog.LevelInfo
			}
			l.config.Logger.Log(context.Background(), level, "connection refused", "listener", l.config.Spec.URL, "remote", raw.RemoteAddr().String(), "error", err)
			return
		}
	}
	l.config.Serve(nc, &l.config.Spec, id, l.done)
}

// handshake does what comes before the client's first byte.
func (l *Listener) handshake(raw net.Conn) (nc net.Conn, id Identity, err error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, id, net.ErrClosed
	}
	l.pending[raw] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.pending, raw)
	}()
	deadline := time.Now().Add(l.config.Handshake)
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, id, err
	}
	nc = raw
	if p := l.config.Spec.Proxy; p != nil {
		remote, err := p.accept(raw)
		if err != nil {
			return nil, id, err
		}
		tcp, ok := raw.(*net.TCPConn)
		if !ok {
			return nil, id, errNoHeader
		}
		nc = &proxied{TCPConn: tcp, remote: remote}
	}
	if q, ok := raw.(*quicConn); ok {
		if nc, id, err = q.secure(l.guard.(*tlsGuard)); err != nil {
			return nil, id, err
		}
	} else if l.guard != nil {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		defer cancel()
		if nc, id, err = l.guard.secure(ctx, nc); err != nil {
			return nil, id, err
		}
	}
	return nc, id, raw.SetDeadline(time.Time{})
}
