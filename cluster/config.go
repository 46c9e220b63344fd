package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/skein-mqtt/skein/cluster/peer"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// Config of a node's part in the cluster. NodeID, DataDir, PeerBind and GossipBind are required.
type Config struct {
	NodeID  string // this node's name, unique in the cluster and the same for ever
	DataDir string // its data folder, locked while it runs

	PeerBind        string // HOST:PORT for raft and gRPC between nodes; port 0 takes a free one
	PeerAdvertise   string // as the others should use it; empty: as bound
	GossipBind      string // HOST:PORT, TCP and UDP; empty: no gossip, this node stays alone
	GossipAdvertise string

	MQTTAdvertise  string // addresses that are only told: to clients that should move, to operators
	AdminAdvertise string
	HTTPAdvertise  string

	Join            []string // HOST:PORT of other nodes' gossip; names may resolve to many
	BootstrapExpect int      // how many blank nodes found the cluster; 1 without Join: this one alone; 0: never
	ClusterName     string   // nodes of another name are not heard. Empty: skein
	GossipKeys      [][]byte // of 16, 24 or 32 bytes; the first encrypts, all decrypt. None: gossip is plain
	// Security of the connections between nodes. nil: they are plain, and prove nothing.
	Security peer.Security

	// Raft's timeouts. 0: 500 ms, 500 ms, 250 ms.
	HeartbeatTimeout   time.Duration
	ElectionTimeout    time.Duration
	LeaderLeaseTimeout time.Duration

	// The lease: see package lease. All nodes must agree on Lease and Drift. 0: 500 ms, 100 ms, 3 s.
	Lease time.Duration
	Drift time.Duration
	Grace time.Duration // without a lease for longer, clients are sent away

	MaxUnacked    int   // bytes per link, 0: 8 MiB
	SnapshotBytes int64 // a snapshot is taken when the log has grown by so much. 0: 64 MiB

	// CheckInterval of the log's time is between two comparisons of the nodes' states; all nodes must agree
	// on it. 0: never.
	CheckInterval time.Duration

	Version  string
	Features uint32 // the highest feature level that this binary knows
	Logger   *slog.Logger

	// Dropped counts link frames that were not delivered. From any goroutine, it must only count.
	Dropped func(reason fsm.Reason, n int)
	// Relieved says that a congested peer no longer is. From any goroutine; it must not block.
	Relieved func(node string)
	// Repick gets a frame that came through the log and found no member of its shared group on this
	// node. It must not block, nor keep the frame.
	Repick func(f *clusterpb.Frame)
}

// DefaultGrace is how long a node goes on without a lease before it sends its clients away.
const DefaultGrace = 3 * time.Second

// maxNodeID keeps the notes of a node within what gossip carries.
const maxNodeID = 64

func (c Config) withDefaults() Config {
	or := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	or(&c.HeartbeatTimeout, 500*time.Millisecond)
	or(&c.ElectionTimeout, 500*time.Millisecond)
	or(&c.LeaderLeaseTimeout, 250*time.Millisecond)
	or(&c.Lease, 500*time.Millisecond)
	or(&c.Drift, 100*time.Millisecond)
	or(&c.Grace, DefaultGrace)
	if c.ClusterName == "" {
		c.ClusterName = "skein"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate says what is wrong, all of it. Zero values are fine where they have a default.
func (c Config) Validate() error {
	d := c.withDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case d.NodeID == "":
		bad("node id: is empty")
	case len(d.NodeID) > maxNodeID:
		bad("node id: %q is longer than %d bytes", d.NodeID, maxNodeID)
	case strings.ContainsFunc(d.NodeID, func(r rune) bool { return r <= ' ' || r == '/' || r == 0x7f }):
		bad("node id: %q must not hold spaces, slashes or control characters", d.NodeID)
	}
	if d.DataDir == "" {
		bad("data folder: is empty")
	}
	if _, _, err := net.SplitHostPort(d.PeerBind); err != nil {
		bad("peer address: %w", err)
	}
	for _, a := range []struct{ name, address string }{
		{"gossip address", d.GossipBind}, {"advertised peer address", d.PeerAdvertise}, {"advertised gossip address", d.GossipAdvertise},
	} {
		if a.address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.address); err != nil {
			bad("%s: %w", a.name, err)
		}
	}
	if d.GossipBind == "" && (len(d.Join) > 0 || d.BootstrapExpect > 1) {
		bad("gossip address: is empty, but there are other nodes to find")
	}
	if d.BootstrapExpect < 0 {
		bad("bootstrap expect: %d is negative", d.BootstrapExpect)
	}
	if d.BootstrapExpect == 0 && len(d.Join) == 0 {
		if _, err := os.Stat(d.DataDir); err != nil {
			bad("bootstrap expect: is 0 and there is no node to join: this node would wait for ever")
		}
	}
	for _, t := range []struct {
		name  string
		value time.Duration
	}{
		{"heartbeat timeout", d.HeartbeatTimeout},
		{"election timeout", d.ElectionTimeout},
		{"leader lease timeout", d.LeaderLeaseTimeout},
		{"lease", d.Lease},
		{"lease drift", d.Drift},
		{"grace period", d.Grace},
	} {
		if t.value < 5*time.Millisecond {
			bad("%s: %s is less than 5 ms", t.name, t.value)
		}
	}
	if d.ElectionTimeout < d.HeartbeatTimeout {
		bad("election timeout: %s is less than the heartbeat timeout, %s", d.ElectionTimeout, d.HeartbeatTimeout)
	}
	if d.LeaderLeaseTimeout > d.HeartbeatTimeout {
		bad("leader lease timeout: %s is more than the heartbeat timeout, %s", d.LeaderLeaseTimeout, d.HeartbeatTimeout)
	}
	return errors.Join(errs...)
}
