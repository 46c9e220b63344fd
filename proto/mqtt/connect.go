package mqtt

// Connect is a CONNECT. Nothing in it aliases the body.
type Connect struct {
	Version     Version
	Clean       bool // Clean Start, Clean Session
	KeepAlive   uint16
	ClientID    string
	HasUsername bool
	Username    string
	HasPassword bool
	Password    []byte
	Will        *Will // nil: none

	HasSessionExpiry      bool
	SessionExpiry         uint32 // seconds
	HasReceiveMaximum     bool   // else 65,535
	ReceiveMaximum        uint16
	HasMaxPacketSize      bool // else no limit
	MaxPacketSize         uint32
	TopicAliasMaximum     uint16
	RequestResponseInfo   bool
	HasRequestProblemInfo bool // else true
	RequestProblemInfo    bool
	User                  []UserProperty
	AuthMethod            string // empty: no enhanced authentication
	AuthData              []byte // nil: none
}

// Will is the message that the server publishes when the client is gone.
type Will struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool

	Delay     uint32 // seconds
	HasExpiry bool
	Expiry    uint32 // seconds
	Props     []byte // as Publish.Props
}

// Flags of a CONNECT (section 3.1.2.3).
const (
	flagReserved = 1 << iota
	flagClean
	flagWill
	flagWillQoS1
	flagWillQoS2
	flagWillRetain
	flagPassword
	flagUsername
)

const flagsWill = flagWillQoS1 | flagWillQoS2 | flagWillRetain

var (
	connectProps = propsOf(propSessionExpiry, propReceiveMaximum, propMaxPacketSize, propTopicAliasMaximum,
		propRequestResponse, propRequestProblem, propUser, propAuthMethod, propAuthData)
	willProps = forwarded | propsOf(propMessageExpiry, propWillDelay)
)

// Decode reads a CONNECT. After an error, Version is one in which a CONNACK can tell the client of
// it, or 0 when the packet does not even say that it is MQTT: then there is nobody to answer.
func (p *Connect) Decode(first byte, body []byte) error {
	*p = Connect{}
	if err := CONNECT.checkFirst(0, first); err != nil {
		return err
	}
	r := reader{b: body}
	if p.version(&r); r.err != nil {
		return r.err
	}
	flags := r.byte()
	if r.err == nil {
		if err := p.checkFlags(flags); err != nil {
			return err
		}
	}
	p.Clean = flags&flagClean != 0
	p.KeepAlive = r.uint16()
	if p.Version == V5 {
		p.properties(&r)
	}
	p.ClientID = string(r.text())
	if flags&flagWill != 0 && r.err == nil {
		p.Will = &Will{QoS: flags >> 3 & 3, Retain: flags&flagWillRetain != 0}
		p.Will.decode(&r, p.Version)
	}
	p.credentials(&r, flags)
	if err := r.end(); err != nil {
		return err
	}
	if p.ClientID == "" && (p.Version == V31 || p.Version == V311 && !p.Clean) { // 3.1.1 [MQTT-3.1.3-8]
		return &Error{ClientIdentifierNotValid, "client identifier is empty"}
	}
	return nil
}

// version reads protocol name and level. Mosquitto's bridge bit (0x80) is refused like any unknown
// level: a bridge then tries again without it.
func (p *Connect) version(r *reader) {
	name := string(r.binary())
	level := r.byte()
	if r.err != nil {
		return
	}
	switch {
	case name == "MQTT" && (level == byte(V311) || level == byte(V5)), name == "MQIsdp" && level == byte(V31):
		p.Version = Version(level)
		return
	case name == "MQTT" && level > byte(V5) && level < 0x80:
		p.Version = V5
	case name == "MQTT" || name == "MQIsdp":
		p.Version = V311
	}
	r.fail(&Error{UnsupportedProtocolVersion, "protocol name or level is not supported"}) // [MQTT-3.1.2-1], [MQTT-3.1.2-2]
}

func (p *Connect) checkFlags(flags byte) error {
	switch {
	case flags&flagReserved != 0:
		return malformed("reserved flag of CONNECT is set") // [MQTT-3.1.2-3]
	case flags&flagWill == 0 && flags&flagsWill != 0:
		return malformed("CONNECT has will QoS or retain, but no will") // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
	case flags>>3&3 == 3:
		return malformed("will QoS is 3") // [MQTT-3.1.2-12]
	case flags&flagPassword != 0 && flags&flagUsername == 0 && p.Version != V5:
		return malformed("CONNECT has a password, but no user name") // 3.1.1 [MQTT-3.1.2-22]
	}
	return nil
}

