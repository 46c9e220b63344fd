package bench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// backlog is how many windows of QoS 1 and 2 may wait for their subscribers: the broker has answered
// for them, but its queues have ends.
const backlog = 10

// publisher sends numbered messages as its window allows. Its connection's lock guards what is not
// atomic.
type publisher struct {
	client
	run    *run
	number uint32
	fan    uint64

	template []byte // a whole PUBLISH
	idAt     int    // of its packet id; 0: none
	topics   int    // taken in turn; 0: one
	topicAt  int    // of the number in the topic
	payload  int    // where the payload begins
	quota    int    // window of unacknowledged messages
	pid      uint16
	inflight [1 << 10]uint64 // packet ids in use, a bit each
	stopped  bool
	refused  uint64

	limit     uint64        // messages it may send at all
	unacked   atomic.Int64  // QoS 1 and 2
	sent      atomic.Uint64 // messages
	delivered atomic.Uint64 // of its messages, to all subscribers
	forgiven  atomic.Uint64 // deliveries that are waited for no longer
	due       atomic.Uint64 // at a fixed rate: messages up to now
}

func (p *publisher) prepare(topic string) {
	cfg := &p.run.cfg
	h := mqtt.PublishHeader{QoS: cfg.QoS, PacketID: 1, Retain: cfg.Mode == Retained}
	if p.topics = cfg.perPublisher(); p.topics > 0 {
		topic += "/" + strings.Repeat("0", digits)
		if cfg.Mode == Wildcard {
			topic += "/x"
		}
	}
	p.template, p.idAt = mqtt.AppendPublish(nil, cfg.Version, h, topic, nil, nil, make([]byte, cfg.Payload))
	p.payload = len(p.template) - cfg.Payload
	binary.BigEndian.PutUint32(p.template[p.payload+8:], p.number)
	if p.topics > 0 {
		p.topicAt = bytes.Index(p.template, []byte(topic)) + strings.LastIndex(topic, "/"+strings.Repeat("0", digits)) + 1
	}
	p.quota = min(cfg.Window, p.window)
}

// room is how many messages may be sent now. Without the lock it is a guess.
func (p *publisher) room() int {
	sent := p.sent.Load()
	n := int(min(p.limit-min(p.limit, sent), maxWindow))
	cfg := &p.run.cfg
	if cfg.QoS > 0 {
		n = min(n, p.quota-int(p.unacked.Load()))
	}
	if cfg.Rate > 0 {
		return min(n, int(p.due.Load()-min(p.due.Load(), sent)))
	}
	limit := p.quota
	if cfg.QoS > 0 {
		limit *= backlog
	}
	waits := sent*p.fan - min(sent*p.fan, p.delivered.Load()+p.forgiven.Load())
	return min(n, limit-int(waits/p.fan))
}

// enough tells whether it is worth a write: many messages share it.
func (p *publisher) enough(n int) bool {
	return n > 0 && (p.run.cfg.Rate > 0 || n >= p.quota/4 || p.limit-p.sent.Load() <= uint64(n))
}

// pump sends what may be sent. The caller flushes ba.
func (p *publisher) pump(now int64, ba *conn.Batch) {
	if !p.run.publishing.Load() || !p.enough(p.room()) {
		return
	}
	p.conn.Lock()
	defer p.conn.Unlock()
	n := p.room()
	if p.stopped || p.conn.Ended() || !p.enough(n) {
		return
	}
	sent := p.sent.Load()
	out := conn.Grow(p.conn.Out(), n*len(p.template))
	for range n {
		at := now
		if p.run.cfg.Rate > 0 {
			at = p.run.pace.at(p.number, sent)
		}
		start := len(out)
		out = append(out, p.template...)
		m := out[start:]
		if p.idAt > 0 {
			binary.BigEndian.PutUint16(m[p.idAt:], p.takeID())
		}
		if p.topics > 0 {
			number(m[p.topicAt:p.topicAt+digits], int(sent%uint64(p.topics)))
		}
		b := m[p.payload : p.payload+MinPayload]
		binary.BigEndian.PutUint64(b, uint64(at))
		binary.BigEndian.PutUint64(b[12:], sent)
		sent++
	}
	if p.idAt > 0 {
		p.unacked.Add(int64(n))
	}
	p.sent.Store(sent)
	p.conn.SetOut(out, ba)
}

// takeID takes a packet id that is not in use.
func (p *publisher) takeID() uint16 {
	for {
		p.pid++
		if i, bit := p.pid/64, uint64(1)<<(p.pid%64); p.pid != 0 && p.inflight[i]&bit == 0 {
			p.inflight[i] |= bit
			return p.pid
		}
	}
}

// stop lets no message leave any more.
func (p *publisher) stop() {
	p.conn.Lock()
	defer p.conn.Unlock()
	p.stopped = true
}

func (p *publisher) packet(first byte, body, out []byte) ([]byte, error) {
	if len(body) < 2 {
		return out, mqtt.ErrMalformed
	}
	id := binary.BigEndian.Uint16(body)
	refused := len(body) > 2 && body[2] >= 0x80
	switch t := mqtt.TypeOf(first); {
	case t == mqtt.PUBREC && !refused:
		return append(out, byte(mqtt.PUBREL)<<4|2, 2, body[0], body[1]), nil
	case t == mqtt.PUBACK, t == mqtt.PUBCOMP, t == mqtt.PUBREC:
	default:
		return out, fmt.Errorf("unexpected %s for a publisher", t)
	}
	if refused {
		p.refused++
	}
	i, bit := id/64, uint64(1)<<(id%64)
	if p.inflight[i]&bit == 0 {
		return out, fmt.Errorf("acknowledgement of packet id %d, which is not in use", id)
	}
	p.inflight[i] &^= bit
	p.unacked.Add(-1)
	return out, nil
}

func (p *publisher) turned(now int64, ba *conn.Batch) { p.pump(now, ba) }
