package mqtt

// Connack is a CONNACK. For the properties of 5.0 the zero value means that the property is absent
// and the specification's default holds.
type Connack struct {
	SessionPresent bool
	Code           ReasonCode // see ReasonCode.V3Connack for versions before 5.0

	HasSessionExpiry    bool
	SessionExpiry       uint32 // seconds
	ReceiveMaximum      uint16 // 0: 65,535
	HasMaximumQoS       bool   // else 2
	MaximumQoS          byte   // 0 or 1
	NoRetain            bool   // Retain Available is 0
	MaxPacketSize       uint32 // 0: no limit
	AssignedClientID    string
	TopicAliasMaximum   uint16
	ReasonString        string
	User                []UserProperty
	NoWildcards         bool // Wildcard Subscription Available is 0
	NoSubscriptionIDs   bool // Subscription Identifiers Available is 0
	NoShared            bool // Shared Subscription Available is 0
	HasServerKeepAlive  bool
	ServerKeepAlive     uint16 // seconds
	ResponseInformation string
	ServerReference     string
	AuthMethod          string
	AuthData            []byte // nil: none
}

var connackProps = ackProps | propsOf(propSessionExpiry, propReceiveMaximum, propMaximumQoS, propRetainAvailable,
	propMaxPacketSize, propAssignedClientID, propTopicAliasMaximum, propWildcardAvailable, propSubIDAvailable,
	propSharedAvailable, propServerKeepAlive, propResponseInfo, propServerReference, propAuthMethod, propAuthData)

// Decode reads a CONNACK.
func (p *Connack) Decode(v Version, first byte, body []byte) error {
	*p = Connack{}
	if err := CONNACK.checkFirst(v, first); err != nil {
		return err
	}
	r := reader{b: body}
	flags, code := r.byte(), r.byte()
	switch {
	case r.err != nil:
		return r.err
	case flags > 1 || v == V31 && flags > 0:
		return malformed("reserved flags of CONNACK are set") // [MQTT-3.2.2-1]
	case flags == 1 && code != 0:
		return protocolError("CONNACK refuses, but with session present") // [MQTT-3.2.2-6]
	}
	p.SessionPresent, p.Code = flags == 1, ReasonCode(code)
	if v != V5 {
		if int(code) >= len(fromV3Connack) {
			return protocolError("CONNACK has a return code that is not for it")
		}
		p.Code = fromV3Connack[code]
		return r.end()
	}
	if !connackCodes.has(p.Code) {
		return protocolError("CONNACK has a reason code that is not for it") // [MQTT-3.2.2-8]
	}
	ps := r.properties(connackProps)
	for id := ps.next(); id != 0; id = ps.next() {
		p.property(&ps, id)
	}
	ps.checkAuth(false, p.AuthMethod)
	r.join(&ps)
	return r.end()
}

func (p *Connack) property(ps *properties, id byte) {
	switch id {
	case propSessionExpiry:
		p.SessionExpiry, p.HasSessionExpiry = ps.uint32(), true
	case propReceiveMaximum:
		p.ReceiveMaximum = ps.positive16()
	case propMaximumQoS:
		p.HasMaximumQoS = true
		if ps.flag() {
			p.MaximumQoS = 1
		}
	case propRetainAvailable:
		p.NoRetain = !ps.flag()
	case propMaxPacketSize:
		p.MaxPacketSize = ps.positive32()
	case propAssignedClientID:
		p.AssignedClientID = ps.string()
	case propTopicAliasMaximum:
		p.TopicAliasMaximum = ps.uint16()
	case propReasonString:
		p.ReasonString = ps.string()
	case propWildcardAvailable:
		p.NoWildcards = !ps.flag()
	case propSubIDAvailable:
		p.NoSubscriptionIDs = !ps.flag()
	case propSharedAvailable:
		p.NoShared = !ps.flag()
	case propServerKeepAlive:
		p.ServerKeepAlive, p.HasServerKeepAlive = ps.uint16(), true
	case propResponseInfo:
		p.ResponseInformation = ps.string()
	case propServerReference:
		p.ServerReference = ps.string()
	case propAuthMethod:
		p.AuthMethod = ps.string()
	case propAuthData:
		p.AuthData = ps.data()
	default:
		ps.user(&p.User)
	}
}

// Append encodes the packet. Session present is left out where the packet refuses, and in 3.1.
func (p *Connack) Append(dst []byte, v Version) []byte {
	flags := byte(0)
	if p.SessionPresent && p.Code == Success && v != V31 {
		flags = 1
	}
	dst = append(dst, CONNACK.first())
	if v != V5 {
		return append(dst, 2, flags, p.Code.V3Connack())
	}
	start := len(dst)
	dst = append(dst, flags, byte(p.Code))
	return prefixLength(p.appendProps(dst), start)
}

func (p *Connack) appendProps(dst []byte) []byte {
	start := len(dst)
	if p.HasSessionExpiry {
		dst = appendLongProp(dst, propSessionExpiry, p.SessionExpiry)
	}
	if p.ReceiveMaximum != 0 {
		dst = appendShortProp(dst, propReceiveMaximum, p.ReceiveMaximum)
	}
	if p.HasMaximumQoS && p.MaximumQoS < 2 { // 2 must not be sent (section 3.2.2.3.4)
		dst = appendByteProp(dst, propMaximumQoS, p.MaximumQoS)
	}
	if p.NoRetain {
		dst = appendByteProp(dst, propRetainAvailable, 0)
	}
	if p.MaxPacketSize != 0 {
		dst = appendLongProp(dst, propMaxPacketSize, p.MaxPacketSize)
	}
	dst = appendStringProp(dst, propAssignedClientID, p.AssignedClientID)
	if p.TopicAliasMaximum != 0 {
		dst = appendShortProp(dst, propTopicAliasMaximum, p.TopicAliasMaximum)
	}
	dst = appendStringProp(dst, propReasonString, p.ReasonString)
	dst = appendUserProps(dst, p.User)
	if p.NoWildcards {
		dst = appendByteProp(dst, propWildcardAvailable, 0)
	}
	if p.NoSubscriptionIDs {
		dst = appendByteProp(dst, propSubIDAvailable, 0)
	}
	if p.NoShared {
		dst = appendByteProp(dst, propSharedAvailable, 0)
	}
	if p.HasServerKeepAlive {
		dst = appendShortProp(dst, propServerKeepAlive, p.ServerKeepAlive)
	}
	dst = appendStringProp(dst, propResponseInfo, p.ResponseInformation)
	dst = appendStringProp(dst, propServerReference, p.ServerReference)
	dst = appendAuthProps(dst, p.AuthMethod, p.AuthData)
	return prefixLength(dst, start)
}
