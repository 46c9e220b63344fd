package fsm

// Epoch identifies one connection of a client: the log position of its CONNECT. It is never
// reused, also when the record was deleted in between, and it only grows.
type Epoch uint64

// offsetBits is how much of an epoch counts commands inside an entry.
const offsetBits = 20

// EpochAt is the epoch of the connect at a log index and an offset in the entry.
func EpochAt(index uint64, offset int) Epoch { return Epoch(index<<offsetBits | uint64(offset)) }

// Index is the log position of the entry with the CONNECT.
func (e Epoch) Index() uint64 { return uint64(e) >> offsetBits }

// NodeRef names one life of a node.
type NodeRef struct {
	Node        string
	Incarnation uint64
}

// Message is one published message, stored once and shared by all the queues that hold it.
// It is immutable after Apply made it.
type Message struct {
	ID        uint64 // unique and ascending: the log position (EpochAt) of its publish, or one soon after
	Topic     string
	Payload   []byte
	Props     []byte // forwardable v5 properties, encoded, in order
	Publisher string // client id, for No Local
	Epoch     Epoch  // the publisher's, 0 for the node's own
	QoS       byte   // as published
	Retain    bool   // as published
	Expires   int64  // the log's clock in ms, 0: never
	Stored    int64  // the log's clock in ms when it was published
}

// Entry is a place in a session's queue. It is immutable: its delivery state is held beside it.
type Entry struct {
	Seq     uint64 // packet id = PacketID(Seq)
	Message *Message
	QoS     byte     // effective
	Retain  bool     // the RETAIN flag to send
	IDs     []uint32 // subscription identifiers, of all matching subscriptions, ascending
	Filter  string   // shared subscription that assigned it, else empty
	Group   string
}

// PacketID is the packet id under which the entry with that sequence number is sent, by any node.
func PacketID(seq uint64) uint16 { return uint16(1 + (seq-1)%65535) }

// Reason says why a message was not delivered (P8). The numbers are part of the log format.
type Reason uint32

// The reasons, as they appear in metrics.
const (
	ReasonNone         Reason = iota
	ReasonQueueFull           // the session's queue was full
	ReasonExpired             // message expiry
	ReasonTooLarge            // over the client's Maximum Packet Size
	ReasonNotAllowed          // an ACL forbade the delivery
	ReasonSessionEnded        // the session was ended while it had messages queued
	ReasonSlowReader          // QoS 0 to a client that does not read
	ReasonNoQuorum            // the node had no lease
	ReasonLink                // a link was broken or full (QoS 0)
	ReasonStale               // of a connection that had been taken over
	ReasonOffline             // QoS 0 for a session that is not connected
	ReasonNoMember            // a shared group without a member
	ReasonCount
)

var reasonNames = [ReasonCount]string{
	"none", "queue_full", "expired", "too_large", "not_allowed", "session_ended", "slow_reader",
	"no_quorum", "link", "stale", "offline", "no_member",
}

// String is the metric label.
func (r Reason) String() string {
	if r < ReasonCount {
		return reasonNames[r]
	}
	return "unknown"
}

// Code is the outcome of a command.
type Code uint8

// Outcomes of commands.
const (
	OK        Code = iota
	Stale          // the epoch is not the current one: the connection was taken over or ended
	TooLate        // a connect past its not-after
	Duplicate      // a QoS 2 publish whose packet id is in the publisher's set already
	NotFound       // no such session, packet id or subscription
	NoMatch        // a publish that matched no subscription anywhere
	Invalid        // the command makes no sense (a bug or a hostile peer)
	Exists         // an access change that creates what is there already
	Conflict       // an access change of what has been changed meanwhile
)

// Result is what a command did, for the node that proposed it.
type Result struct {
	Code    Code
	Index   uint64 // the log index of its entry
	Epoch   Epoch  // Connect
	Session *SessionView
	Present bool     // Connect: Session Present
	Existed []bool   // Subscribe, Unsubscribe: the subscription was there before, by position
	Changed []Change // ChangeAccess: what became of each change
	Detail  string   // ChangeAccess: why it was refused, for people
}

