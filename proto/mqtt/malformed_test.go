package mqtt

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// body makes a packet of a first byte and a body, both hexadecimal.
func whole(first, body string) string {
	b := unhex(body)
	return hex.EncodeToString(append(appendVarint(unhex(first), len(b)), b...))
}

const (
	mqtt5   = "00044d515454 05"
	mqtt311 = "00044d515454 04"
	mqtt31  = "00064d5149736470 03"
)

// malformedTable is what must be refused, with the reason code that the specification names.
var malformedTable = []struct {
	name string
	v    Version
	hex  string
	code ReasonCode
}{
	// Strings and fixed headers.
	{"type 0", V5, whole("00", ""), ProtocolError},
	{"overlong remaining length", V5, "c0 80 00", MalformedPacket},
	{"remaining length of five bytes", V5, "30 ff ff ff ff 01", MalformedPacket},
	{"invalid UTF-8", V5, whole("30", "0001 ff 00"), MalformedPacket},
	{"surrogate", V5, whole("30", "0003 eda080 00"), MalformedPacket},
	{"overlong UTF-8", V5, whole("30", "0002 c0af 00"), MalformedPacket},
	{"U+0000", V5, whole("30", "0003 610062 00"), MalformedPacket},

	// CONNECT.
	{"CONNECT flags", V5, whole("11", mqtt5+"02 0000 00 0000"), MalformedPacket},
	{"CONNECT name", V5, whole("10", "00044d515458 05 02 0000 00 0000"), UnsupportedProtocolVersion},
	{"CONNECT level 6", V5, whole("10", "00044d515454 06 02 0000 00 0000"), UnsupportedProtocolVersion},
	{"CONNECT level 3 as MQTT", V5, whole("10", "00044d515454 03 02 0000 0000"), UnsupportedProtocolVersion},
	{"CONNECT level 4 as MQIsdp", V5, whole("10", "00064d5149736470 04 02 0000 0000"), UnsupportedProtocolVersion},
	{"CONNECT bridge", V5, whole("10", "00044d515454 84 02 0000 0001 61"), UnsupportedProtocolVersion},
	{"CONNECT reserved flag", V5, whole("10", mqtt5+"03 0000 00 0000"), MalformedPacket},
	{"CONNECT reserved flag 3.1", V31, whole("10", mqtt31+"03 0000 0001 61"), MalformedPacket},
	{"CONNECT will QoS without will", V5, whole("10", mqtt5+"0a 0000 00 0000"), MalformedPacket},
	{"CONNECT will retain without will", V5, whole("10", mqtt5+"22 0000 00 0000"), MalformedPacket},
	{"CONNECT will QoS 3", V5, whole("10", mqtt5+"1e 0000 00 0000 00 0001 61 0000"), MalformedPacket},
	{"CONNECT will topic empty", V5, whole("10", mqtt5+"06 0000 00 0000 00 0000 0000"), MalformedPacket},
	{"CONNECT will topic wildcard", V5, whole("10", mqtt5+"06 0000 00 0000 00 0001 2b 0000"), MalformedPacket},
	{"CONNECT will missing", V5, whole("10", mqtt5+"06 0000 00 0000"), MalformedPacket},
	{"CONNECT will response topic wildcard", V5, whole("10", mqtt5+"06 0000 00 0000 04 08000123 0001 61 0000"), MalformedPacket},
	{"CONNECT will delay twice", V5, whole("10", mqtt5+"06 0000 00 0000 0a 1800000001 1800000001 0001 61 0000"), ProtocolError},
	{"CONNECT will topic alias", V5, whole("10", mqtt5+"06 0000 00 0000 03 230001 0001 61 0000"), MalformedPacket},
	{"CONNECT password alone 3.1.1", V311, whole("10", mqtt311+"42 0000 0001 61 0001 70"), MalformedPacket},
	{"CONNECT password alone 3.1", V31, whole("10", mqtt31+"42 0000 0001 61 0001 70"), MalformedPacket},
	{"CONNECT user name missing 3.1.1", V311, whole("10", mqtt311+"82 0000 0001 61"), MalformedPacket},
	{"CONNECT empty id 3.1", V31, whole("10", mqtt31+"02 0000 0000"), ClientIdentifierNotValid},
	{"CONNECT empty id, not clean 3.1.1", V311, whole("10", mqtt311+"00 0000 0000"), ClientIdentifierNotValid},
	{"CONNECT trailing bytes", V5, whole("10", mqtt5+"02 0000 00 0000 00"), MalformedPacket},
	{"CONNECT trailing bytes 3.1", V31, whole("10", mqtt31+"02 0000 0001 61 00"), MalformedPacket},
	{"CONNECT short", V5, whole("10", "00044d5154"), MalformedPacket},
	{"CONNECT id not UTF-8", V5, whole("10", mqtt5+"02 0000 00 0001 ff"), MalformedPacket},
	{"CONNECT id U+0000", V5, whole("10", mqtt5+"02 0000 00 0003 610062"), MalformedPacket},
	{"CONNECT id U+0000 3.1.1", V311, whole("10", mqtt311+"02 0000 0001 00"), MalformedPacket},
	{"CONNECT user name U+0000", V5, whole("10", mqtt5+"82 0000 00 0001 61 0001 00"), MalformedPacket},
	{"CONNECT session expiry twice", V5, whole("10", mqtt5+"02 0000 0a 1100000001 1100000001 0000"), ProtocolError},
	{"CONNECT receive maximum 0", V5, whole("10", mqtt5+"02 0000 03 210000 0000"), ProtocolError},
	{"CONNECT packet size 0", V5, whole("10", mqtt5+"02 0000 05 2700000000 0000"), ProtocolError},
	{"CONNECT request problem 2", V5, whole("10", mqtt5+"02 0000 02 1702 0000"), ProtocolError},
	{"CONNECT request response 2", V5, whole("10", mqtt5+"02 0000 02 1902 0000"), ProtocolError},
	{"CONNECT auth data without method", V5, whole("10", mqtt5+"02 0000 04 16000161 0000"), ProtocolError},
	{"CONNECT auth method empty", V5, whole("10", mqtt5+"02 0000 03 150000 0000"), BadAuthenticationMethod},
	{"CONNECT server keep alive", V5, whole("10", mqtt5+"02 0000 03 130001 0000"), MalformedPacket},
	{"CONNECT unknown property", V5, whole("10", mqtt5+"02 0000 02 3001 0000"), MalformedPacket},
	{"CONNECT overlong property length", V5, whole("10", mqtt5+"02 0000 8000 0000"), MalformedPacket},
	{"CONNECT property cut off", V5, whole("10", mqtt5+"02 0000 03 110000 0000"), MalformedPacket},
	{"CONNECT properties exceed the packet", V5, whole("10", mqtt5+"02 0000 7f 0000"), MalformedPacket},

	// CONNACK.
	{"CONNACK flags", V5, whole("20", "02 00 00"), MalformedPacket},
	{"CONNACK present 3.1", V31, whole("20", "01 00"), MalformedPacket},
	{"CONNACK present, refused", V5, whole("20", "01 80 00"), ProtocolError},
	{"CONNACK code", V5, whole("20", "00 8d 00"), ProtocolError},
	{"CONNACK return code 6", V311, whole("20", "00 06"), ProtocolError},
	{"CONNACK long", V311, whole("20", "00 00 00"), MalformedPacket},
	{"CONNACK receive maximum 0", V5, whole("20", "00 00 03 210000"), ProtocolError},
	{"CONNACK maximum QoS 2", V5, whole("20", "00 00 02 2402"), ProtocolError},
	{"CONNACK packet size 0", V5, whole("20", "00 00 05 2700000000"), ProtocolError},
	{"CONNACK topic alias", V5, whole("20", "00 00 03 230001"), MalformedPacket},

	// PUBLISH.
	{"PUBLISH QoS 3", V311, whole("36", "0001 61 0001"), MalformedPacket},
	{"PUBLISH DUP at QoS 0", V311, whole("38", "0001 61"), MalformedPacket},
	{"PUBLISH wildcard +", V311, whole("30", "0003 612f2b"), MalformedPacket},
	{"PUBLISH wildcard #", V5, whole("30", "0001 23 00"), MalformedPacket},
	{"PUBLISH packet id 0", V311, whole("32", "0001 61 0000"), ProtocolError},
	{"PUBLISH packet id missing", V311, whole("32", "0001 61 00"), MalformedPacket},
	{"PUBLISH topic empty", V311, whole("30", "0000"), MalformedPacket},
	{"PUBLISH topic empty, no alias", V5, whole("30", "0000 00"), ProtocolError},
	{"PUBLISH topic too short", V311, whole("30", "0005 61"), MalformedPacket},
	{"PUBLISH properties missing", V5, whole("30", "0001 61"), MalformedPacket},
	{"PUBLISH alias 0", V5, whole("30", "0001 61 03 230000"), TopicAliasInvalid},
	{"PUBLISH alias twice", V5, whole("30", "0001 61 06 230001 230001"), ProtocolError},
	{"PUBLISH payload format 2", V5, whole("30", "0001 61 02 0102"), ProtocolError},
	{"PUBLISH payload format twice", V5, whole("30", "0001 61 04 0101 0101"), ProtocolError},
	{"PUBLISH expiry twice", V5, whole("30", "0001 61 0a 0200000001 0200000001"), ProtocolError},
	{"PUBLISH response topic twice", V5, whole("30", "0001 61 08 08000161 08000161"), ProtocolError},
	{"PUBLISH response topic wildcard", V5, whole("30", "0001 61 04 08000123"), MalformedPacket},
	{"PUBLISH response topic empty", V5, whole("30", "0001 61 03 080000"), MalformedPacket},
	{"PUBLISH correlation data twice", V5, whole("30", "0001 61 08 09000161 09000161"), ProtocolError},
	{"PUBLISH content type twice", V5, whole("30", "0001 61 08 03000161 03000161"), ProtocolError},
	{"PUBLISH content type not UTF-8", V5, whole("30", "0001 61 04 030001ff"), MalformedPacket},
	{"PUBLISH user property not UTF-8", V5, whole("30", "0001 61 07 26000161 0001ff"), MalformedPacket},
	{"PUBLISH content type U+0000", V5, whole("30", "0001 61 04 03000100"), MalformedPacket},
	{"PUBLISH user property U+0000", V5, whole("30", "0001 61 07 26000161 000100"), MalformedPacket},
	{"PUBLISH user property cut off", V5, whole("30", "0001 61 04 26000161"), MalformedPacket},
	{"PUBLISH subscription id 0", V5, whole("30", "0001 61 02 0b00"), ProtocolError},
	{"PUBLISH subscription id overlong", V5, whole("30", "0001 61 03 0b8100"), MalformedPacket},
	{"PUBLISH subscription id of five bytes", V5, whole("30", "0001 61 06 0bffffffff01"), MalformedPacket},
	{"PUBLISH reason string", V5, whole("30", "0001 61 04 1f000161"), MalformedPacket},

	// PUBACK, PUBREC, PUBREL, PUBCOMP.
	{"PUBACK flags", V311, whole("42", "0001"), MalformedPacket},
	{"PUBREL flags", V311, whole("60", "0001"), MalformedPacket},
	{"PUBREL DUP", V311, whole("6a", "0001"), MalformedPacket},
	{"PUBACK packet id 0", V311, whole("40", "0000"), ProtocolError},
	{"PUBACK empty", V311, whole("40", ""), MalformedPacket},
	{"PUBACK reason code 3.1.1", V311, whole("40", "0001 00"), MalformedPacket},
	{"PUBACK code", V5, whole("40", "0001 92"), ProtocolError},
	{"PUBREC code", V5, whole("50", "0001 01"), ProtocolError},
	{"PUBREL code", V5, whole("62", "0001 10"), ProtocolError},
	{"PUBCOMP code", V5, whole("70", "0001 80"), ProtocolError},
	{"PUBACK property", V5, whole("40", "0001 00 03 230001"), MalformedPacket},
	{"PUBACK reason string twice", V5, whole("40", "0001 00 08 1f000161 1f000161"), ProtocolError},
	{"PUBACK trailing bytes", V5, whole("40", "0001 00 00 00"), MalformedPacket},

	// SUBSCRIBE.
	{"SUBSCRIBE flags", V5, whole("80", "0001 00 0001 61 00"), MalformedPacket},
	{"SUBSCRIBE DUP", V311, whole("8a", "0001 0001 61 00"), MalformedPacket},
	{"SUBSCRIBE packet id 0", V5, whole("82", "0000 00 0001 61 00"), ProtocolError},
	{"SUBSCRIBE without filters", V5, whole("82", "0001 00"), ProtocolError},
	{"SUBSCRIBE without filters 3.1.1", V311, whole("82", "0001"), ProtocolError},
	{"SUBSCRIBE options missing", V5, whole("82", "0001 00 0001 61"), MalformedPacket},
	{"SUBSCRIBE filter empty", V5, whole("82", "0001 00 0000 00"), MalformedPacket},
	{"SUBSCRIBE filter a#", V5, whole("82", "0001 00 0002 6123 00"), MalformedPacket},
	{"SUBSCRIBE filter #/a", V5, whole("82", "0001 00 0003 232f61 00"), MalformedPacket},
	{"SUBSCRIBE filter a+", V5, whole("82", "0001 00 0002 612b 00"), MalformedPacket},
	{"SUBSCRIBE $share/g", V5, whole("82", "0001 00 0008 2473686172652f67 00"), MalformedPacket},
	{"SUBSCRIBE $share//a", V5, whole("82", "0001 00 0009 2473686172652f2f61 00"), MalformedPacket},
	{"SUBSCRIBE $share/+/a", V5, whole("82", "0001 00 000a 2473686172652f2b2f61 00"), MalformedPacket},
	{"SUBSCRIBE shared with no local", V5, whole("82", "0001 00 000a 2473686172652f672f61 04"), ProtocolError},
	{"SUBSCRIBE reserved option", V5, whole("82", "0001 00 0001 61 40"), MalformedPacket},
	{"SUBSCRIBE QoS 3", V5, whole("82", "0001 00 0001 61 03"), ProtocolError},
	{"SUBSCRIBE QoS 3 3.1.1", V311, whole("82", "0001 0001 61 03"), MalformedPacket},
	{"SUBSCRIBE no local 3.1.1", V311, whole("82", "0001 0001 61 04"), MalformedPacket},
	{"SUBSCRIBE retain handling 3", V5, whole("82", "0001 00 0001 61 30"), ProtocolError},
	{"SUBSCRIBE id 0", V5, whole("82", "0001 02 0b00 0001 61 00"), ProtocolError},
	{"SUBSCRIBE id twice", V5, whole("82", "0001 04 0b01 0b01 0001 61 00"), ProtocolError},
	{"SUBSCRIBE property", V5, whole("82", "0001 04 1f000161 0001 61 00"), MalformedPacket},

	// SUBACK, UNSUBSCRIBE, UNSUBACK.
	{"SUBACK code", V5, whole("90", "0001 00 03"), ProtocolError},
	{"SUBACK code 3.1.1", V311, whole("90", "0001 87"), ProtocolError},
	{"SUBACK without codes", V311, whole("90", "0001"), ProtocolError},
	{"SUBACK packet id 0", V311, whole("90", "0000 00"), ProtocolError},
	{"UNSUBSCRIBE flags", V5, whole("a0", "0001 00 0001 61"), MalformedPacket},
	{"UNSUBSCRIBE packet id 0", V5, whole("a2", "0000 00 0001 61"), ProtocolError},
	{"UNSUBSCRIBE without filters", V5, whole("a2", "0001 00"), ProtocolError},
	{"UNSUBSCRIBE filter empty", V5, whole("a2", "0001 00 0000"), MalformedPacket},
	{"UNSUBSCRIBE filter a#", V5, whole("a2", "0001 00 0002 6123"), MalformedPacket},
	{"UNSUBSCRIBE filter cut off", V5, whole("a2", "0001 00 0002 61"), MalformedPacket},
	{"UNSUBSCRIBE subscription id", V5, whole("a2", "0001 02 0b01 0001 61"), MalformedPacket},
	{"UNSUBACK code", V5, whole("b0", "0001 00 01"), ProtocolError},
	{"UNSUBACK without codes", V5, whole("b0", "0001 00"), ProtocolError},
	{"UNSUBACK codes 3.1.1", V311, whole("b0", "0001 00"), MalformedPacket},

	// PINGREQ, PINGRESP, DISCONNECT, AUTH.
	{"PINGREQ flags", V311, whole("c1", ""), MalformedPacket},
	{"PINGREQ body", V311, whole("c0", "00"), MalformedPacket},
	{"PINGRESP flags", V311, whole("d8", ""), MalformedPacket},
	{"DISCONNECT flags", V5, whole("e1", ""), MalformedPacket},
	{"DISCONNECT body 3.1.1", V311, whole("e0", "00"), MalformedPacket},
	{"DISCONNECT code", V5, whole("e0", "01"), ProtocolError},
	{"DISCONNECT session expiry twice", V5, whole("e0", "00 0a 1100000001 1100000001"), ProtocolError},
	{"DISCONNECT property", V5, whole("e0", "00 03 210001"), MalformedPacket},
	{"DISCONNECT trailing bytes", V5, whole("e0", "00 00 00"), MalformedPacket},
	{"AUTH 3.1.1", V311, whole("f0", ""), ProtocolError},
	{"AUTH flags", V5, whole("f1", ""), MalformedPacket},
	{"AUTH code", V5, whole("f0", "80 04 15000161"), ProtocolError},
	{"AUTH without method", V5, whole("f0", "18 00"), ProtocolError},
	{"AUTH without property length", V5, whole("f0", "18"), MalformedPacket},
	{"AUTH method empty", V5, whole("f0", "18 03 150000"), BadAuthenticationMethod},
	{"AUTH method twice", V5, whole("f0", "18 08 15000161 15000161"), ProtocolError},
}

