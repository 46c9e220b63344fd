package mqtt

import "fmt"

// Version is the protocol level of a CONNECT.
type Version byte

// The versions.
const (
	V31  Version = 3 // "MQIsdp"
	V311 Version = 4
	V5   Version = 5
)

func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5.0"
	}
	return fmt.Sprintf("level %d", byte(v))
}

// Type is a control packet type: the upper four bits of the first byte.
type Type byte

// The types.
const (
	CONNECT Type = iota + 1
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
)

var typeNames = [16]string{
	"RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
	"UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

// TypeOf is the type that a packet's first byte tells.
func TypeOf(first byte) Type { return Type(first >> 4) }

func (t Type) String() string { return typeNames[t&15] }

// first is the first byte of a packet of this type, with the flags that the specification fixes
// [MQTT-2.1.3-1].
func (t Type) first() byte {
	switch t {
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		return byte(t)<<4 | 2
	}
	return byte(t) << 4
}

// checkFirst checks type and flags. 3.1 has DUP on PUBREL, SUBSCRIBE and UNSUBSCRIBE.
func (t Type) checkFirst(v Version, first byte) error {
	want := t.first()
	if first == want || v == V31 && want&2 != 0 && first == want|8 {
		return nil
	}
	if TypeOf(first) != t {
		return protocolError("packet is not of the expected type")
	}
	return malformed("reserved flags of the fixed header are wrong")
}

// UserProperty is a name and value that mean nothing to the protocol. Their order is kept.
type UserProperty struct{ Key, Value string }
