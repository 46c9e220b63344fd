package clusterpb

// Frame is one publish on a link. The strings and slices of a decoded frame alias the buffer it
// was decoded from: the receiver copies what it keeps.
type Frame struct {
	Sequence uint64 // of the link, QoS >= 1 only; 0: QoS 0, not acknowledged, not resent
	ClientID string // the publisher
	Epoch    uint64 // of the publisher's connection
	Topic    string
	Payload  []byte
	Props    []byte // forwardable v5 properties, encoded, in order
	QoS      byte
	Expiry   int64  // ms left when it was sent, 0: never expires
	After    uint64 // the origin's command sequence that the receiver's FSM must have passed; 0: none
	Plain    bool   // deliver to the matching subscribers outside of shared groups
	Shared   []SharedPick
}

// SharedPick tells the receiver to deliver to one member of a group on that node.
type SharedPick struct {
	Filter string // without $share/GROUP/
	Group  string
}

// LinkCode is what became of a frame at QoS 1 or 2.
type LinkCode uint8

// Outcomes of a frame.
const (
	LinkTaken    LinkCode = iota // the receiver checked it and put it into mailboxes, or holds it for order
	LinkNoMember                 // a shared pick found no member there: pick again; or the publisher's connection is older than the one that the receiver knows
	LinkGone                     // the receiver's incarnation ended: nothing more to do for its clients, pick again for shared groups
)

// LinkDone hears, exactly once and from any goroutine, what became of a frame. It must not block.
type LinkDone interface {
	LinkDone(to string, code LinkCode)
}
