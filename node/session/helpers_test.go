package session

import (
	"fmt"
	"strings"
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// said describes packets to a client, one a word.
func said(t *testing.T, v mqtt.Version, b []byte) string {
	t.Helper()
	var out []string
	for len(b) > 0 {
		first, body, n, err := mqtt.Split(b, 0)
		if err != nil || n == 0 {
			t.Fatalf("no packet in %x: %v", b, err)
		}
		out = append(out, describe(t, v, first, body))
		b = b[n:]
	}
	return strings.Join(out, " ")
}

func describe(t *testing.T, v mqtt.Version, first byte, body []byte) string {
	t.Helper()
	kind := mqtt.TypeOf(first)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v %x: %v", kind, body, err)
		}
	}
	switch kind {
	case mqtt.PUBLISH:
		var p mqtt.Publish
		check(p.Decode(v, first, body))
		s := fmt.Sprintf("%s:%d", p.Payload, p.PacketID)
		if p.Dup {
			s += "dup"
		}
		if p.TopicAlias > 0 {
			s += fmt.Sprintf("alias%d=%q", p.TopicAlias, p.Topic)
		}
		if p.HasExpiry {
			s += fmt.Sprintf("expiry%d", p.Expiry)
		}
		return s
	case mqtt.SUBACK:
		var p mqtt.Suback
		check(p.Decode(v, first, body))
		return fmt.Sprintf("SUBACK:%d%v", p.PacketID, p.Codes)
	case mqtt.UNSUBACK:
		var p mqtt.Unsuback
		check(p.Decode(v, first, body))
		return fmt.Sprintf("UNSUBACK:%d%v", p.PacketID, p.Codes)
	}
	var p mqtt.Ack
	check(p.Decode(v, first, body))
	s := fmt.Sprintf("%v:%d", kind, p.PacketID)
	if p.Code > 0 {
		s += fmt.Sprintf("/%x", byte(p.Code))
	}
	return s
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// entry is a message whose payload is its name.
func entry(seq uint64, qos byte, name string) fsm.Entry {
	return fsm.Entry{Seq: seq, QoS: qos, Message: &fsm.Message{Topic: "t", Payload: []byte(name), QoS: qos}}
}

func drops(s *Session) string {
	var out []string
	for _, d := range s.TakeDrops() {
		out = append(out, fmt.Sprintf("%d:%v", d.Seq, d.Reason))
	}
	return strings.Join(out, " ")
}

// plenty is a limit for Pump.
const plenty = 1 << 20
