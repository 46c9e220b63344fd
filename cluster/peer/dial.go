package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// probes find out about a peer that vanished behind an idle connection.
var probes = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}

// How long sent bytes may stay unacknowledged (or wait for a peer that does not read) until the
// connection counts as cut. Raft's is longer: a follower that sits behind a slow disk does not read.
const (
	cutRPC  = 2 * time.Second
	cutRaft = 10 * time.Second
)

// impatient makes the kernel give a silent connection up soon.
func impatient(conn net.Conn, k kind) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	cut := cutRPC
	if k == kindRaft {
		cut = cutRaft
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // it is closed
	}
	// A kernel that refuses only makes the detection slower.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(cut.Milliseconds()))
	})
}

// dial connects to another port and greets. It blocks until ctx ends at most.
func (p *Port) dial(ctx context.Context, to string, k kind, target string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, greetPatience)
	defer cancel()
	dialer := net.Dialer{KeepAliveConfig: probes}
	conn, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	secured, err := p.greet(ctx, conn, k, target)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%s: %w", to, err)
	}
	impatient(conn, k)
	return secured, nil
}

// greet proves and greets until ctx, which has a deadline, ends. On an error conn is still the caller's to close.
func (p *Port) greet(ctx context.Context, conn net.Conn, k kind, target string) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	secured := conn
	if p.cfg.Security != nil {
		var node string
		var err error
		if secured, node, err = p.cfg.Security.Client(ctx, conn); err != nil {
			return nil, err
		}
		if of, _, _ := strings.Cut(target, "/"); target != "" && of != node {
			return nil, fmt.Errorf("%w: one of node %s, not %s", ErrOtherServer, node, target)
		}
	}
	unhook := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := greeting{kind: k, cluster: p.cfg.Cluster, identity: p.cfg.Identity.Get(), target: target}.send(secured)
	if !unhook() && err == nil {
		err = ctx.Err()
	}
	if p.cfg.Security == nil && errors.Is(err, ErrGreeting) {
		err = fmt.Errorf("%w, or one that wants a certificate", err)
	}
	if err != nil {
		return nil, err
	}
	return secured, conn.SetDeadline(time.Time{})
}
