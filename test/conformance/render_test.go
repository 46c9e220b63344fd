package conformance

import (
	"fmt"
	"strings"

	h "github.com/skein-mqtt/skein/test/harness"
)

var codeNames = map[byte]string{
	0x00: "success", 0x01: "granted QoS 1", 0x02: "granted QoS 2", 0x04: "disconnect with will",
	0x10: "no matching subscribers", 0x11: "no subscription existed", 0x18: "continue authentication",
	0x19: "re-authenticate", 0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error",
	0x83: "implementation specific error", 0x84: "unsupported protocol version", 0x85: "client identifier not valid",
	0x86: "bad user name or password", 0x87: "not authorized", 0x88: "server unavailable", 0x89: "server busy",
	0x8A: "banned", 0x8B: "server shutting down", 0x8C: "bad authentication method", 0x8D: "keep alive timeout",
	0x8E: "session taken over", 0x8F: "topic filter invalid", 0x90: "topic name invalid",
	0x91: "packet identifier in use", 0x92: "packet identifier not found", 0x93: "receive maximum exceeded",
	0x94: "topic alias invalid", 0x95: "packet too large", 0x96: "message rate too high", 0x97: "quota exceeded",
	0x98: "administrative action", 0x99: "payload format invalid", 0x9A: "retain not supported",
	0x9B: "QoS not supported", 0x9C: "use another server", 0x9D: "server moved",
	0x9E: "shared subscriptions not supported", 0x9F: "connection rate exceeded", 0xA0: "maximum connect time",
	0xA1: "subscription identifiers not supported", 0xA2: "wildcard subscriptions not supported",
}

func codeName(c byte) string {
	if c == 0 {
		return codeNames[0]
	}
	if name, ok := codeNames[c]; ok {
		return fmt.Sprintf("%s (0x%02X)", name, c)
	}
	return fmt.Sprintf("0x%02X", c)
}

var oldConnack = [...]string{
	"accepted", "unacceptable protocol version", "identifier rejected", "server unavailable",
	"bad user name or password", "not authorized",
}

// render shows a packet that came to a client of that version. all: also the limits that every
// CONNACK of the node tells.
func render(p h.Packet, version byte, all bool) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	switch p.Type {
	case h.CONNACK:
		switch {
		case version == h.V5:
			say("CONNACK %s", codeName(p.Code))
		case int(p.Code) < len(oldConnack):
			say("CONNACK %s (%d)", oldConnack[p.Code], p.Code)
		default:
			say("CONNACK %d", p.Code)
		}
		if p.SessionPresent {
			say(" present")
		}
	case h.PUBLISH:
		topic := p.Topic
		if topic == "" || strings.ContainsAny(topic, " \"\x00") {
			topic = fmt.Sprintf("%q", topic)
		}
		if len(topic) > 100 {
			topic = fmt.Sprintf("<topic of %d bytes>", len(p.Topic))
		}
		say("PUBLISH %s", topic)
		if p.QoS > 0 {
			say(" qos=%d id=%d", p.QoS, p.ID)
		}
		if p.Dup {
			say(" dup")
		}
		if p.Retain {
			say(" retain")
		}
	case h.SUBACK, h.UNSUBACK:
		name := "SUBACK"
		if p.Type == h.UNSUBACK {
			name = "UNSUBACK"
		}
		say("%s id=%d", name, p.ID)
		for i, c := range p.Codes {
			sep := ","
			if i == 0 {
				sep = ""
			}
			if c < 3 {
				say("%s %d", sep, c)
			} else {
				say("%s %s", sep, codeName(c))
			}
		}
	case h.PUBACK, h.PUBREC, h.PUBREL, h.PUBCOMP:
		say("%s id=%d", map[byte]string{h.PUBACK: "PUBACK", h.PUBREC: "PUBREC", h.PUBREL: "PUBREL", h.PUBCOMP: "PUBCOMP"}[p.Type], p.ID)
		if p.Code != 0 {
			say(" %s", codeName(p.Code))
		}
	case h.DISCONNECT:
		say("DISCONNECT %s", codeName(p.Code))
	case h.AUTH:
		say("AUTH %s", codeName(p.Code))
	case h.PINGRESP:
		say("PINGRESP")
	default:
		say("%s", p)
	}
	for _, q := range p.Props {
		renderProperty(say, p.Type, q, all)
	}
	if p.Type == h.PUBLISH {
		if strings.HasPrefix(p.Topic, "$SYS/") { // the server's own figures
			say(" …")
		} else if len(p.Payload) > 60 {
			say(" <%d bytes>", len(p.Payload))
		} else {
			say(" %q", p.Payload)
		}
	}
	return b.String()
}

func renderProperty(say func(string, ...any), packet byte, q h.Property, all bool) {
	for _, p := range properties {
		if p.id != q.ID {
			continue
		}
		standing := q.ID == h.ReceiveMaximum || q.ID == h.TopicAliasMax || q.ID == h.MaxPacketSize
		switch {
		case packet == h.CONNACK && standing && !all:
		case q.ID == h.AssignedID:
			say(" assigned-id=?")
		case q.ID == h.MessageExpiry && q.Num >= 100: // some seconds may have passed
			say(" %s=%d", p.name, (uint64(q.Num)+99)/100*100)
		case q.ID == h.MessageExpiry && q.Num >= 10:
			say(" %s=%d…", p.name, q.Num/10*10)
		case p.kind == 'n':
			say(" %s=%d", p.name, q.Num)
		case p.kind == 'p':
			say(" %s=%q:%q", p.name, q.Text, q.Value)
		default:
			say(" %s=%q", p.name, q.Text)
		}
		return
	}
	say(" property-%02X", q.ID)
}

// rank keeps what has no order towards each other apart: answers before what the server sends.
// CONNACK and DISCONNECT stay where they are.
func rank(p h.Packet) int {
	switch p.Type {
	case h.CONNACK, h.DISCONNECT:
		return -1
	case h.SUBACK:
		return 1
	case h.UNSUBACK:
		return 2
	case h.PUBACK:
		return 3
	case h.PUBREC:
		return 4
	case h.PUBCOMP:
		return 5
	case h.PINGRESP, h.AUTH:
		return 6
	}
	return 7 // PUBLISH, PUBREL
}
