package harness

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The wire format as the client needs it. It is written apart from the broker's own codec: a
// mistake that both ends share would stay unseen.

// Protocol levels.
const (
	V31  byte = 3
	V311 byte = 4
	V5   byte = 5
)

// Packet types.
const (
	CONNECT byte = iota + 1
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

var typeNames = [...]string{
	"none", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
	"UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

// Property identifiers that tests use.
const (
	MessageExpiry   byte = 0x02
	SubscriptionID  byte = 0x0B
	SessionExpiry   byte = 0x11
	AssignedID      byte = 0x12
	WillDelay       byte = 0x18
	ServerReference byte = 0x1C
	ReasonString    byte = 0x1F
	ReceiveMaximum  byte = 0x21
	TopicAliasMax   byte = 0x22
	TopicAlias      byte = 0x23
	UserProperty    byte = 0x26
	MaxPacketSize   byte = 0x27
)

// Property is one property of a 5.0 packet: a number, or text (with a value for a user property).
type Property struct {
	ID    byte
	Num   uint32
	Text  string
	Value string
}

type propertyKind uint8

const (
	kindByte propertyKind = iota + 1
	kindShort
	kindLong
	kindVar
	kindText
	kindPair
)

var propertyKinds = map[byte]propertyKind{
	0x01: kindByte, 0x02: kindLong, 0x03: kindText, 0x08: kindText, 0x09: kindText, 0x0B: kindVar, 0x11: kindLong,
	0x12: kindText, 0x13: kindShort, 0x15: kindText, 0x16: kindText, 0x17: kindByte, 0x18: kindLong, 0x19: kindByte,
	0x1A: kindText, 0x1C: kindText, 0x1F: kindText, 0x21: kindShort, 0x22: kindShort, 0x23: kindShort, 0x24: kindByte,
	0x25: kindByte, 0x26: kindPair, 0x27: kindLong, 0x28: kindByte, 0x29: kindByte, 0x2A: kindByte,
}

// Filter is one entry of a SUBSCRIBE: Options as on the wire, the QoS in the lowest two bits.
type Filter struct {
	Name    string
	Options byte
}

// Will of a CONNECT.
type Will struct {
	Topic   string
	Payload string
	QoS     byte
	Retain  bool
	Props   []Property
}

// Packet is a packet of any type; which fields count depends on it.
type Packet struct {
	Type           byte
	Dup            bool
	QoS            byte
	Retain         bool
	ID             uint16
	Topic          string
	Payload        string
	Code           byte   // CONNACK, acknowledgements, DISCONNECT
	Codes          []byte // SUBACK, UNSUBACK
	SessionPresent bool
	Filters        []Filter // SUBSCRIBE, UNSUBSCRIBE
	Props          []Property

	// CONNECT.
	ClientID  string
	Clean     bool
	KeepAlive uint16
	Username  string
	Password  string
	Will      *Will
}

// String is for messages of tests.
func (p Packet) String() string {
	name := "?"
	if int(p.Type) < len(typeNames) {
		name = typeNames[p.Type]
	}
	switch p.Type {
	case PUBLISH:
		return fmt.Sprintf("PUBLISH %s qos=%d id=%d dup=%v retain=%v %.40q", p.Topic, p.QoS, p.ID, p.Dup, p.Retain, p.Payload)
	case CONNACK:
		return fmt.Sprintf("CONNACK code=%#02x present=%v", p.Code, p.SessionPresent)
	default:
		return fmt.Sprintf("%s id=%d code=%#02x %x", name, p.ID, p.Code, p.Codes)
	}
}

// Number is the value of a numeric property.
func (p Packet) Number(id byte) (uint32, bool) {
	for _, q := range p.Props {
		if q.ID == id {
			return q.Num, true
		}
	}
	return 0, false
}

// Encode is the packet as a client of that version sends it. Nothing is checked: a test may want
// to send what is wrong.
func (p Packet) Encode(version byte) []byte {
	var b []byte
	flags := byte(0)
	switch p.Type {
	case CONNECT:
		b = p.connect(version)
	case PUBLISH:
		flags = p.QoS << 1
		if p.Dup {
			flags |= 8
		}
		if p.Retain {
			flags |= 1
		}
		b = appendText(b, p.Topic)
		if p.QoS > 0 {
			b = binary.BigEndian.AppendUint16(b, p.ID)
		}
		if version == V5 {
			b = appendProperties(b, p.Props)
		}
		b = append(b, p.Payload...)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		if p.Type == PUBREL {
			flags = 2
		}
		b = binary.BigEndian.AppendUint16(b, p.ID)
		if version == V5 && p.Code != 0 {
			b = append(b, p.Code)
		}
	case SUBSCRIBE, UNSUBSCRIBE:
		flags = 2
		b = binary.BigEndian.AppendUint16(b, p.ID)
		if version == V5 {
			b = appendProperties(b, p.Props)
		}
		for _, f := range p.Filters {
			b = appendText(b, f.Name)
			if p.Type == SUBSCRIBE {
				b = append(b, f.Options)
			}
		}
	case DISCONNECT, AUTH:
		if version == V5 && (p.Code != 0 || len(p.Props) > 0) {
			b = appendProperties(append(b, p.Code), p.Props)
		}
	}
	out := appendLength([]byte{p.Type<<4 | flags}, len(b))
	return append(out, b...)
}

func (p Packet) connect(version byte) []byte {
	name := "MQTT"
	if version == V31 {
		name = "MQIsdp"
	}
	b := append(appendText(nil, name), version)
	flags := byte(0)
	if p.Clean {
		flags |= 2
	}
	if w := p.Will; w != nil {
		flags |= 4 | w.QoS<<3
		if w.Retain {
			flags |= 32
		}
	}
	if p.Password != "" {
		flags |= 64
	}
	if p.Username != "" {
		flags |= 128
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint16(b, p.KeepAlive)
	if version == V5 {
		b = appendProperties(b, p.Props)
	}
	b = appendText(b, p.ClientID)
	if w := p.Will; w != nil {
		if version == V5 {
			b = appendProperties(b, w.Props)
		}
		b = appendText(appendText(b, w.Topic), w.Payload)
	}
	if p.Username != "" {
		b = appendText(b, p.Username)
	}
	if p.Password != "" {
		b = appendText(b, p.Password)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// appendLength is a variable byte integer.
func appendLength(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) }

func appendProperties(b []byte, props []Property) []byte {
	var list []byte
	for _, p := range props {
		list = append(list, p.ID)
		switch propertyKinds[p.ID] {
		case kindByte:
			list = append(list, byte(p.Num))
		case kindShort:
			list = binary.BigEndian.AppendUint16(list, uint16(p.Num))
		case kindLong:
			list = binary.BigEndian.AppendUint32(list, p.Num)
		case kindVar:
			list = appendLength(list, int(p.Num))
		case kindText:
			list = appendText(list, p.Text)
		case kindPair:
			list = appendText(appendText(list, p.Text), p.Value)
		}
	}
	return append(appendLength(b, len(list)), list...)
}

// ErrMalformed says that a packet breaks the rules of the wire format.
var ErrMalformed = errors.New("the broker sent a malformed packet")

// decode reads a packet that a broker sent.
func decode(version, first byte, body []byte) (Packet, error) {
	p := Packet{Type: first >> 4}
	r := wireReader{b: body}
	flags := first & 15
	switch p.Type {
	case CONNACK:
		ack := r.byte()
		p.SessionPresent, p.Code = ack&1 != 0, r.byte()
		r.bad = r.bad || ack > 1 || p.Code != 0 && p.SessionPresent
		p.Props = r.properties(version)
	case PUBLISH:
		p.Dup, p.QoS, p.Retain = flags&8 != 0, flags>>1&3, flags&1 != 0
		p.Topic = r.text()
		if p.QoS > 0 {
			p.ID = r.short()
			r.bad = r.bad || p.ID == 0
		}
		p.Props = r.properties(version)
		p.Payload = string(r.b)
		r.b, flags = nil, 0
		r.bad = r.bad || p.QoS == 3 || p.QoS == 0 && p.Dup
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		if p.Type == PUBREL {
			flags ^= 2
		}
		p.ID = r.short()
		if version == V5 && len(r.b) > 0 {
			p.Code = r.byte()
			if len(r.b) > 0 {
				p.Props = r.properties(version)
			}
		}
	case SUBACK, UNSUBACK:
		p.ID = r.short()
		p.Props = r.properties(version)
		p.Codes, r.b = r.b, nil
	case DISCONNECT, AUTH:
		if len(r.b) > 0 {
			p.Code = r.byte()
			if len(r.b) > 0 {
				p.Props = r.properties(version)
			}
		}
	case PINGRESP:
	default:
		r.bad = true
	}
	if r.bad || len(r.b) > 0 || flags != 0 {
		return p, fmt.Errorf("%w: %#02x %x", ErrMalformed, first, body)
	}
	return p, nil
}

// wireReader takes fields off the front; after the first bad one it returns zeros.
type wireReader struct {
	b   []byte
	bad bool
}

func (r *wireReader) take(n int) []byte {
	if n > len(r.b) {
		r.b, r.bad = nil, true
		return make([]byte, n)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *wireReader) byte() byte    { return r.take(1)[0] }
func (r *wireReader) short() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *wireReader) text() string  { return string(r.take(int(r.short()))) }

func (r *wireReader) variable() int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 4 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

func (r *wireReader) properties(version byte) []Property {
	if version != V5 {
		return nil
	}
	list := wireReader{b: r.take(r.variable())}
	var props []Property
	for len(list.b) > 0 && !list.bad {
		p := Property{ID: list.byte()}
		switch propertyKinds[p.ID] {
		case kindByte:
			p.Num = uint32(list.byte())
		case kindShort:
			p.Num = uint32(list.short())
		case kindLong:
			p.Num = binary.BigEndian.Uint32(list.take(4))
		case kindVar:
			p.Num = uint32(list.variable())
		case kindText:
			p.Text = list.text()
		case kindPair:
			p.Text, p.Value = list.text(), list.text()
		default:
			list.bad = true
		}
		props = append(props, p)
	}
	r.bad = r.bad || list.bad
	return props
}
