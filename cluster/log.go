package cluster

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/skein-mqtt/skein/cluster/replica"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// Errors.
var (
	// ErrEnded: the incarnation ended before its command was applied. It may be in the log or not.
	ErrEnded = errors.New("cluster: this node's incarnation has ended")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("cluster: closed")
	// ErrNotLeader: the order belongs to the leader.
	ErrNotLeader = errors.New("cluster: this node does not lead")
	// ErrUnknownNode: no member has that name.
	ErrUnknownNode = errors.New("cluster: no such node")
	// ErrLive: the node is in service.
	ErrLive = errors.New("cluster: the node is in service")
	// ErrQuorum: the change would leave fewer voters alive than a majority.
	ErrQuorum = errors.New("cluster: it would cost the majority")
	// ErrRemoved: this node's data folder is no member of the cluster any more.
	ErrRemoved = errors.New("cluster: this node was removed from the cluster: to join again as a new one, stop it and clear its data folder")
	// ErrNoLeader: nobody who could be asked knows a leader.
	ErrNoLeader = errors.New("cluster: no leader is known: a majority of the voters must run")
)

// serverID names a node together with its data folder: with a blank disk it is another server, which
// has promised nobody anything.
func serverID(node, store string) string { return node + "/" + store }

// nodeOf is the node id in a server id.
func nodeOf(id string) string {
	if i := strings.LastIndexByte(id, '/'); i >= 0 {
		return id[:i]
	}
	return id
}

// commands is the log of this node's own commands.
type commands interface {
	Propose(cmd *fsmpb.Command, done func(fsm.Result, error)) uint64
	Begin(self fsm.NodeRef)
	End(err error)
	Backlog() (commands, bytes int)
}

// order is what leaders do with the log.
type order interface {
	AppendSystem(ctx context.Context, s *fsmpb.System) (uint64, error)
	SetClock(func() int64)
	VerifyLeader() error
	Barrier(ctx context.Context) error
	Transfer(ctx context.Context, id, address string) error // empty: to whoever is best
}

// standing is what the log knows of itself.
type standing interface {
	IsLeader() bool
	Leader() (id, address string)
	CommitIndex() uint64
	Applied() uint64
	HasState() (bool, error)
	Stats() replica.Stats
	Snapshot() (uint64, error)
	Restore(ctx context.Context, from io.Reader, size int64, index uint64) error
	Close() error
}

// quorum changes who is a member of the log. The changes are for the leader.
type quorum interface {
	Servers() ([]replica.Server, error)
	Bootstrap([]replica.Server) error
	AddVoter(ctx context.Context, id, address string) error
	AddNonvoter(ctx context.Context, id, address string) error
	RemoveServer(ctx context.Context, id string) error
}

// replicatedLog is a node's replica of the log.
type replicatedLog interface {
	commands
	order
	standing
	quorum
	HandlePropose(stream clusterpb.Peer_ProposeServer) error
}

// dialer gives clients of other nodes, by address: over the connection for bulk, or over one for what
// must not wait behind it. It keeps connections and does not block.
type dialer interface {
	Peer(address string) (clusterpb.PeerClient, error)
	Control(address string) (clusterpb.PeerClient, error)
	Keep(addresses []string)
}
