package harness

import (
	"bytes"
	"testing"

	packets5 "github.com/eclipse/paho.golang/packets"
	packets3 "github.com/eclipse/paho.mqtt.golang/packets"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What the client encodes is what another implementation reads.
func TestEncodingAgainstPaho5(t *testing.T) {
	read := func(p Packet) *packets5.ControlPacket {
		t.Helper()
		got, err := packets5.ReadPacket(bytes.NewReader(p.Encode(V5)))
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		return got
	}
	c := read(Packet{
		Type: CONNECT, ClientID: "c", Clean: true, KeepAlive: 9, Username: "u", Password: "p",
		Will:  &Will{Topic: "w", Payload: "bye", QoS: 2, Retain: true, Props: []Property{{ID: WillDelay, Num: 5}}},
		Props: []Property{{ID: SessionExpiry, Num: 300}, {ID: ReceiveMaximum, Num: 7}, {ID: UserProperty, Text: "k", Value: "v"}},
	}).Content.(*packets5.Connect)
	if c.ClientID != "c" || !c.CleanStart || c.KeepAlive != 9 || c.Username != "u" || string(c.Password) != "p" ||
		c.WillTopic != "w" || string(c.WillMessage) != "bye" || c.WillQOS != 2 || !c.WillRetain || *c.WillProperties.WillDelayInterval != 5 ||
		*c.Properties.SessionExpiryInterval != 300 || *c.Properties.ReceiveMaximum != 7 || c.Properties.User[0].Value != "v" {
		t.Errorf("CONNECT: %+v", c)
	}
	p := read(Packet{Type: PUBLISH, Dup: true, QoS: 2, Retain: true, ID: 300, Topic: "a/b", Payload: "x", Props: []Property{{ID: MessageExpiry, Num: 4}}}).Content.(*packets5.Publish)
	if !p.Duplicate || p.QoS != 2 || !p.Retain || p.PacketID != 300 || p.Topic != "a/b" || string(p.Payload) != "x" || *p.Properties.MessageExpiry != 4 {
		t.Errorf("PUBLISH: %+v", p)
	}
	if r := read(Packet{Type: PUBREL, ID: 5, Code: 0x92}).Content.(*packets5.Pubrel); r.PacketID != 5 || r.ReasonCode != 0x92 {
		t.Errorf("PUBREL: %+v", r)
	}
	s := read(Packet{Type: SUBSCRIBE, ID: 6, Filters: []Filter{{"a/#", 1}, {"b", 2 | 4}}, Props: []Property{{ID: SubscriptionID, Num: 200}}}).Content.(*packets5.Subscribe)
	if s.PacketID != 6 || len(s.Subscriptions) != 2 || !s.Subscriptions[1].NoLocal || *s.Properties.SubscriptionIdentifier != 200 {
		t.Errorf("SUBSCRIBE: %+v", s)
	}
	if d := read(Packet{Type: DISCONNECT, Code: 4}).Content.(*packets5.Disconnect); d.ReasonCode != 4 {
		t.Errorf("DISCONNECT: %+v", d)
	}
}

func TestEncodingAgainstPaho3(t *testing.T) {
	for _, p := range []Packet{
		{Type: CONNECT, ClientID: "c", KeepAlive: 9, Will: &Will{Topic: "w", Payload: "bye", QoS: 1}},
		{Type: PUBLISH, QoS: 1, ID: 7, Topic: "t", Payload: "x"},
		{Type: PUBREC, ID: 7},
		{Type: PUBREL, ID: 7},
		{Type: SUBSCRIBE, ID: 8, Filters: []Filter{{"t", 1}}},
		{Type: UNSUBSCRIBE, ID: 8, Filters: []Filter{{"t", 0}}},
		{Type: PINGREQ},
		{Type: DISCONNECT},
	} {
		want := p.Encode(V311)
		got, err := packets3.ReadPacket(bytes.NewReader(want))
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		var b bytes.Buffer
		if err := got.Write(&b); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s: %x, another implementation writes %x", p, want, b.Bytes())
		}
	}
}

// What another implementation encodes is what the client reads.
func TestDecoding(t *testing.T) {
	expiry, maximum := uint32(9), uint16(3)
	ack := &packets5.Connack{SessionPresent: true, Properties: &packets5.Properties{SessionExpiryInterval: &expiry, ReceiveMaximum: &maximum, AssignedClientID: "x"}}
	var b bytes.Buffer
	if _, err := ack.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	p, err := decode(V5, b.Bytes()[0], b.Bytes()[2:])
	if n, ok := p.Number(ReceiveMaximum); err != nil || !p.SessionPresent || !ok || n != 3 {
		t.Errorf("CONNACK: %+v %v", p, err)
	}
	want := Packet{Type: PUBLISH, Dup: true, QoS: 1, ID: 5, Topic: "a", Payload: "x", Props: []Property{{ID: TopicAlias, Num: 2}, {ID: UserProperty, Text: "k", Value: "v"}}}
	raw := want.Encode(V5)
	if p, err := decode(V5, raw[0], raw[2:]); err != nil || p.String() != want.String() || len(p.Props) != 2 || p.Props[1] != want.Props[1] {
		t.Errorf("PUBLISH: %+v %v", p, err)
	}
}

func TestDecodingIsStrict(t *testing.T) {
	for name, b := range map[string][]byte{
		"CONNACK too long":        {0x20, 0, 0, 0},
		"CONNACK flags":           {0x20, 2, 0},
		"refused but present":     {0x20, 1, 5},
		"PUBLISH QoS 3":           {0x36, 0, 1, 't', 0, 1},
		"PUBLISH without id":      {0x32, 0, 1, 't', 0, 0},
		"PUBREL with wrong flags": {0x60, 0, 1},
		"PUBACK cut short":        {0x40, 1},
		"from a client":           {0xC0},
	} {
		if p, err := decode(V311, b[0], b[1:]); err == nil {
			t.Errorf("%s: taken as %s", name, p)
		}
	}
}
