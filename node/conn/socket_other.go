//go:build !unix

package conn

import "net"

// newTransport: without raw descriptors every connection is a stream.
func newTransport(nc net.Conn) transport { return &stream{nc: nc} }
