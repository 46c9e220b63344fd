package tlspsk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Config of the server's side. It may be shared, and must not be changed while it is used.
type Config struct {
	// Key finds the key of an identity. It is called once in a handshake and must not block.
	Key func(identity string) (key []byte, ok bool)
	// Hint is told to clients of TLS 1.2, most of which ignore it (RFC 4279, section 5.2).
	Hint string
	// MinVersion and MaxVersion are tls.VersionTLS12 or tls.VersionTLS13; 0 is no limit.
	MinVersion, MaxVersion uint16
}

func (c *Config) speaks(version uint16) bool {
	return version >= c.MinVersion && (c.MaxVersion == 0 || version <= c.MaxVersion)
}

// State is what a handshake has come to.
type State struct {
	Version  uint16 // tls.VersionTLS12 or tls.VersionTLS13
	Suite    uint16
	Group    uint16 // of the ephemeral key exchange; 0: there was none, so no forward secrecy either
	Identity string
}

// Conn is the server's side of a connection. After the handshake one goroutine may read while another
// one writes; Close may come at any time.
type Conn struct {
	nc   net.Conn
	cfg  *Config
	done atomic.Bool // the handshake succeeded
	st   State       // fixed once done

	inMu     sync.Mutex
	in       input
	hand     []byte      // of handshake messages; nil once done
	rest     []byte      // of a record whose beginning was read; in the buffer of in
	inSecret []byte      // TLS 1.3: of the keys in use
	rekey    atomic.Bool // the client wants our next keys (RFC 8446, section 4.6.3)

	outMu     sync.Mutex
	out       output
	flight    []byte // what the handshake has not sent yet
	outSecret []byte
	said      bool // close_notify
}

// handshakeLimit holds where the caller's context has no deadline.
const handshakeLimit = 30 * time.Second

// rekeyAfter is how many records are sent under one key of TLS 1.3 (RFC 8446, section 5.5: AES-GCM
// stands 2^24.5).
const rekeyAfter = 1 << 24

// Server wraps an accepted connection. Nothing is read before HandshakeContext.
func Server(nc net.Conn, cfg *Config) *Conn {
	return &Conn{nc: nc, cfg: cfg, in: input{prot: plainText{}}, out: output{prot: plainText{}, limit: maxPlain}}
}

// HandshakeContext runs the handshake, once. It blocks until that is over or ctx is: the connection is
// of no use then, and the caller closes it.
func (c *Conn) HandshakeContext(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, handshakeLimit)
		defer cancel()
	}
	c.inMu.Lock()
	defer c.inMu.Unlock()
	c.outMu.Lock()
	defer c.outMu.Unlock()
	stop := context.AfterFunc(ctx, func() { _ = c.nc.SetDeadline(time.Unix(1, 0)) })
	err := c.handshake()
	if a, ok := alertOf(err); ok {
		c.flight = c.out.append(c.flight, recordAlert, []byte{2, byte(a)})
		_ = c.flush()
	}
	if !stop() {
		err = fmt.Errorf("tlspsk: the handshake was not over in time: %w", context.Cause(ctx))
	}
	c.hand, c.flight = nil, nil
	if err != nil {
		c.in.err, c.out.err = err, err
		c.in.release()
		return err
	}
	c.done.Store(true)
	return nil
}

// State is what was agreed on. It is empty before the handshake has succeeded.
func (c *Conn) State() State {
	if !c.done.Load() {
		return State{}
	}
	return c.st
}

// Read reads what the client sent. What waits in it holds no memory but p, which should have room for
// a usual record, and may be used up to its end.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.done.Load() {
		return 0, ErrNoHandshake
	}
	if len(p) == 0 {
		return 0, nil
	}
	c.inMu.Lock()
	defer c.inMu.Unlock()
	for len(c.rest) == 0 {
		if c.in.err != nil {
			return 0, c.in.err
		}
		typ, plain, err := c.in.next(c.nc, p, false)
		switch {
		case err != nil:
		case typ == recordApplication:
			c.rest = plain
			continue
		case typ == recordHandshake && c.st.Version == tls.VersionTLS13:
			err = c.keyUpdate(plain)
		default: // as renegotiation (RFC 5746, section 5: may be refused)
			err = fail(alertUnexpectedMessage, "a record of type %d after the handshake", typ)
		}
		if err != nil {
			return 0, c.broken(err)
		}
	}
	n := copy(p, c.rest) // all of it, if it lies in p
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.rest = nil // it may be p's
	}
	return n, nil
}

