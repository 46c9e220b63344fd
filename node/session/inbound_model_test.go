package session

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// inboundModel is what a session must keep of the packets of a client, in the plainest form.
type inboundModel struct {
	v5, clean bool
	most      int
	open      [3][]pending // PUBACK, PUBREC, PUBCOMP that are due, in order
	known     map[uint16]bool
	quota     map[uint16]bool // of QoS 2, on this connection
	qos1      int
	aliases   map[uint16]string
}

type pending struct {
	id    uint16
	slot  uint64
	code  mqtt.ReasonCode
	ready bool
}

func (m *inboundModel) used() int { return m.qos1 + len(m.quota) }

// TestInbound: acknowledgements leave in the order of what they answer, whatever is settled first;
// Receive Maximum and topic aliases are kept, and a repeat at QoS 2 is known.
func TestInbound(t *testing.T) { rapid.Check(t, inboundSession) }

// FuzzInbound is TestInbound, led by the session's code.
func FuzzInbound(f *testing.F) { f.Fuzz(rapid.MakeFuzz(inboundSession)) }

func inboundSession(t *rapid.T) {
	m := &inboundModel{
		v5: rapid.Bool().Draw(t, "v5"), clean: true, most: rapid.IntRange(1, 4).Draw(t, "receive maximum"),
		known: make(map[uint16]bool), quota: make(map[uint16]bool), aliases: make(map[uint16]string),
	}
	version := mqtt.V311
	if m.v5 {
		version = mqtt.V5
	}
	s := New(Config{Version: version, Window: 1, ReceiveMax: m.most, AliasIn: 2})
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		switch rapid.IntRange(0, 5).Draw(t, "step") {
		case 0, 1, 2:
			if !m.publish(t, s) {
				return // the connection is closed
			}
		case 3:
			m.pubrel(t, s)
		default:
			m.settle(t, s)
		}
		if s.Busy() != (!m.v5 && m.used() >= m.most) {
			t.Fatalf("busy: %v with %d of %d", s.Busy(), m.used(), m.most)
		}
	}
}

func (m *inboundModel) publish(t *rapid.T, s *Session) bool {
	p := &mqtt.Publish{QoS: byte(rapid.IntRange(0, 2).Draw(t, "qos")), Topic: []byte(rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "topic"))}
	if p.QoS > 0 {
		p.PacketID = uint16(rapid.IntRange(1, 4).Draw(t, "id"))
	}
	if m.v5 {
		p.TopicAlias = uint16(rapid.IntRange(0, 3).Draw(t, "alias"))
	}
	if len(p.Topic) == 0 && p.TopicAlias == 0 {
		return true // the codec refuses it
	}
	want, topic := mqtt.Success, string(p.Topic)
	repeat := p.QoS == 2 && m.known[p.PacketID]
	switch {
	case p.TopicAlias > 2, topic == "" && m.aliases[p.TopicAlias] == "":
		want = mqtt.TopicAliasInvalid
	case topic == "":
		topic = m.aliases[p.TopicAlias]
	case p.TopicAlias > 0:
		m.aliases[p.TopicAlias] = topic
	}
	if want == mqtt.Success && m.v5 && p.QoS > 0 && !repeat && m.used() >= m.most {
		want = mqtt.ReceiveMaximumExceeded
	}
	slot, verdict, err := s.Publish(p)
	if want != mqtt.Success {
		if e, ok := err.(*mqtt.Error); !ok || e.Code != want {
			t.Fatalf("%v, want %v", err, want)
		}
		return false
	}
	if err != nil || string(p.Topic) != topic || (verdict == Repeat) != repeat {
		t.Fatalf("%v, topic %q for %q, verdict %v, a repeat: %v", err, p.Topic, topic, verdict, repeat)
	}
	switch p.QoS {
	case 1:
		m.qos1++
		m.open[0] = append(m.open[0], pending{id: p.PacketID, slot: slot})
	case 2:
		m.open[1] = append(m.open[1], pending{id: p.PacketID, slot: slot, ready: repeat})
		if !repeat {
			m.known[p.PacketID], m.quota[p.PacketID] = true, true
		}
		m.compare(t, s, Pubrec, s.Flush(Pubrec, nil))
	}
	return true
}

func (m *inboundModel) pubrel(t *rapid.T, s *Session) {
	id := uint16(rapid.IntRange(1, 4).Draw(t, "id"))
	for _, p := range m.open[1] {
		if p.id == id {
			return // a client sends PUBREL after PUBREC
		}
	}
	slot, commit := s.Pubrel(id)
	if commit {
		t.Fatal("a clean session has nothing to commit")
	}
	p := pending{id: id, slot: slot, ready: true}
	if !m.known[id] {
		p.code = mqtt.PacketIdentifierNotFound
	}
	m.open[2] = append(m.open[2], p)
	m.compare(t, s, Pubcomp, s.Flush(Pubcomp, nil))
}

// settle completes one acknowledgement that is due, any of them.
func (m *inboundModel) settle(t *rapid.T, s *Session) {
	kind := AckKind(rapid.IntRange(0, 1).Draw(t, "kind"))
	list := m.open[kind]
	if len(list) == 0 {
		return
	}
	p := &list[rapid.IntRange(0, len(list)-1).Draw(t, "which")]
	if p.ready {
		return
	}
	p.ready, p.code = true, rapid.SampledFrom([]mqtt.ReasonCode{mqtt.Success, mqtt.NoMatchingSubscribers, mqtt.NotAuthorized}).Draw(t, "code")
	m.compare(t, s, kind, s.Complete(kind, p.slot, p.code, nil, nil))
}

// compare takes what may leave now, and does what it does to the quota.
func (m *inboundModel) compare(t *rapid.T, s *Session, kind AckKind, got []byte) {
	var want []byte
	list := m.open[kind]
	for len(list) > 0 && list[0].ready {
		p := list[0]
		list = list[1:]
		want = s.appendAck(want, ackTypes[kind], p.id, p.code)
		switch {
		case kind == Puback:
			m.qos1--
		case kind == Pubrec && p.code >= 0x80:
			delete(m.known, p.id)
			delete(m.quota, p.id)
		case kind == Pubrec && !m.v5: // it counts until PUBREC
			delete(m.quota, p.id)
		case kind == Pubcomp:
			delete(m.known, p.id)
			delete(m.quota, p.id)
		}
	}
	m.open[kind] = list
	if string(got) != string(want) {
		t.Fatalf("got % x, want % x", got, want)
	}
}
