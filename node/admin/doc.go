// Package admin answers operators: the gRPC service skein.admin.v1, for the whole cluster from any
// node. What is replicated it reads from this node's own memory; what only the holder of a
// connection knows it asks the other nodes for, and names those that did not answer in time.
//
// It owns paging, gathering and forwarding, and which role each method wants. It must never change anything
// itself: what an operator orders is handed to those who own it, and it must never wait for a node longer than the
// operator would.
package admin

import (
	"context"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/node/operators"
	"github.com/skein-mqtt/skein/node/ring"
	"github.com/skein-mqtt/skein/node/trace"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

// State reads the replicated state. The lists come in ascending order of their key, start after
// the one given, and end when fn returns false; fn must be quick: the log may wait for it.
type State interface {
	// Sessions are the persistent sessions, by client id.
	Sessions(after string, fn func(*adminpb.Session) bool)
	// Clients are the connected clients, clean and persistent, as far as the log knows them.
	Clients(after string, fn func(*adminpb.Client) bool)
	// Subscriptions are those of persistent sessions of clients from that id on (the id included),
	// by client id and, within a client, in any order.
	Subscriptions(from string, fn func(*adminpb.Subscription) bool)
	// Retained are the retained messages that match filter ("" is every topic), with whole
	// payloads that the caller must not write to.
	Retained(filter, after string, fn func(*adminpb.Retained) bool)
	// Session is the persistent session of that client id.
	Session(id string) (*adminpb.Session, bool)
	// Hash is the digest of the state at an applied index.
	Hash() (applied uint64, digest []byte)
}

// Local is what this node alone knows: its own connections.
type Local interface {
	// Node completes this node's row: state, reason, clients, applied, started.
	Node(row *adminpb.Node)
	// Clients calls fn for each connection, in any order.
	Clients(fn func(*adminpb.Client) bool)
	// Subscriptions are those of the clean clients connected here, in any order.
	Subscriptions(fn func(*adminpb.Subscription) bool)
	// Losses are the messages that this node has dropped for a client, by reason.
	Losses(client string) map[string]uint64
	// Road is how a publish would go from here, and why.
	Road(req *adminpb.ExplainRequest) (road, reason string)
	// MayPublish tells whether this node's rules let a user, with that client id, publish to a topic, and why.
	MayPublish(username, client, topic string) (bool, string)
	// MayReceive tells whether this node's access list lets a client have messages of a topic.
	MayReceive(client, topic string) bool
	// Disconnect closes a client's connection; false: it is not connected here.
	Disconnect(client string) bool
	// DeleteSession and Publish return when the log has what was ordered.
	DeleteSession(ctx context.Context, client string) error
	Publish(ctx context.Context, req *adminpb.PublishRequest) (matched bool, err error)
	// StartDrain begins a drain and returns. One that is under way goes on, at the new rate unless that is 0.
	StartDrain(rate int, timeout time.Duration) error
	// Cordon keeps new clients away, or lets them in. changed: it was not so before.
	Cordon(on, dryRun bool) (changed bool, err error)
	// Shed lets count clients go, rate a second, and blocks until they have gone or ctx has ended.
	Shed(ctx context.Context, count, rate int, progress func(total, left int))
	// Snapshot writes a snapshot of the state and tells the last log index that it holds.
	Snapshot(dryRun bool) (index uint64, err error)
	// Settings are this node's, whose keys begin with prefix, by key.
	Settings(prefix string) []*adminpb.Setting
	// Set changes one while the node runs. An error says what is wrong with key or value.
	Set(key, value string, dryRun bool) (*adminpb.Setting, error)
	// DrainStatus tells how far it is; Done is set once it has ended, with the error that ended it.
	DrainStatus() (*adminpb.DrainProgress, error)
}

// Cluster knows the members and changes the configuration of the log.
type Cluster interface {
	// Nodes are all members with what the log, the configuration and gossip know of each.
	Nodes() []*adminpb.Node
	// Remove and Transfer work on the leader only.
	Remove(ctx context.Context, node string, force bool) error
	Transfer(ctx context.Context, node string) (leader string, err error)
	// MayRemove and MayTransfer tell why those would be refused, on the leader only.
	MayRemove(node string, force bool) error
	MayTransfer(node string) error
	// Backup writes the state, which holds all that was acknowledged anywhere before the call, to what
	// begin returns: it is told the index and the log's time, ms, first.
	Backup(ctx context.Context, begin func(index uint64, time int64) io.Writer) error
	// Restore replaces the state by a backup's, on the leader only. ErrBadBackup: it can't be read;
	// ErrHasState: there is state that would be lost, and force is not set.
	Restore(ctx context.Context, r io.ReadSeeker, force, dryRun bool) (*adminpb.RestoreResponse, error)
}

// Config of the service.
type Config struct {
	Self    string // node id
	Listen  string // HOST:PORT for operators; empty: none. Beyond loopback it wants Seal.
	Socket  string // path of a unix socket for operators; empty: none
	Version *adminpb.VersionResponse
	Gather  time.Duration // how long to wait for the other nodes; 0: 900 ms
	Events  *event.Log
	Tracer  *trace.Tracer
	Folder  string           // for files that don't outlive a request
	Lines   *ring.Ring[Line] // of the node's log; nil: they are not remembered
	Logger  *slog.Logger

	Gate  *operators.Gate  // who operators are; nil: whoever comes in by loopback or the socket is one
	Seal  *operators.Seal  // the TLS of Listen; nil: plain
	Audit *operators.Audit // what they have changed; nil: nobody asks

	// Nodes brings the connections of other nodes, which have proved themselves already and are obeyed. The server
	// closes it. nil: none.
	Nodes net.Listener
	// Dial leads to the Nodes of the node at a peer address; nil: plain TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Access and Rules are the service Access; nil: there is none.
	Access AccessState
	Rules  Rules
}