// broken tells the client of an error and keeps it, unless reading may be tried again. Caller holds
// inMu.
func (c *Conn) broken(err error) error {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return err
	}
	c.in.err = err
	c.in.release()
	// A writer that is at it may wait for the client: the alert is a courtesy, not worth waiting for it.
	if a, ok := alertOf(err); ok && c.outMu.TryLock() {
		_ = c.send(recordAlert, []byte{2, byte(a)})
		c.outMu.Unlock()
	}
	return err
}

// keyUpdate changes to the client's next keys (RFC 8446, section 4.6.3). It is the only message of a
// client after the handshake, and ends its record (section 5.1).
func (c *Conn) keyUpdate(m []byte) error {
	if len(m) != 5 || m[0] != typeKeyUpdate || m[1] != 0 || m[2] != 0 || m[3] != 1 {
		return fail(alertUnexpectedMessage, "a handshake message of type %d after the handshake", m[0])
	}
	if m[4] > 1 {
		return fail(alertIllegalParameter, "a key_update asks for %d", m[4])
	}
	if err := c.in.useless(); err != nil {
		return err
	}
	s := suite13(c.st.Suite)
	secret := nextSecret(s, c.inSecret)
	prot, err := newAEAD13(s, secret)
	if err != nil {
		return err
	}
	c.in.prot, c.in.seq, c.inSecret = prot, 0, secret
	if m[4] == 1 {
		c.rekey.Store(true) // before what we send next, that is soon enough
	}
	return nil
}

// Write sends p. After an error nothing more can be sent.
func (c *Conn) Write(p []byte) (int, error) {
	if !c.done.Load() {
		return 0, ErrNoHandshake
	}
	c.outMu.Lock()
	defer c.outMu.Unlock()
	if c.said {
		return 0, net.ErrClosed
	}
	if c.st.Version == tls.VersionTLS13 && (c.out.seq >= rekeyAfter || c.rekey.Load()) {
		if err := c.updateKeys(); err != nil {
			return 0, err
		}
	}
	sent := 0
	for sent < len(p) {
		n := min(len(p)-sent, c.out.limit)
		if err := c.send(recordApplication, p[sent:sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// updateKeys changes to our next keys. Caller holds outMu.
func (c *Conn) updateKeys() error {
	c.rekey.Store(false)
	if err := c.send(recordHandshake, []byte{typeKeyUpdate, 0, 0, 1, 0}); err != nil {
		return err
	}
	s := suite13(c.st.Suite)
	secret := nextSecret(s, c.outSecret)
	prot, err := newAEAD13(s, secret)
	if err != nil {
		return err
	}
	c.out.prot, c.out.seq, c.outSecret = prot, 0, secret
	return nil
}

// send writes data as records, at once. Caller holds outMu.
func (c *Conn) send(typ byte, data []byte) error {
	if c.out.err != nil {
		return c.out.err
	}
	b, _ := buffers.Get().(*buffer)
	defer buffers.Put(b)
	if _, err := c.nc.Write(c.out.append(b[:0], typ, data)); err != nil {
		c.out.err = err // part of a record may have left
	}
	return c.out.err
}

// flush sends what the handshake has gathered. Caller holds outMu.
func (c *Conn) flush() error {
	if c.out.err != nil || len(c.flight) == 0 {
		return c.out.err
	}
	_, c.out.err = c.nc.Write(c.flight)
	c.flight = c.flight[:0]
	return c.out.err
}

// CloseWrite tells the client that no more will be sent. It waits for a Write that is under way.
func (c *Conn) CloseWrite() error {
	if !c.done.Load() {
		return ErrNoHandshake
	}
	c.outMu.Lock()
	defer c.outMu.Unlock()
	return c.goodbye()
}

func (c *Conn) goodbye() error {
	if c.said {
		return nil
	}
	c.said = true
	return c.send(recordAlert, []byte{1, byte(alertCloseNotify)})
}

// goodbyeLimit is how long Close may wait for a client that takes nothing.
const goodbyeLimit = 100 * time.Millisecond

// Close ends the connection, with a close_notify if nobody is writing.
func (c *Conn) Close() error {
	if c.done.Load() && c.outMu.TryLock() {
		if !c.said && c.nc.SetWriteDeadline(time.Now().Add(goodbyeLimit)) == nil {
			_ = c.goodbye()
		}
		c.outMu.Unlock()
	}
	return c.nc.Close()
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// SetDeadline implements net.Conn. Reading may go on after a deadline has passed, writing may not.
func (c *Conn) SetDeadline(t time.Time) error { return c.nc.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.nc.SetWriteDeadline(t) }
