package peer

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// Streams is raft's part of the port. It implements raft.StreamLayer; whoever uses it closes the
// connections.
type Streams struct {
	*queue
	p    *Port
	find func(address string) (server, at string, ok bool)
}

// Raft gives raft's part of the port, to be taken once. find tells which server the log's
// configuration has under an address, and where that server is now, as far as is known.
func (p *Port) Raft(find func(address string) (server, at string, ok bool)) *Streams {
	return &Streams{queue: p.raft, p: p, find: find}
}

// Dial implements raft.StreamLayer, for whoever the configuration has under an address.
func (s *Streams) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	server, at, ok := s.find(string(to))
	if !ok {
		return nil, fmt.Errorf("%s: %w", to, ErrOtherServer)
	}
	return s.open(server, at, timeout)
}

// DialServer opens a stream to the server that is meant, or none: another one may have its address by now.
func (s *Streams) DialServer(id raft.ServerID, to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	server, at, ok := s.find(string(to))
	if !ok || server != string(id) {
		return nil, fmt.Errorf("%s at %s: %w", id, to, ErrOtherServer)
	}
	return s.open(server, at, timeout)
}

func (s *Streams) open(server, at string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.p.loud, timeout)
	defer cancel()
	return s.p.dial(ctx, at, kindRaft, server)
}
