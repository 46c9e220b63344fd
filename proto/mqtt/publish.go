package mqtt

import (
	"encoding/binary"
	"slices"
)

// Publish is a PUBLISH as it came. Its slices alias the body that was decoded, except that Props is
// in memory of the struct's own when other properties stand between those that it holds;
// SubscriptionIDs and that memory are used again by the next Decode into the same struct.
type Publish struct {
	Dup      bool
	QoS      byte
	Retain   bool
	Topic    []byte // empty in 5.0 with a TopicAlias
	PacketID uint16 // QoS 1 and 2
	Payload  []byte

	TopicAlias      uint16 // 0: none
	HasExpiry       bool
	Expiry          uint32   // seconds
	SubscriptionIDs []uint32 // from server to client only, see FromClient
	// Props are the properties that a server passes on unaltered (payload format, content type,
	// response topic, correlation data, user properties), encoded, in order, without a length.
	Props []byte

	scratch []byte
}

var publishProps = forwarded | propsOf(propMessageExpiry, propTopicAlias, propSubscriptionID)

// Decode reads a PUBLISH. It allocates nothing once the struct has room for the subscription
// identifiers and for scattered properties. After an error the struct holds nothing of use.
func (p *Publish) Decode(v Version, first byte, body []byte) error {
	*p = Publish{SubscriptionIDs: p.SubscriptionIDs[:0], scratch: p.scratch}
	if TypeOf(first) != PUBLISH {
		return protocolError("packet is not of the expected type")
	}
	p.Dup, p.QoS, p.Retain = first&8 != 0, first>>1&3, first&1 != 0
	switch {
	case p.QoS == 3:
		return malformed("PUBLISH with QoS 3") // [MQTT-3.3.1-4]
	case p.Dup && p.QoS == 0 && v != V31:
		return malformed("PUBLISH with DUP at QoS 0") // [MQTT-3.3.1-2]
	}
	r := reader{b: body}
	p.Topic = r.name()
	if p.QoS > 0 {
		p.PacketID = r.packetID()
	}
	if v == V5 {
		p.properties(&r)
	}
	if len(p.Topic) == 0 && p.TopicAlias == 0 && r.err == nil {
		if v == V5 {
			return protocolError("PUBLISH without topic and topic alias") // section 3.3.2.1
		}
		return malformed("PUBLISH without topic") // [MQTT-4.7.3-1]
	}
	p.Payload = r.rest()
	return r.err
}

func (p *Publish) properties(r *reader) {
	ps := r.properties(publishProps)
	var f forward
	for id := ps.next(); id != 0; id = ps.next() {
		switch id {
		case propMessageExpiry:
			p.Expiry, p.HasExpiry = ps.uint32(), true
		case propTopicAlias:
			p.TopicAlias = ps.uint16()
			if p.TopicAlias == 0 && ps.err == nil {
				ps.fail(&Error{TopicAliasInvalid, "topic alias is 0"}) // [MQTT-3.3.2-8]
			}
		case propSubscriptionID:
			p.SubscriptionIDs = append(p.SubscriptionIDs, ps.subscriptionID())
		default:
			f.take(&ps, id, &p.scratch)
		}
	}
	p.Props = f.out
	r.join(&ps)
}

// FromClient checks what a server must, but Decode can't know: a client does not send subscription
// identifiers [MQTT-3.3.4-6].
func (p *Publish) FromClient() error {
	if len(p.SubscriptionIDs) > 0 {
		return protocolError("PUBLISH from a client has a subscription identifier")
	}
	return nil
}

// Append encodes the packet. It is for clients and tests; servers use AppendPublish.
func (p *Publish) Append(dst []byte, v Version) []byte {
	h := PublishHeader{p.Dup, p.QoS, p.Retain, p.PacketID, p.TopicAlias, p.HasExpiry, p.Expiry}
	dst, _ = AppendPublish(dst, v, h, string(p.Topic), p.SubscriptionIDs, p.Props, p.Payload)
	return dst
}

// PublishHeader is what differs between the copies of one message. The last three are of 5.0.
type PublishHeader struct {
	Dup       bool
	QoS       byte
	Retain    bool
	PacketID  uint16
	Alias     uint16 // 0: none
	HasExpiry bool
	Expiry    uint32 // seconds
}

// PublishSize is the size of the whole packet that AppendPublish would append, by the lengths of
// its parts. It can exceed what the protocol can carry (MaxPacket); such a packet must not be
// appended.
func PublishSize(v Version, h PublishHeader, topic int, ids []uint32, props, payload int) int {
	n, _ := publishSizes(v, &h, topic, ids, props, payload)
	return 1 + varintSize(n) + n
}

// MaxPacket is the largest whole packet that can be.
const MaxPacket = 1 + 4 + maxRemaining

// publishSizes returns the remaining length and, of that, the length of the properties.
func publishSizes(v Version, h *PublishHeader, topic int, ids []uint32, props, payload int) (n, propsLen int) {
	n = 2 + topic + payload
	if h.QoS > 0 {
		n += 2
	}
	if v != V5 {
		return n, 0
	}
	if h.HasExpiry {
		propsLen += 5
	}
	if h.Alias != 0 {
		propsLen += 3
	}
	for _, id := range ids {
		propsLen += 1 + varintSize(int(id))
	}
	propsLen += props
	return n + varintSize(propsLen) + propsLen, propsLen
}

// AppendPublish encodes a PUBLISH: the hot path. It allocates only if dst is too small. Before 5.0,
// ids, props, alias and expiry are left out. pidOffset is where the packet id stands, counted from
// the end of dst as it was (0 if there is none), so that one encoding can serve many clients with
// the packet id patched.
func AppendPublish(dst []byte, v Version, h PublishHeader, topic string, ids []uint32, props, payload []byte) (_ []byte, pidOffset int) {
	n, propsLen := publishSizes(v, &h, len(topic), ids, len(props), len(payload))
	start := len(dst)
	dst = slices.Grow(dst, 5+n)
	first := byte(PUBLISH)<<4 | h.QoS<<1
	if h.Dup {
		first |= 8
	}
	if h.Retain {
		first |= 1
	}
	dst = appendVarint(append(dst, first), n)
	dst = append(appendUint16(dst, uint16(len(topic))), topic...)
	if h.QoS > 0 {
		pidOffset = len(dst) - start
		dst = appendUint16(dst, h.PacketID)
	}
	if v == V5 {
		dst = appendVarint(dst, propsLen)
		if h.HasExpiry {
			dst = binary.BigEndian.AppendUint32(append(dst, propMessageExpiry), h.Expiry)
		}
		if h.Alias != 0 {
			dst = appendUint16(append(dst, propTopicAlias), h.Alias)
		}
		dst = append(dst, props...)
		for _, id := range ids {
			dst = appendVarint(append(dst, propSubscriptionID), int(id))
		}
	}
	return append(dst, payload...), pidOffset
}
