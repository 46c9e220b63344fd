package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/node/session"
	"github.com/skein-mqtt/skein/node/trace"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/topic"
)

// Cluster is what the broker needs of the log and of the links to other nodes. No method blocks.
type Cluster interface {
	// Propose hands cmd to the log, in the order of the calls, and returns the sequence that it has
	// in this incarnation, 0 if there is none. cmd is encoded before it returns. done runs exactly
	// once: with the result on the goroutine that applies the log, when this node has applied cmd, or
	// with an error when the incarnation has ended, perhaps before Propose returns.
	Propose(cmd *fsmpb.Command, done func(fsm.Result, error)) uint64
	// Backlog is what was proposed and has not been applied.
	Backlog() (commands, bytes int)
	// Barrier runs done when every live node has applied index; never when the incarnation ends before.
	Barrier(index uint64, done func())
	// Leased tells whether this node holds a lease at this instant.
	Leased() bool
	// Now is the leader's clock in ms, as far as this node knows it.
	Now() int64
	// Self is the serving incarnation.
	Self() fsm.NodeRef
	// Send gives a frame to the link to another node; see link.Links.Send.
	Send(to fsm.NodeRef, f *clusterpb.Frame, done clusterpb.LinkDone) bool
	// LinkCongested tells whether publishers to that node should pause until Broker.Relieved.
	LinkCongested(node string) bool
}

// State is what the broker reads of the replicated state. *fsm.FSM is one.
type State interface {
	Route(topic string) fsm.Route
	RouteGeneration() uint64
	FeatureLevel() uint32
	Retained(filter string, fn func(*fsm.Message) bool) (index uint64)
	Counts() fsm.Counts
	RetainedUse() (messages int, bytes uint64)
	RetainedSize(topic string) (had bool, bytes uint64)
	Members() []fsm.Member
	// Away tells which sessions that are not connected keep a publish that the entry at index made, and which
	// had no room for it, at most limit of each.
	Away(topic string, qos byte, index uint64, limit int) (kept, lost []string)
	// NextSequence is the sequence that the log expects next of an incarnation, 0 if it has ended.
	NextSequence(ref fsm.NodeRef) uint64
}

// Config of the broker. Zero values are no limits where the comment does not say otherwise.
type Config struct {
	Node    string // node id
	Version string // for $SYS/broker/version

	MaxPacketSize       int    // of a client's packet, bytes; required
	ReceiveMaximum      uint16 // ours; required
	MaxInflight         uint16 // QoS 1 and 2 messages under way to a client; required
	MaxKeepalive        uint16 // seconds
	TopicAliasMaximum   uint16 // ours; 0: none
	MaxQueuedMessages   uint32 // waiting for a session
	MaxQueuedBytes      uint64
	QueuePolicy         session.Full // what becomes of a message that finds no room
	QueueQoS0           bool
	SessionExpiryMax    uint32 // seconds, 0xFFFFFFFF: none; required
	MaxConnections      int
	MaxPerAddress       int // connections
	MaxConnectRate      int // CONNECTs a second
	MaxMessageRate      int // PUBLISHes a second of one client
	MaxByteRate         int // bytes a second of one client
	RatePolicy          RatePolicy
	MemoryPolicy        MemoryPolicy // see Broker.Tight
	MaxRetainedMessages int          // of the cluster
	MaxRetainedBytes    uint64
	ConnectTimeout      time.Duration // required
	RetainAvailable     bool
	MaxQoS              byte
	WildcardAvailable   bool
	SharedAvailable     bool
	DenySubscribe       []string
	LegacySuback        bool
	UsernameAsClientID  bool          // whatever client id the CONNECT has; who has no user name is refused
	SysInterval         time.Duration // 0: no $SYS topics
	MaxBufferedBytes    int           // waiting to be written to one client; required
	MaxTopicLevels      int
	MaxTopicLength      int    // bytes
	MaxSubscriptions    int    // of one client
	ServerReference     string // told to clients that are asked to move
	Access              Access // nil: everybody may do everything
	// Choose picks one of n, for the members of shared groups; nil: by chance. Any goroutine calls it.
	Choose func(n int) int

	Events *event.Log    // hears of clients that come and go, and of drops; nil: nobody does
	Tracer *trace.Tracer // hears of single messages' steps; nil: nobody does
	Logger *slog.Logger
}

// Validate says what is wrong, all of it.
func (c *Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("mqtt.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.MaxPacketSize < 64 {
		bad("max_packet_size", "%d is less than 64 bytes", c.MaxPacketSize)
	}
	if c.ReceiveMaximum == 0 {
		bad("receive_maximum", "0 would forbid QoS 1 and 2: use mqtt.max_qos for that")
	}
	if c.MaxInflight == 0 {
		bad("max_inflight", "0 would deliver nothing at QoS 1 and 2")
	}
	if c.ConnectTimeout <= 0 {
		bad("connect_timeout", "%s is not positive", c.ConnectTimeout)
	}
	if c.MaxBufferedBytes < 4096 {
		bad("max_buffered_bytes", "%d is less than 4 KiB", c.MaxBufferedBytes)
	}
	if c.MaxQoS > 2 {
		bad("max_qos", "%d is not 0, 1 or 2", c.MaxQoS)
	}
	for _, f := range c.DenySubscribe {
		if err := topic.ValidateFilter(f); err != nil {
			bad("deny_subscribe", "%q: %s", f, err)
		}
	}
	return errors.Join(errs...)
}

// span is how far past the committed cursor a session's owner may send: enough for the window to be
// full while half of it is being committed, little enough to bound what a node's death repeats.
func (c *Config) span() uint32 {
	return uint32(min(math.MaxUint16, max(1024, 8*int(c.MaxInflight))))
}

func (c *Config) topicLimits() topic.Limits {
	return topic.Limits{Levels: c.MaxTopicLevels, Bytes: c.MaxTopicLength}
}
