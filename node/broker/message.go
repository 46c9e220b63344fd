package broker

import (
	"sync"
	"unsafe"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// message is what is delivered, with its encodings: made once per version, QoS and RETAIN and shared
// by all who get it so. Strings and slices may alias a buffer; shared is a copy that may be kept.
type message struct {
	topic     string
	payload   []byte
	props     []byte
	publisher string
	epoch     uint64
	qos       byte
	retain    bool
	leased    bool  // this node had a lease after it had read the message's route
	expires   int64 // on the log's clock, ms; 0: never
	index     uint64
	shared    *fsm.Message

	now  int64
	buf  []byte
	wire [2][3][2]span // by version (before 5.0, 5.0), QoS, RETAIN
}

// span is an encoding in message.buf. Twelve of the largest packets fit.
type span struct{ at, end, id uint32 }

var messages = sync.Pool{New: func() any { return new(message) }}

// newMessage wraps a message of the log's.
func newMessage(m *fsm.Message) *message {
	n := messages.Get().(*message)
	n.topic, n.payload, n.props, n.publisher, n.epoch = m.Topic, m.Payload, m.Props, m.Publisher, uint64(m.Epoch)
	n.qos, n.retain, n.expires, n.shared = m.QoS, m.Retain, m.Expires, m
	return n
}

// free gives it back. Nobody may use it any more.
func (m *message) free() {
	buf := m.buf[:0]
	if cap(buf) > 64<<10 {
		buf = nil
	}
	*m = message{buf: buf}
	messages.Put(m)
}

// keep is a copy for queues.
func (m *message) keep() *fsm.Message {
	if m.shared == nil {
		all := make([]byte, 0, len(m.topic)+len(m.publisher)+len(m.payload)+len(m.props)) // never written again
		all = append(append(append(append(all, m.topic...), m.publisher...), m.payload...), m.props...)
		cut := func(n int) (part []byte) {
			part, all = all[:n:n], all[n:]
			return part
		}
		m.shared = &fsm.Message{
			Topic: text(cut(len(m.topic))), Publisher: text(cut(len(m.publisher))), Payload: cut(len(m.payload)), Props: cut(len(m.props)),
			Epoch: fsm.Epoch(m.epoch), QoS: m.qos, Retain: m.retain, Expires: m.expires,
		}
	}
	return m.shared
}

func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// encoded is the PUBLISH for a version, QoS and RETAIN, and where its packet id stands.
func (m *message) encoded(v mqtt.Version, qos byte, retain bool) (packet []byte, id int) {
	k, r := 0, 0
	if v == mqtt.V5 {
		k = 1
	}
	if retain {
		r = 1
	}
	s := &m.wire[k][qos][r]
	if s.end == 0 {
		s.at = uint32(len(m.buf))
		m.buf, id = mqtt.AppendPublish(m.buf, v, m.header(qos, retain), m.topic, nil, m.props, m.payload)
		s.end, s.id = uint32(len(m.buf)), uint32(id)
	}
	return m.buf[s.at:s.end], int(s.id)
}

func (m *message) header(qos byte, retain bool) mqtt.PublishHeader {
	h := mqtt.PublishHeader{QoS: qos, Retain: retain}
	if m.expires != 0 {
		h.HasExpiry, h.Expiry = true, uint32(max(1, (m.expires-m.now+999)/1000))
	}
	return h
}

// frame is the message as it goes to another node, and left its expiry there.
func (m *message) frame(f *clusterpb.Frame, now int64) {
	*f = clusterpb.Frame{
		ClientID: m.publisher, Epoch: m.epoch, Topic: m.topic, Payload: m.payload, Props: m.props, QoS: m.qos,
	}
	if m.expires != 0 {
		f.Expiry = max(1, m.expires-now)
	}
}
