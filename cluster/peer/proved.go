package peer

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// proved is a connection whose other end has proved which node it is. Its remote address tells.
type proved struct {
	net.Conn
	node string
}

// RemoteAddr implements net.Conn.
func (p proved) RemoteAddr() net.Addr { return provedAddr{p.Conn.RemoteAddr(), p.node} }

type provedAddr struct {
	net.Addr
	node string
}

// own refuses what a node says in the name of another one.
func own(ctx context.Context, message any) error {
	named, ok := message.(interface{ GetNode() string })
	if !ok || named.GetNode() == "" {
		return nil
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	if a, ok := p.Addr.(provedAddr); ok && a.node != named.GetNode() {
		return status.Errorf(codes.PermissionDenied, "node %s speaks in the name of %s", a.node, named.GetNode())
	}
	return nil
}

func ownUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := own(ctx, req); err != nil {
		return nil, err
	}
	return handle(ctx, req)
}

func ownStream(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return handle(service, ownMessages{stream})
}

type ownMessages struct{ grpc.ServerStream }

// RecvMsg implements grpc.ServerStream.
func (o ownMessages) RecvMsg(m any) error {
	if err := o.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return own(o.Context(), m)
}
