package mqtt

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
)

// packet is what all types have in common, so that tests can run over them.
type packet interface {
	Append(dst []byte, v Version) []byte
}

type decoder interface {
	packet
	Decode(v Version, first byte, body []byte) error
}

// connect gives Connect the shape of the others.
type connect struct{ Connect }

func (c *connect) Decode(_ Version, first byte, body []byte) error {
	return c.Connect.Decode(first, body)
}

func newPacket(t Type) decoder {
	switch t {
	case CONNECT:
		return new(connect)
	case CONNACK:
		return new(Connack)
	case PUBLISH:
		return new(Publish)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		return new(Ack)
	case SUBSCRIBE:
		return new(Subscribe)
	case SUBACK:
		return new(Suback)
	case UNSUBSCRIBE:
		return new(Unsubscribe)
	case UNSUBACK:
		return new(Unsuback)
	case PINGREQ:
		return new(Pingreq)
	case PINGRESP:
		return new(Pingresp)
	case DISCONNECT:
		return new(Disconnect)
	case AUTH:
		return new(Auth)
	}
	return nil
}

// decodeWhole decodes a whole packet of any type. The version of a CONNECT is its own.
func decodeWhole(v Version, b []byte) (decoder, Version, error) {
	first, body, n, err := Split(b, 0)
	if err != nil {
		return nil, v, err
	}
	if n != len(b) {
		return nil, v, fmt.Errorf("packet of %d bytes in %d", n, len(b))
	}
	p := newPacket(TypeOf(first))
	if p == nil {
		return nil, v, protocolError("reserved packet type")
	}
	err = p.Decode(v, first, body)
	if c, ok := p.(*connect); ok {
		v = c.Version
	}
	return p, v, err
}

// footprint is how many bytes of memory a decoded packet refers to.
func footprint(v reflect.Value) int {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return 0
		}
		return int(v.Elem().Type().Size()) + footprint(v.Elem())
	case reflect.String:
		return v.Len()
	case reflect.Struct:
		n := 0
		for i := range v.NumField() {
			n += footprint(v.Field(i))
		}
		return n
	case reflect.Slice:
		n := v.Cap() * int(v.Type().Elem().Size())
		for i := range v.Len() {
			if v.Type().Elem().Kind() == reflect.Uint8 {
				break
			}
			n += footprint(v.Index(i))
		}
		return n
	}
	return 0
}

func sameBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("%s:\n got %x\nwant %x", what, got, want)
	}
}
