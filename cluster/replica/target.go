package replica

import (
	"io"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Raft's transport keeps connections by address alone. What replicates to a server that was removed may go on for a moment,
// and a node that lost its disk comes back under the same address as another server: that one would be sent, over a connection
// that was made for it, what the removed one lacked, an old snapshot in the middle of its log. So here an address
// that raft's transport hears of names the server, too.

// target names a server and where it is.
func target(id raft.ServerID, address raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(id) + "@" + address
}

// split is the reverse of target.
func split(t raft.ServerAddress) (id raft.ServerID, address raft.ServerAddress) {
	i := strings.LastIndexByte(string(t), '@')
	return raft.ServerID(t[:max(i, 0)]), t[i+1:]
}

// A ServerDialer is a raft.StreamLayer that makes sure which server it reaches.
type ServerDialer interface {
	// DialServer opens a stream to the server with that id under that address, or fails.
	DialServer(id raft.ServerID, address raft.ServerAddress, timeout time.Duration) (net.Conn, error)
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(id raft.ServerID, at raft.ServerAddress, q *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	return t.NetworkTransport.RequestVote(id, target(id, at), q, r)
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(id raft.ServerID, at raft.ServerAddress, q *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	return t.NetworkTransport.RequestPreVote(id, target(id, at), q, r)
}

// InstallSnapshot implements raft.Transport.
func (t *Transport) InstallSnapshot(id raft.ServerID, at raft.ServerAddress, q *raft.InstallSnapshotRequest, r *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.NetworkTransport.InstallSnapshot(id, target(id, at), q, r, data)
}

// TimeoutNow implements raft.Transport.
func (t *Transport) TimeoutNow(id raft.ServerID, at raft.ServerAddress, q *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, target(id, at), q, r)
}