// SessionView is a persistent session as it stands at one index. Slices alias the state machine's
// memory: they are never written after Apply, and the reader must not write them either.
type SessionView struct {
	ClientID      string
	Epoch         Epoch
	Expiry        uint32 // seconds
	Limits        Limits
	Cursor        uint64 // every sequence up to here is done
	Last          uint64 // the last sequence that was assigned
	Mark          uint64 // every sequence up to here was possibly sent
	Done          []Range
	Received      []Range // PUBREC came, or a tombstone: answer with PUBREL
	Queue         []Entry // ascending Seq, each > Cursor; may hold done entries
	Inbound       []uint16
	Subscriptions []Subscription
}

// Range is an inclusive range of sequence numbers.
type Range struct{ Lo, Hi uint64 }

// Limits are a session's own, carried by its Connect.
type Limits struct {
	MaxQueue      uint32
	MaxQueueBytes uint64
	Span          uint32
	QueueQoS0     bool
	DropOldest    bool // a full queue drops its oldest entry that was never sent, not the newest
}

// Subscription of a persistent session or (in the node) of a clean one.
type Subscription struct {
	Filter            string
	Group             string // shared group, else empty
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
	ID                uint32
}

// EffectKind says which fields of an Effect count.
type EffectKind uint8

// What Apply asks of this node, in log order. Effects for sessions are made only on the node that
// owns the connection.
const (
	// EffectResult: command Sequence of this node's own batch did Result.
	EffectResult EffectKind = iota + 1
	// EffectSuperseded: connection (Client, Epoch) on this node was taken over by another: close
	// it with 0x8E and propose its Disconnect.
	EffectSuperseded
	// EffectEnded: the session or clean client (Client, Epoch) connected here was ended by the
	// log (deleted): close it.
	EffectEnded
	// EffectEnqueued: session (Client, Epoch) connected here has a new Entry.
	EffectEnqueued
	// EffectDeliver0: send Entry (Seq 0, QoS 0) to session (Client, Epoch) connected here. As with
	// EffectPublished, Sequence of Node's batches did it, 0: no command of a batch. Frames held for
	// what came before that one go first.
	EffectDeliver0
	// EffectPublished: Message went over the log. Deliver it to this node's own clean
	// subscribers; Picks are the shared groups for which this node must pick one clean member.
	// Node and Sequence: as with EffectDeliver0.
	EffectPublished
	// EffectDropped: N messages for Client were dropped for Reason. Made only where they are to
	// be counted: on the node whose command did it.
	EffectDropped
	// EffectPassed: the log has passed Sequence of Node's batches: frames held for it may go.
	EffectPassed
	// EffectNodeUp and EffectNodeDown: an incarnation began or ended.
	EffectNodeUp
	EffectNodeDown
	// EffectRelay: Frame was relayed to this node by Node with link sequence Sequence.
	EffectRelay
	// EffectGap: a batch of this node came too early; resend from Sequence.
	EffectGap
	// EffectRefused: a batch of this node's Node.Incarnation was refused: it is not live.
	EffectRefused
	// EffectPicked: Message, which the log has carried before, goes to one clean member of each of
	// the shared groups in Picks and to nobody else: the member that had it is gone.
	EffectPicked
)

// Effect is one thing to do on this node after an entry was applied.
type Effect struct {
	Kind     EffectKind
	Client   string
	Epoch    Epoch
	Entry    Entry
	Message  *Message
	Picks    []Pick
	Reason   Reason
	N        int
	Node     NodeRef
	Sequence uint64
	Index    uint64 // log index of the entry
	Frame    []byte
	Result   *Result
}

// Pick is a shared group of which this node must choose a clean member. ID settles it (SharedDone).
type Pick struct {
	ID     uint64
	Filter string
	Group  string
}

// Route is where a publish to one topic goes, at one Generation. Slices may be kept: they are not
// written again.
type Route struct {
	Generation uint64
	// Persistent is one more than the highest granted QoS among matching subscriptions of
	// persistent sessions, shared ones too; 0: none matches.
	Persistent byte
	// QueueQoS0 is true when a matching persistent session queues QoS 0.
	QueueQoS0 bool
	// Nodes are the live nodes with a matching connected subscriber outside of shared groups:
	// clean ones by interest, persistent ones by owner.
	Nodes []NodeRef
	// Shared are the matching groups with the live nodes that have a connected member.
	Shared []SharedRoute
}

// SharedRoute is one matching shared group.
type SharedRoute struct {
	Filter     string
	Group      string
	Persistent byte // as in Route, for this group alone
	Nodes      []NodeRef
	Weights    []int // how many connected members each of Nodes has
}
