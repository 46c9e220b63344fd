package session

import (
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// BenchmarkOut is one PUBLISH at QoS 1 to a client with a clean session, and its PUBACK.
func BenchmarkOut(b *testing.B) {
	s := New(Config{Version: mqtt.V5, Window: 100})
	b.ReportAllocs()
	for b.Loop() {
		id, ok := s.Slot(1)
		if !ok || s.Puback(id) == 0 {
			b.Fatal("no slot")
		}
	}
}

// BenchmarkPersistent is one entry of the log at QoS 2, with all that follows; a cursor is committed
// for each hundred.
func BenchmarkPersistent(b *testing.B) {
	s, _ := Resume(Config{Version: mqtt.V5, Persistent: true, Window: 100, Span: 1000}, &fsm.SessionView{}, nil)
	e := entry(0, 2, "payload")
	dst := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		e.Seq++
		s.Enqueue(e)
		dst = s.Pump(dst[:0], 0, plenty)
		dst, _ = s.Pubrec(fsm.PacketID(e.Seq), 0, dst)
		if e.Seq%100 > 0 {
			continue
		}
		dst = s.Received(s.TakeReceived(), dst[:0])
		for seq := e.Seq - 99; seq <= e.Seq; seq++ {
			s.Pubcomp(fsm.PacketID(seq))
		}
		s.Committed(s.TakeProgress().Cursor)
	}
}

// BenchmarkIn is one PUBLISH at QoS 1 of a client, and its PUBACK.
func BenchmarkIn(b *testing.B) {
	s := New(Config{Version: mqtt.V5, ReceiveMax: 100})
	p := &mqtt.Publish{QoS: 1, PacketID: 1, Topic: []byte("t")}
	dst := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		slot, _, err := s.Publish(p)
		if err != nil {
			b.Fatal(err)
		}
		dst = s.Complete(Puback, slot, 0, nil, dst[:0])
	}
}
