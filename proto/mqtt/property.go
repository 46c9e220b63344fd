package mqtt

import "encoding/binary"

// Property identifiers (section 2.2.2.2).
const (
	propPayloadFormat     = 0x01
	propMessageExpiry     = 0x02
	propContentType       = 0x03
	propResponseTopic     = 0x08
	propCorrelationData   = 0x09
	propSubscriptionID    = 0x0B
	propSessionExpiry     = 0x11
	propAssignedClientID  = 0x12
	propServerKeepAlive   = 0x13
	propAuthMethod        = 0x15
	propAuthData          = 0x16
	propRequestProblem    = 0x17
	propWillDelay         = 0x18
	propRequestResponse   = 0x19
	propResponseInfo      = 0x1A
	propServerReference   = 0x1C
	propReasonString      = 0x1F
	propReceiveMaximum    = 0x21
	propTopicAliasMaximum = 0x22
	propTopicAlias        = 0x23
	propMaximumQoS        = 0x24
	propRetainAvailable   = 0x25
	propUser              = 0x26
	propMaxPacketSize     = 0x27
	propWildcardAvailable = 0x28
	propSubIDAvailable    = 0x29
	propSharedAvailable   = 0x2A
)

// propSet is a set of property identifiers.
type propSet uint64

func propsOf(ids ...byte) (s propSet) {
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

func (s propSet) has(id byte) bool { return s>>id&1 != 0 }

// properties walks through the properties of one packet.
type properties struct {
	reader
	allowed propSet
	seen    propSet
}

// properties reads the length and returns a walk over what it covers. Errors of the walk belong to
// the caller, who ends it with join.
func (r *reader) properties(allowed propSet) properties {
	b := r.take(int(r.varint()))
	return properties{reader: reader{b: b, err: r.err}, allowed: allowed}
}

// join hands the walk's error over.
func (r *reader) join(p *properties) {
	if p.err != nil {
		r.fail(p.err)
	}
}

// next reads an identifier; 0 after the last property or an error. An identifier that is unknown or
// not for this packet is malformed, a repeated one a protocol error (section 2.2.2.2).
func (p *properties) next() byte {
	if !p.more() {
		return 0
	}
	id := p.byte() // all that there are fit into one byte
	switch {
	case id > 63 || !p.allowed.has(id):
		p.fail(malformed("packet has a property that is unknown or not allowed in it"))
		return 0
	case p.seen.has(id) && id != propUser && id != propSubscriptionID:
		p.fail(protocolError("packet has a property twice"))
		return 0
	}
	p.seen |= 1 << id
	return id
}

// flag reads a byte that is 0 or 1.
func (p *properties) flag() bool {
	c := p.byte()
	if c > 1 {
		p.fail(protocolError("property is neither 0 nor 1"))
	}
	return c == 1
}

func (p *properties) positive16() uint16 {
	n := p.uint16()
	if n == 0 && p.err == nil {
		p.fail(protocolError("property must not be 0"))
	}
	return n
}

func (p *properties) positive32() uint32 {
	n := p.uint32()
	if n == 0 && p.err == nil {
		p.fail(protocolError("property must not be 0"))
	}
	return n
}

func (p *properties) string() string { return string(p.text()) }

// data copies binary data; it is not nil when it is there.
func (p *properties) data() []byte { return append([]byte{}, p.binary()...) }

func (p *properties) user(to *[]UserProperty) {
	k, v := p.text(), p.text()
	if p.err == nil {
		*to = append(*to, UserProperty{string(k), string(v)})
	}
}

// UserValue is the value of the first user property of that name among forwardable properties, as Publish.Props has them.
func UserValue(props []byte, name string) (string, bool) {
	p := properties{reader: reader{b: props}, allowed: forwarded}
	for id := p.next(); id != 0; id = p.next() {
		switch id {
		case propUser:
			k, v := p.text(), p.text()
			if p.err == nil && string(k) == name {
				return string(v), true
			}
		case propPayloadFormat:
			p.byte()
		default: // content type, response topic, correlation data: a length and bytes
			p.binary()
		}
	}
	return "", false
}

// subscriptionID reads a subscription identifier: 1 to 268,435,455.
func (p *properties) subscriptionID() uint32 {
	id := p.varint()
	if id == 0 && p.err == nil {
		p.fail(protocolError("subscription identifier is 0"))
	}
	return id
}

// reader of properties that a server passes on unaltered [MQTT-3.3.2-4, -15, -16, -17, -18, -20].
type forward struct {
	out   []byte // what was found: a slice of the packet while it is contiguous
	end   int    // where the slice ends in the packet
	moved bool   // out is not in the packet any more, but in scratch
}

var forwarded = propsOf(propPayloadFormat, propContentType, propResponseTopic, propCorrelationData, propUser)

// take reads the value of the property id, whose identifier was just read. scratch is what out is
// moved to when something else stands between two of them.
func (f *forward) take(p *properties, id byte, scratch *[]byte) {
	start := p.at - 1
	switch id {
	case propPayloadFormat:
		p.flag()
	case propContentType:
		p.text()
	case propResponseTopic:
		if t := p.name(); len(t) == 0 && p.err == nil { // [MQTT-3.3.2-14], [MQTT-4.7.3-1]
			p.fail(malformed("response topic is empty"))
		}
	case propCorrelationData:
		p.binary()
	case propUser:
		p.text()
		p.text()
	}
	if p.err != nil {
		f.out = nil
		return
	}
	switch {
	case f.moved:
		f.out = append(f.out, p.b[start:p.at]...)
	case f.out == nil:
		f.out = p.b[start:p.at:p.at]
	case f.end == start:
		f.out = p.b[start-len(f.out) : p.at : p.at]
	default:
		f.out = append(append((*scratch)[:0], f.out...), p.b[start:p.at]...)
		f.moved = true
	}
	if f.moved {
		*scratch = f.out
	}
	f.end = p.at
}

func appendByteProp(dst []byte, id, v byte) []byte { return append(dst, id, v) }

func appendShortProp(dst []byte, id byte, v uint16) []byte { return appendUint16(append(dst, id), v) }

func appendLongProp(dst []byte, id byte, v uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, id), v)
}

// appendStringProp leaves an empty string out.
func appendStringProp(dst []byte, id byte, s string) []byte {
	if s == "" {
		return dst
	}
	return appendString(append(dst, id), s)
}

// appendAuthProps leaves data out when it is nil, or has no method to go with.
func appendAuthProps(dst []byte, method string, data []byte) []byte {
	if method == "" {
		return dst
	}
	dst = appendStringProp(dst, propAuthMethod, method)
	if data != nil {
		dst = appendBinary(append(dst, propAuthData), data)
	}
	return dst
}

func appendUserProps(dst []byte, list []UserProperty) []byte {
	for _, u := range list {
		dst = appendString(appendString(append(dst, propUser), u.Key), u.Value)
	}
	return dst
}
