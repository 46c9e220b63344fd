package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// Errors.
var (
	// ErrClosed: Close was called.
	ErrClosed = errors.New("replica: closed")
	// ErrNotLeader: the order is for the leader, and this node does not lead, or no longer.
	ErrNotLeader = errors.New("replica: this node does not lead")
	// ErrNoIncarnation: a command was proposed before Begin.
	ErrNoIncarnation = errors.New("replica: this node has no incarnation yet")
	// ErrCommand: a command that no node could read. It is not put into the log.
	ErrCommand = errors.New("replica: not a command")
	// ErrHasState: this server is or was in a cluster, so it can't found one.
	ErrHasState = errors.New("replica: this server has been in a cluster already")
	// ErrDamaged: the files of the log can't be read.
	ErrDamaged = errors.New("replica: the log on disk is damaged")
)

// Defaults.
const (
	DefaultSnapshotBytes = 64 << 20
	DefaultBatchBytes    = 1 << 20
	DefaultWindow        = 2
)

// Config of a replica.
type Config struct {
	ID   string // of this server in the log: node id, slash, store id
	Node string // node id
	Dir  string // the data folder; the log lives in Dir/raft

	// Transport carries raft. Its local address is how the other servers reach this one. It should come
	// from NewTransport: with another one, followers hear of commits late. Close closes it.
	Transport raft.Transport
	// Dial gives a client of the node at a peer address. It keeps connections and does not block.
	Dial func(address string) (clusterpb.PeerClient, error)
	// FSM must be empty, and nobody else may change it.
	FSM *fsm.FSM

	// Raft's timeouts. 0: 500 ms, 500 ms, 250 ms.
	Heartbeat   time.Duration
	Election    time.Duration
	LeaderLease time.Duration

	// SnapshotBytes of log are written between two snapshots, and kept behind the last one for nodes that
	// lag. 0: 64 MiB.
	SnapshotBytes int64
	// BatchBytes bounds a batch; a single command may exceed it. 0: 1 MiB.
	BatchBytes int
	// Window is how many batches of this node are on their way at once. 0: 2.
	Window int

	Logger *slog.Logger
	Hooks  Hooks

	// Only tests set these.
	commitTimeout time.Duration // raft's
	stall         time.Duration // see stallAfter
}

// Hooks is what the replica calls. None may be nil. The first calls may come before Open returns, and
// none comes after Close has returned. Effects, Applied, Restored and the done of a Propose run on the
// goroutine that applies the log and must not block, nor call Close.
type Hooks struct {
	// Effects asks for what an entry wants of this node, in order. Results of commands are not among
	// them, nor gaps. The slice belongs to the replica again when the hook returns.
	Effects func([]fsm.Effect)
	// Applied tells that the entry at index has been applied and all its effects were handed over.
	Applied func(index uint64)
	// Restored tells that the state was replaced by a snapshot's, also when the node starts.
	Restored func()
	// LeaderChanged tells that this node began to lead in a term, or that it stopped, in order. It must
	// not block.
	LeaderChanged func(leads bool, term uint64)
	// Led tells that another server than before leads, as far as this one knows. It must not block.
	Led func()
	// Fatal tells, at most once, that this node must stop: its disk failed or an entry can't be read.
	// Nothing is applied any more. It must not block, nor call Close.
	Fatal func(error)
}

// commitTimeout is how often raft looks whether a follower lacks anything. Commits are told without it, see pipe; it is
// only for entries that were more than maxAppendEntries at once.
const commitTimeout = 150 * time.Millisecond

func (c Config) withDefaults() Config {
	if c.Heartbeat == 0 {
		c.Heartbeat = 500 * time.Millisecond
	}
	if c.Election == 0 {
		c.Election = 500 * time.Millisecond
	}
	if c.LeaderLease == 0 {
		c.LeaderLease = 250 * time.Millisecond
	}
	if c.SnapshotBytes <= 0 {
		c.SnapshotBytes = DefaultSnapshotBytes
	}
	if c.BatchBytes <= 0 {
		c.BatchBytes = DefaultBatchBytes
	}
	if c.Window <= 0 {
		c.Window = DefaultWindow
	}
	if c.commitTimeout == 0 {
		c.commitTimeout = commitTimeout
	}
	if c.stall == 0 {
		c.stall = stallAfter
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	bad := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("replica: %s is missing", what))
		}
	}
	bad(c.ID != "", "the server id")
	bad(c.Node != "", "the node id")
	bad(c.Dir != "", "the data folder")
	bad(c.Transport != nil, "the transport")
	bad(c.Dial != nil, "the way to dial other nodes")
	bad(c.FSM != nil, "the state machine")
	h := c.Hooks
	bad(h.Effects != nil && h.Applied != nil && h.Restored != nil && h.LeaderChanged != nil && h.Led != nil && h.Fatal != nil, "a hook")
	if err := raft.ValidateConfig(c.raft()); err != nil && c.ID != "" {
		errs = append(errs, fmt.Errorf("replica: raft's timeouts: %w", err))
	}
	return errors.Join(errs...)
}

// maxAppendEntries is far above what is outstanding, a few batches for each node: with more than that
// raft stalls until its commit timeout. Batches are large, so that many of them in one message would
// keep a follower that catches up waiting for longer than the transport does.
const maxAppendEntries = 64

// raft is raft's own configuration.
func (c Config) raft() *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = raft.ServerID(c.ID)
	r.HeartbeatTimeout, r.ElectionTimeout, r.LeaderLeaseTimeout = c.Heartbeat, c.Election, c.LeaderLease
	r.CommitTimeout = c.commitTimeout
	r.MaxAppendEntries = maxAppendEntries
	r.BatchApplyCh = true
	r.ShutdownOnRemove = false
	// Snapshots are asked for by bytes, see keeper.
	r.SnapshotInterval, r.SnapshotThreshold = time.Hour, 1<<62
	r.NoLegacyTelemetry = true
	r.Logger = newRaftLogger(c.Logger)
	return r
}
