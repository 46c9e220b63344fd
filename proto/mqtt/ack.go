package mqtt

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP.
type Ack struct {
	Type         Type
	PacketID     uint16
	Code         ReasonCode
	ReasonString string
	User         []UserProperty
}

var ackProps = propsOf(propReasonString, propUser)

// Decode reads an acknowledgement of any of the four types, as first tells. It allocates only for
// properties.
func (p *Ack) Decode(v Version, first byte, body []byte) error {
	*p = Ack{Type: TypeOf(first)}
	if p.Type < PUBACK || p.Type > PUBCOMP {
		return protocolError("packet is not of the expected type")
	}
	if err := p.Type.checkFirst(v, first); err != nil {
		return err
	}
	r := reader{b: body}
	p.PacketID = r.packetID()
	if v != V5 || !r.more() { // a reason code may be left out: success
		return r.end()
	}
	p.Code = ReasonCode(r.byte())
	if !p.codes().has(p.Code) {
		return protocolError("acknowledgement has a reason code that is not for it") // [MQTT-3.4.2-1]
	}
	if r.more() {
		p.ReasonString, p.User = r.reasonProps()
	}
	return r.end()
}

func (p *Ack) codes() *codeSet {
	if p.Type == PUBREL || p.Type == PUBCOMP {
		return &releasedCodes
	}
	return &publishedCodes
}

// Append encodes the packet, without what can be left out.
func (p *Ack) Append(dst []byte, v Version) []byte {
	dst = append(dst, p.Type.first())
	if v != V5 || p.Code == Success && p.ReasonString == "" && len(p.User) == 0 {
		return appendUint16(append(dst, 2), p.PacketID)
	}
	if p.ReasonString == "" && len(p.User) == 0 {
		return append(appendUint16(append(dst, 3), p.PacketID), byte(p.Code))
	}
	start := len(dst)
	dst = append(appendUint16(dst, p.PacketID), byte(p.Code))
	dst = appendReasonProps(dst, p.ReasonString, p.User)
	return prefixLength(dst, start)
}

// reasonProps reads properties of which only these two are allowed.
func (r *reader) reasonProps() (reason string, user []UserProperty) {
	ps := r.properties(ackProps)
	for id := ps.next(); id != 0; id = ps.next() {
		if id == propReasonString {
			reason = ps.string()
		} else {
			ps.user(&user)
		}
	}
	r.join(&ps)
	return reason, user
}

func appendReasonProps(dst []byte, reason string, user []UserProperty) []byte {
	start := len(dst)
	dst = appendStringProp(dst, propReasonString, reason)
	dst = appendUserProps(dst, user)
	return prefixLength(dst, start)
}
