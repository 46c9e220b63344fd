package mqtt

import (
	"reflect"
	"testing"
)

// samples are packets as they stand on the wire, written by hand from the specification, and what
// they mean. Encoding gives the same bytes. fixed: no shorter body of this type is valid.
var samples = []struct {
	name  string
	v     Version
	hex   string
	want  packet
	fixed bool
}{
	{
		"CONNECT 3.1", V31, whole("10", mqtt31+"c2 003c 0001 61 0001 75 0001 70"),
		&connect{Connect{Version: V31, Clean: true, KeepAlive: 60, ClientID: "a", HasUsername: true, Username: "u", HasPassword: true, Password: []byte("p")}}, false,
	},
	{
		"CONNECT 3.1.1", V311, whole("10", mqtt311+"2c 000a 0001 61 0001 77 0002 6279"),
		&connect{Connect{Version: V311, KeepAlive: 10, ClientID: "a", Will: &Will{Topic: "w", Payload: []byte("by"), QoS: 1, Retain: true}}}, true,
	},
	{"CONNECT 5.0 bare", V5, whole("10", mqtt5+"02 0000 00 0000"), &connect{Connect{Version: V5, Clean: true}}, true},
	{
		"CONNECT 5.0 password alone", V5, whole("10", mqtt5+"42 0000 00 0000 0001 70"),
		&connect{Connect{Version: V5, Clean: true, HasPassword: true, Password: []byte("p")}}, true,
	},
	{
		"CONNECT 5.0 all", V5, whole("10", mqtt5+"f6 0001 29 11ffffffff 210002 2700000003 220004 1901 1700 260001 61 0000 260001 61 0001 62 150001 6d 160001 64"+
			"0001 63 17 1800000005 0200000006 0101 03000174 08000172 090000 0001 77 0000 0001 75 0000"),
		&connect{Connect{
			Version: V5, Clean: true, KeepAlive: 1, HasSessionExpiry: true, SessionExpiry: 0xFFFFFFFF, HasReceiveMaximum: true,
			ReceiveMaximum: 2, HasMaxPacketSize: true, MaxPacketSize: 3, TopicAliasMaximum: 4, RequestResponseInfo: true,
			HasRequestProblemInfo: true, User: []UserProperty{{"a", ""}, {"a", "b"}}, AuthMethod: "m", AuthData: []byte("d"),
			ClientID: "c", HasUsername: true, Username: "u", HasPassword: true, Password: []byte{},
			Will: &Will{Topic: "w", QoS: 2, Retain: true, Delay: 5, HasExpiry: true, Expiry: 6, Props: unhex("0101 03000174 08000172 090000")},
		}}, true,
	},

	{"CONNACK 3.1.1", V311, "20 02 01 00", &Connack{SessionPresent: true}, true},
	{"CONNACK 3.1.1 refused", V311, "20 02 00 05", &Connack{Code: NotAuthorized}, true},
	{"CONNACK 5.0", V5, "20 03 00 88 00", &Connack{Code: ServerUnavailable}, true},
	{
		"CONNACK 5.0 all", V5, whole("20", "01 00 3b 1100000000 210001 2400 2500 2700000002 12000161 220003 1f000172 260001 6b 0001 76 2800 2900 2a00 130000 1a000169 1c000173 1500016d 160000"),
		&Connack{
			SessionPresent: true, HasSessionExpiry: true, ReceiveMaximum: 1, HasMaximumQoS: true, NoRetain: true, MaxPacketSize: 2,
			AssignedClientID: "a", TopicAliasMaximum: 3, ReasonString: "r", User: []UserProperty{{"k", "v"}}, NoWildcards: true,
			NoSubscriptionIDs: true, NoShared: true, HasServerKeepAlive: true, ResponseInformation: "i", ServerReference: "s",
			AuthMethod: "m", AuthData: []byte{},
		}, true,
	},

	{"PUBLISH QoS 0", V311, whole("31", "0003 612f62 6869"), &Publish{Retain: true, Topic: []byte("a/b"), Payload: []byte("hi")}, false},
	{"PUBLISH QoS 2", V311, whole("3c", "0001 61 000a"), &Publish{Dup: true, QoS: 2, Topic: []byte("a"), PacketID: 10, Payload: []byte{}}, true},
	{"PUBLISH alias", V5, whole("30", "0000 03 230007 78"), &Publish{TopicAlias: 7, Payload: []byte("x")}, false},
	{
		"PUBLISH 5.0 all", V5, whole("32", "0001 61 0002 24 020000000a 230003 0101 08000172 090001ff 03000174 2600016b00017a 0b01 0bffffff7f 7a"),
		&Publish{
			QoS: 1, Topic: []byte("a"), PacketID: 2, HasExpiry: true, Expiry: 10, TopicAlias: 3,
			Props: unhex("0101 08000172 090001ff 03000174 2600016b00017a"), SubscriptionIDs: []uint32{1, maxRemaining}, Payload: []byte("z"),
		}, false,
	},

	{"PUBACK", V311, "40 02 00 01", &Ack{Type: PUBACK, PacketID: 1}, true},
	{"PUBREC", V5, "50 02 ff ff", &Ack{Type: PUBREC, PacketID: 65535}, true},
	{"PUBREL", V311, "62 02 00 01", &Ack{Type: PUBREL, PacketID: 1}, true},
	{"PUBCOMP code", V5, "70 03 00 01 92", &Ack{Type: PUBCOMP, PacketID: 1, Code: PacketIdentifierNotFound}, false},
	{
		"PUBACK properties", V5, whole("40", "0001 10 0b 1f000172 2600016b0001 76"),
		&Ack{Type: PUBACK, PacketID: 1, Code: NoMatchingSubscribers, ReasonString: "r", User: []UserProperty{{"k", "v"}}}, false,
	},

	{
		"SUBSCRIBE 3.1.1", V311, whole("82", "0001 0001 61 01 0001 23 02"),
		&Subscribe{PacketID: 1, Filters: []Subscription{{Filter: "a", QoS: 1}, {Filter: "#", QoS: 2}}}, false,
	},
	{
		"SUBSCRIBE 5.0", V5, whole("82", "0001 08 0b8001 26000000 00 0003 2b2f61 2e"),
		&Subscribe{
			PacketID: 1, SubscriptionID: 128, User: []UserProperty{{}},
			Filters: []Subscription{{Filter: "+/a", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}},
		}, false,
	},
	{"SUBACK 3.1.1", V311, "90 05 0001 00 02 80", &Suback{PacketID: 1, Codes: []byte{0, 2, 0x80}}, false},
	{"SUBACK 5.0", V5, "90 05 0001 00 01 87", &Suback{PacketID: 1, Codes: []byte{1, 0x87}}, false},
	{"UNSUBSCRIBE", V311, whole("a2", "0001 0001 61 0001 62"), &Unsubscribe{PacketID: 1, Filters: []string{"a", "b"}}, false},
	{"UNSUBSCRIBE 5.0", V5, whole("a2", "0001 00 0001 61"), &Unsubscribe{PacketID: 1, Filters: []string{"a"}}, true},
	{"UNSUBACK 3.1.1", V311, "b0 02 0001", &Unsuback{PacketID: 1}, true},
	{"UNSUBACK 5.0", V5, "b0 05 0001 00 00 11", &Unsuback{PacketID: 1, Codes: []byte{0, 0x11}}, false},
	{"PINGREQ", V311, "c0 00", &Pingreq{}, true},
	{"PINGRESP", V5, "d0 00", &Pingresp{}, true},
	{"DISCONNECT", V311, "e0 00", &Disconnect{}, true},
	{"DISCONNECT 5.0", V5, "e0 00", &Disconnect{}, true},
	{"DISCONNECT code", V5, "e0 01 8e", &Disconnect{Code: SessionTakenOver}, false},
	{
		"DISCONNECT all", V5, whole("e0", "9c 12 1100000001 1f000172 26000000 00 1c000173"),
		&Disconnect{Code: UseAnotherServer, HasSessionExpiry: true, SessionExpiry: 1, ReasonString: "r", User: []UserProperty{{}}, ServerReference: "s"}, false,
	},
	{"AUTH", V5, "f0 00", &Auth{}, false},
	{
		"AUTH all", V5, whole("f0", "18 11 1500016d 16000164 1f000172 26000000 00"),
		&Auth{Code: ContinueAuthentication, Method: "m", Data: []byte("d"), ReasonString: "r", User: []UserProperty{{}}}, false,
	},
}

func TestSamples(t *testing.T) {
	for _, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			b := unhex(s.hex)
			got, v, err := decodeWhole(s.v, b)
			if err != nil {
				t.Fatal(err)
			}
			if v != s.v {
				t.Fatalf("version is %v", v)
			}
			if !reflect.DeepEqual(blank(got), blank(s.want)) {
				t.Errorf("\n got %+v\nwant %+v", got, s.want)
			}
			sameBytes(t, "encoded", got.Append(nil, v), b)
			sameBytes(t, "encoded behind something", got.Append([]byte("x"), v), append([]byte("x"), b...))
		})
	}
}

// blank makes what is empty and not there compare equal where the difference means nothing.
func blank(p packet) packet {
	if pub, ok := p.(*Publish); ok {
		c := *pub
		c.scratch = nil
		for _, b := range []*[]byte{&c.Topic, &c.Payload, &c.Props} {
			*b = append([]byte{}, *b...)
		}
		c.SubscriptionIDs = append([]uint32{}, c.SubscriptionIDs...)
		return &c
	}
	return p
}
