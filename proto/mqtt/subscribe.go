package mqtt

import (
	"strings"

	"github.com/skein-mqtt/skein/proto/topic"
)

// Subscribe is a SUBSCRIBE. Nothing in it aliases the body.
type Subscribe struct {
	PacketID       uint16
	Filters        []Subscription // at least one; all are valid
	SubscriptionID uint32         // 0: none
	User           []UserProperty
}

// Subscription is a topic filter as it came, with $share if it has it, and its options.
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte // 0: send retained messages, 1: if the subscription is new, 2: never
}

var subscribeProps = propsOf(propSubscriptionID, propUser)

// Decode reads a SUBSCRIBE.
func (p *Subscribe) Decode(v Version, first byte, body []byte) error {
	*p = Subscribe{}
	if err := SUBSCRIBE.checkFirst(v, first); err != nil {
		return err
	}
	r := reader{b: body}
	p.PacketID = r.packetID()
	if v == V5 {
		p.properties(&r)
	}
	if !r.more() && r.err == nil {
		return protocolError("SUBSCRIBE without a topic filter") // [MQTT-3.8.3-2]
	}
	for r.more() {
		s := Subscription{Filter: r.filter()}
		s.options(&r, v)
		if r.err == nil {
			p.Filters = append(p.Filters, s)
		}
	}
	return r.end()
}

func (p *Subscribe) properties(r *reader) {
	ps := r.properties(subscribeProps)
	for id := ps.next(); id != 0; id = ps.next() {
		if id == propUser {
			ps.user(&p.User)
			continue
		}
		if p.SubscriptionID != 0 {
			ps.fail(protocolError("SUBSCRIBE has two subscription identifiers")) // section 3.8.2.1.2
			break
		}
		p.SubscriptionID = ps.subscriptionID()
	}
	r.join(&ps)
}

func (s *Subscription) options(r *reader, v Version) {
	o := r.byte()
	s.QoS = o & 3
	if v != V5 {
		if o > 2 {
			r.fail(malformed("requested QoS is not 0, 1 or 2")) // 3.1.1 [MQTT-3-8.3-4]
		}
		return
	}
	s.NoLocal, s.RetainAsPublished, s.RetainHandling = o&4 != 0, o&8 != 0, o>>4&3
	switch {
	case o&0xC0 != 0:
		r.fail(malformed("reserved bits of the subscription options are set")) // [MQTT-3.8.3-5]
	case s.QoS == 3:
		r.fail(protocolError("requested QoS is 3"))
	case s.RetainHandling == 3:
		r.fail(protocolError("retain handling is 3"))
	case s.NoLocal && strings.HasPrefix(s.Filter, "$share/"):
		r.fail(protocolError("shared subscription with No Local")) // [MQTT-3.8.3-4]
	}
}

// filter reads and copies a topic filter.
func (r *reader) filter() string {
	f := string(r.text())
	if r.err == nil && topic.ValidateFilter(f) != nil {
		r.fail(malformed("topic filter is malformed")) // [MQTT-4.7.1-1], [MQTT-4.7.3-1], [MQTT-4.8.2-1]
	}
	return f
}

// Append encodes the packet.
func (p *Subscribe) Append(dst []byte, v Version) []byte {
	dst = append(dst, SUBSCRIBE.first())
	start := len(dst)
	dst = appendUint16(dst, p.PacketID)
	if v == V5 {
		at := len(dst)
		if p.SubscriptionID != 0 {
			dst = appendVarint(append(dst, propSubscriptionID), int(p.SubscriptionID))
		}
		dst = prefixLength(appendUserProps(dst, p.User), at)
	}
	for i := range p.Filters {
		s := &p.Filters[i]
		dst = append(appendString(dst, s.Filter), s.encoded(v))
	}
	return prefixLength(dst, start)
}

func (s *Subscription) encoded(v Version) byte {
	o := s.QoS & 3
	if v != V5 {
		return o
	}
	if s.NoLocal {
		o |= 4
	}
	if s.RetainAsPublished {
		o |= 8
	}
	return o | s.RetainHandling&3<<4
}

// Suback is a SUBACK: a code for each filter of the SUBSCRIBE, in order.
type Suback struct {
	PacketID     uint16
	Codes        []byte // reason codes of 5.0
	ReasonString string
	User         []UserProperty
}

// Decode reads a SUBACK.
func (p *Suback) Decode(v Version, first byte, body []byte) error {
	*p = Suback{}
	if err := SUBACK.checkFirst(v, first); err != nil {
		return err
	}
	r := reader{b: body}
	p.PacketID = r.packetID()
	if v == V5 {
		p.ReasonString, p.User = r.reasonProps()
	}
	if !r.more() && r.err == nil {
		return protocolError("SUBACK without a reason code")
	}
	p.Codes = append([]byte(nil), r.rest()...)
	for _, c := range p.Codes {
		if v == V5 && !subackCodes.has(ReasonCode(c)) || v != V5 && c > 2 && c != 0x80 { // [MQTT-3.9.3-2]
			return protocolError("SUBACK has a reason code that is not for it")
		}
	}
	return r.err
}

// Append encodes the packet. Before 5.0 every failure is 0x80.
func (p *Suback) Append(dst []byte, v Version) []byte {
	dst = append(dst, SUBACK.first())
	start := len(dst)
	dst = appendUint16(dst, p.PacketID)
	if v == V5 {
		dst = appendReasonProps(dst, p.ReasonString, p.User)
		return prefixLength(append(dst, p.Codes...), start)
	}
	for _, c := range p.Codes {
		dst = append(dst, min(c, 0x80))
	}
	return prefixLength(dst, start)
}
