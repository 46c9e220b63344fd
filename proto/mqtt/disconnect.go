package mqtt

// Disconnect is a DISCONNECT. Before 5.0 it is empty and only clients send it.
type Disconnect struct {
	Code             ReasonCode
	HasSessionExpiry bool
	SessionExpiry    uint32 // seconds
	ReasonString     string
	User             []UserProperty
	ServerReference  string
}

var disconnectProps = ackProps | propsOf(propSessionExpiry, propServerReference)

// Decode reads a DISCONNECT.
func (p *Disconnect) Decode(v Version, first byte, body []byte) error {
	*p = Disconnect{}
	if err := DISCONNECT.checkFirst(v, first); err != nil {
		return err
	}
	r := reader{b: body}
	if v != V5 || !r.more() {
		return r.end()
	}
	p.Code = ReasonCode(r.byte())
	if !disconnectCodes.has(p.Code) {
		return protocolError("DISCONNECT has a reason code that is not for it") // [MQTT-3.14.2-1]
	}
	if r.more() {
		p.properties(&r)
	}
	return r.end()
}

func (p *Disconnect) properties(r *reader) {
	ps := r.properties(disconnectProps)
	for id := ps.next(); id != 0; id = ps.next() {
		switch id {
		case propSessionExpiry:
			p.SessionExpiry, p.HasSessionExpiry = ps.uint32(), true
		case propReasonString:
			p.ReasonString = ps.string()
		case propServerReference:
			p.ServerReference = ps.string()
		default:
			ps.user(&p.User)
		}
	}
	r.join(&ps)
}

// FromClient checks what a server must, but Decode can't know: a client sends no code and no
// property that is the server's (section 3.14.2).
func (p *Disconnect) FromClient() error {
	if !clientDisconnectCodes.has(p.Code) || p.ServerReference != "" {
		return protocolError("DISCONNECT from a client says what only a server says")
	}
	return nil
}

// Append encodes the packet, without what can be left out.
func (p *Disconnect) Append(dst []byte, v Version) []byte {
	dst = append(dst, DISCONNECT.first())
	if v != V5 {
		return append(dst, 0)
	}
	start := len(dst)
	dst = append(dst, byte(p.Code))
	at := len(dst)
	if p.HasSessionExpiry {
		dst = appendLongProp(dst, propSessionExpiry, p.SessionExpiry)
	}
	dst = appendStringProp(dst, propReasonString, p.ReasonString)
	dst = appendUserProps(dst, p.User)
	dst = appendStringProp(dst, propServerReference, p.ServerReference)
	switch {
	case len(dst) > at:
		dst = prefixLength(dst, at)
	case p.Code == NormalDisconnection:
		dst = dst[:start]
	}
	return prefixLength(dst, start)
}
