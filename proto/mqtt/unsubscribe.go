package mqtt

// Unsubscribe is an UNSUBSCRIBE. Nothing in it aliases the body.
type Unsubscribe struct {
	PacketID uint16
	Filters  []string // as they came, with $share; at least one; all are valid
	User     []UserProperty
}

// Decode reads an UNSUBSCRIBE.
func (p *Unsubscribe) Decode(v Version, first byte, body []byte) error {
	*p = Unsubscribe{}
	if err := UNSUBSCRIBE.checkFirst(v, first); err != nil {
		return err
	}
	r := reader{b: body}
	p.PacketID = r.packetID()
	if v == V5 {
		ps := r.properties(propsOf(propUser))
		for ps.next() != 0 {
			ps.user(&p.User)
		}
		r.join(&ps)
	}
	if !r.more() && r.err == nil {
		return protocolError("UNSUBSCRIBE without a topic filter") // [MQTT-3.10.3-2]
	}
	for r.more() {
		if f := r.filter(); r.err == nil {
			p.Filters = append(p.Filters, f)
		}
	}
	return r.end()
}

// Append encodes the packet.
func (p *Unsubscribe) Append(dst []byte, v Version) []byte {
	dst = append(dst, UNSUBSCRIBE.first())
	start := len(dst)
	dst = appendUint16(dst, p.PacketID)
	if v == V5 {
		dst = prefixLength(appendUserProps(dst, p.User), len(dst))
	}
	for _, f := range p.Filters {
		dst = appendString(dst, f)
	}
	return prefixLength(dst, start)
}

// Unsuback is an UNSUBACK: in 5.0 a code for each filter of the UNSUBSCRIBE, in order.
type Unsuback struct {
	PacketID     uint16
	Codes        []byte // reason codes; before 5.0 there are none
	ReasonString string
	User         []UserProperty
}

// Decode reads an UNSUBACK.
func (p *Unsuback) Decode(v Version, first byte, body []byte) error {
	*p = Unsuback{}
	if err := UNSUBACK.checkFirst(v, first); err != nil {
		return err
	}
	r := reader{b: body}
	p.PacketID = r.packetID()
	if v != V5 {
		return r.end()
	}
	p.ReasonString, p.User = r.reasonProps()
	if !r.more() && r.err == nil {
		return protocolError("UNSUBACK without a reason code")
	}
	p.Codes = append([]byte(nil), r.rest()...)
	for _, c := range p.Codes {
		if !unsubackCodes.has(ReasonCode(c)) { // [MQTT-3.11.3-2]
			return protocolError("UNSUBACK has a reason code that is not for it")
		}
	}
	return r.err
}

// Append encodes the packet.
func (p *Unsuback) Append(dst []byte, v Version) []byte {
	dst = append(dst, UNSUBACK.first())
	if v != V5 {
		return appendUint16(append(dst, 2), p.PacketID)
	}
	start := len(dst)
	dst = appendReasonProps(appendUint16(dst, p.PacketID), p.ReasonString, p.User)
	return prefixLength(append(dst, p.Codes...), start)
}