func (p *Connect) properties(r *reader) {
	ps := r.properties(connectProps)
	for id := ps.next(); id != 0; id = ps.next() {
		switch id {
		case propSessionExpiry:
			p.SessionExpiry, p.HasSessionExpiry = ps.uint32(), true
		case propReceiveMaximum:
			p.ReceiveMaximum, p.HasReceiveMaximum = ps.positive16(), true
		case propMaxPacketSize:
			p.MaxPacketSize, p.HasMaxPacketSize = ps.positive32(), true
		case propTopicAliasMaximum:
			p.TopicAliasMaximum = ps.uint16()
		case propRequestResponse:
			p.RequestResponseInfo = ps.flag()
		case propRequestProblem:
			p.RequestProblemInfo, p.HasRequestProblemInfo = ps.flag(), true
		case propAuthMethod:
			p.AuthMethod = ps.string()
		case propAuthData:
			p.AuthData = ps.data()
		default:
			ps.user(&p.User)
		}
	}
	ps.checkAuth(false, p.AuthMethod)
	r.join(&ps)
}

func (w *Will) decode(r *reader, v Version) {
	if v == V5 {
		ps := r.properties(willProps)
		var f forward
		var scratch []byte
		for id := ps.next(); id != 0; id = ps.next() {
			switch id {
			case propWillDelay:
				w.Delay = ps.uint32()
			case propMessageExpiry:
				w.Expiry, w.HasExpiry = ps.uint32(), true
			default:
				f.take(&ps, id, &scratch)
			}
		}
		w.Props = append([]byte(nil), f.out...)
		r.join(&ps)
	}
	w.Topic = string(r.name())
	if w.Topic == "" && r.err == nil {
		r.fail(malformed("will topic is empty")) // [MQTT-4.7.3-1]
	}
	w.Payload = append([]byte(nil), r.binary()...)
}

// credentials: in 3.1 they may be missing although their flags are set; the length counts more than
// the flags there.
func (p *Connect) credentials(r *reader, flags byte) {
	there := func() bool { return r.more() || p.Version != V31 }
	if flags&flagUsername != 0 && there() {
		p.Username, p.HasUsername = string(r.text()), true
	}
	if flags&flagPassword != 0 && there() {
		p.Password, p.HasPassword = append([]byte{}, r.binary()...), true
	}
}

// Append encodes the packet for a version, whatever p.Version is.
func (p *Connect) Append(dst []byte, v Version) []byte {
	dst = append(dst, CONNECT.first())
	start := len(dst)
	if v == V31 {
		dst = appendString(dst, "MQIsdp")
	} else {
		dst = appendString(dst, "MQTT")
	}
	dst = appendUint16(append(dst, byte(v), p.flags()), p.KeepAlive)
	if v == V5 {
		dst = p.appendProps(dst)
	}
	dst = appendString(dst, p.ClientID)
	if p.Will != nil {
		dst = p.Will.append(dst, v)
	}
	if p.HasUsername {
		dst = appendString(dst, p.Username)
	}
	if p.HasPassword {
		dst = appendBinary(dst, p.Password)
	}
	return prefixLength(dst, start)
}

func (p *Connect) flags() (f byte) {
	if p.Clean {
		f |= flagClean
	}
	if w := p.Will; w != nil {
		f |= flagWill | w.QoS&3<<3
		if w.Retain {
			f |= flagWillRetain
		}
	}
	if p.HasPassword {
		f |= flagPassword
	}
	if p.HasUsername {
		f |= flagUsername
	}
	return f
}

func (p *Connect) appendProps(dst []byte) []byte {
	start := len(dst)
	if p.HasSessionExpiry {
		dst = appendLongProp(dst, propSessionExpiry, p.SessionExpiry)
	}
	if p.HasReceiveMaximum {
		dst = appendShortProp(dst, propReceiveMaximum, p.ReceiveMaximum)
	}
	if p.HasMaxPacketSize {
		dst = appendLongProp(dst, propMaxPacketSize, p.MaxPacketSize)
	}
	if p.TopicAliasMaximum != 0 {
		dst = appendShortProp(dst, propTopicAliasMaximum, p.TopicAliasMaximum)
	}
	if p.RequestResponseInfo {
		dst = appendByteProp(dst, propRequestResponse, 1)
	}
	if p.HasRequestProblemInfo {
		dst = appendByteProp(dst, propRequestProblem, bit(p.RequestProblemInfo))
	}
	dst = appendUserProps(dst, p.User)
	dst = appendAuthProps(dst, p.AuthMethod, p.AuthData)
	return prefixLength(dst, start)
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (w *Will) append(dst []byte, v Version) []byte {
	if v == V5 {
		start := len(dst)
		if w.Delay != 0 {
			dst = appendLongProp(dst, propWillDelay, w.Delay)
		}
		if w.HasExpiry {
			dst = appendLongProp(dst, propMessageExpiry, w.Expiry)
		}
		dst = prefixLength(append(dst, w.Props...), start)
	}
	return appendBinary(appendString(dst, w.Topic), w.Payload)
}
