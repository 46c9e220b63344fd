package mqtt

// Error is what every Decode, and Split, returns.
type Error struct {
	Code ReasonCode // for the CONNACK or DISCONNECT that answers it
	Msg  string
}

func (e *Error) Error() string { return e.Msg }

// What Split returns.
var (
	// ErrMalformed: the remaining length takes more than four bytes, or more than it needs.
	ErrMalformed error = &Error{MalformedPacket, "remaining length is malformed"}
	// ErrTooLarge: the header announces a packet that is longer than the limit.
	ErrTooLarge error = &Error{PacketTooLarge, "packet is larger than the limit"}
)

func malformed(msg string) error     { return &Error{MalformedPacket, msg} }
func protocolError(msg string) error { return &Error{ProtocolError, msg} }
