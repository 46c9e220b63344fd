package mqtt

// Auth is an AUTH, which only 5.0 has.
type Auth struct {
	Code         ReasonCode
	Method       string
	Data         []byte // nil: none
	ReasonString string
	User         []UserProperty
}

var authProps = ackProps | propsOf(propAuthMethod, propAuthData)

// Decode reads an AUTH. One without properties is taken as the specification's short form of
// success (section 3.15.2.1) and has no method.
func (p *Auth) Decode(v Version, first byte, body []byte) error {
	*p = Auth{}
	if v != V5 {
		return protocolError("AUTH before MQTT 5.0")
	}
	if err := AUTH.checkFirst(v, first); err != nil {
		return err
	}
	r := reader{b: body}
	if !r.more() {
		return nil
	}
	p.Code = ReasonCode(r.byte())
	if !authCodes.has(p.Code) {
		return protocolError("AUTH has a reason code that is not for it") // [MQTT-3.15.2-1]
	}
	ps := r.properties(authProps)
	for id := ps.next(); id != 0; id = ps.next() {
		switch id {
		case propAuthMethod:
			p.Method = ps.string()
		case propAuthData:
			p.Data = ps.data()
		case propReasonString:
			p.ReasonString = ps.string()
		default:
			ps.user(&p.User)
		}
	}
	ps.checkAuth(true, p.Method)
	r.join(&ps)
	return r.end()
}

// checkAuth: data needs a method, and a method a name (sections 3.1.2.11.9, 3.15.2.2.2).
func (p *properties) checkAuth(required bool, method string) {
	switch {
	case p.err != nil:
	case !p.seen.has(propAuthMethod) && (required || p.seen.has(propAuthData)):
		p.fail(protocolError("authentication method is missing"))
	case p.seen.has(propAuthMethod) && method == "":
		p.fail(&Error{BadAuthenticationMethod, "authentication method is empty"})
	}
}

// FromClient checks what a server must, but Decode can't know: success is the server's to say.
func (p *Auth) FromClient() error {
	if p.Code == Success {
		return protocolError("AUTH from a client says success")
	}
	return nil
}

// Append encodes the packet. Before 5.0 there is none, and nothing is appended.
func (p *Auth) Append(dst []byte, v Version) []byte {
	if v != V5 {
		return dst
	}
	dst = append(dst, AUTH.first())
	start := len(dst)
	if p.Code == Success && p.Method == "" {
		return append(dst, 0)
	}
	dst = append(dst, byte(p.Code))
	at := len(dst)
	dst = appendAuthProps(dst, p.Method, p.Data)
	dst = appendStringProp(dst, propReasonString, p.ReasonString)
	dst = prefixLength(appendUserProps(dst, p.User), at)
	return prefixLength(dst, start)
}