func TestMalformed(t *testing.T) {
	for _, c := range malformedTable {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := decodeWhole(c.v, unhex(c.hex))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error is %v, want %v", err, c.code)
			}
			if e.Code != c.code {
				t.Fatalf("%v: code is %v, want %v", e, e.Code, c.code)
			}
		})
	}
}

// TestCutOff: every packet of the samples is refused when its end is missing, whatever the cut,
// unless what is left means something itself.
func TestCutOff(t *testing.T) {
	for _, s := range samples {
		if !s.fixed {
			continue
		}
		first, body, _, err := Split(unhex(s.hex), 0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range body {
			if err := newPacket(TypeOf(first)).Decode(s.v, first, body[:n:n]); err == nil {
				t.Errorf("%s: %d of %d bytes decode", s.name, n, len(body))
			}
		}
	}
}

// TestConnackVersion: after a CONNECT that is refused it is known in which version to say so.
func TestConnackVersion(t *testing.T) {
	for _, c := range []struct {
		body string
		want Version
	}{
		{"00044d515454 06 02 0000 00 0000", V5},
		{"00044d515454 02 02 0000 0000", V311},
		{"00044d515454 84 02 0000 0000", V311},
		{"00064d5149736470 83 02 0000 0000", V311},
		{"0004 48545450 05", 0},
		{mqtt5 + "03 0000 00 0000", V5},
		{mqtt31 + "02 0000 0000", V31},
		{"00044d51", 0},
	} {
		var p Connect
		if err := p.Decode(0x10, unhex(c.body)); err == nil || p.Version != c.want {
			t.Errorf("%s: version %v, want %v (%v)", c.body, p.Version, c.want, err)
		}
	}
}

func TestFromClient(t *testing.T) {
	if (&Publish{}).FromClient() != nil || (&Disconnect{Code: DisconnectWithWillMessage}).FromClient() != nil ||
		(&Auth{Code: ReAuthenticate}).FromClient() != nil {
		t.Error("refused what a client may send")
	}
	if (&Publish{SubscriptionIDs: []uint32{1}}).FromClient() == nil ||
		(&Disconnect{Code: SessionTakenOver}).FromClient() == nil || (&Disconnect{ServerReference: "x"}).FromClient() == nil ||
		(&Auth{}).FromClient() == nil {
		t.Error("took what only a server may send")
	}
}
