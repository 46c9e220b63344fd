//go:build !linux

package conn

import "net"

// newTransport: without epoll every connection is a stream.
func newTransport(_ *Conn, nc net.Conn) transport { return &stream{nc: nc} }
