package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// subscriber checks what arrives and tells the publishers, whose windows that opens.
type subscriber struct {
	client
	run     *run
	streams []stream // by publisher, from first on
	first   uint32
	touched []uint32 // publishers of this read, with their counts
	counts  []uint32

	at        int64        // when this read was handled
	asked     atomic.Int64 // when it came for what was kept for it; 0: that is not what it does
	latencies histogram

	received  atomic.Uint64
	repeated  atomic.Uint64
	reordered atomic.Uint64
}

var (
	errForeign = errors.New("a message that this run did not send: is another one using the topic?")
	errShort   = fmt.Errorf("a message shorter than %d bytes: is another run using the topic?", MinPayload)
)

// subscribeMany subscribes to n topics of a publisher, with a wildcard behind each.
func (s *subscriber) subscribeMany(topic string, n int) error {
	var filters []string
	for k := range n {
		name := make([]byte, digits)
		number(name, k)
		filters = append(filters, topic+"/"+string(name)+"/+")
		if len(filters) == 100 || k == n-1 {
			if err := s.subscribe(s.run.cfg.QoS, filters...); err != nil {
				return err
			}
			filters = filters[:0]
		}
	}
	return nil
}

func (s *subscriber) packet(first byte, body, out []byte) ([]byte, error) {
	switch t := mqtt.TypeOf(first); t {
	case mqtt.PUBLISH:
		return s.publish(first, body, out)
	case mqtt.PUBREL:
		if len(body) < 2 {
			return out, mqtt.ErrMalformed
		}
		return append(out, byte(mqtt.PUBCOMP)<<4, 2, body[0], body[1]), nil
	default:
		return out, fmt.Errorf("unexpected %s for a subscriber", t)
	}
}

func (s *subscriber) publish(first byte, body, out []byte) ([]byte, error) {
	if len(body) < 2 {
		return out, mqtt.ErrMalformed
	}
	at := 2 + int(binary.BigEndian.Uint16(body))
	if qos := first >> 1 & 3; qos > 0 {
		if len(body) < at+2 {
			return out, mqtt.ErrMalformed
		}
		t := byte(mqtt.PUBACK)
		if qos == 2 {
			t = byte(mqtt.PUBREC)
		}
		out = append(conn.Grow(out, 4), t<<4, 2, body[at], body[at+1])
		at += 2
	}
	// The payload's size is known: before it come properties, if any.
	if at = max(at, len(body)-s.run.cfg.Payload); len(body)-at < MinPayload {
		return out, errShort
	}
	m := body[at:]
	due, from, number := int64(binary.BigEndian.Uint64(m)), binary.BigEndian.Uint32(m[8:]), binary.BigEndian.Uint64(m[12:])
	if from < s.first || int(from-s.first) >= len(s.streams) {
		return out, errForeign
	}
	if s.at == 0 {
		s.at = now()
	}
	if s.run.recording.Load() {
		if asked := s.asked.Load(); asked > 0 {
			due = asked
		}
		s.latencies.add(s.at - due)
	}
	i := from - s.first
	var kind arrival
	if s.run.pools == nil {
		kind = s.streams[i].see(number)
	} else {
		kind = s.streams[i].member(number, s.run.pools[from].see(number))
	}
	switch kind {
	case late:
		s.reordered.Add(1)
	case again:
		s.repeated.Add(1)
		return out, nil
	}
	if s.counts[i] == 0 {
		s.touched = append(s.touched, i)
	}
	s.counts[i]++
	return out, nil
}

func (s *subscriber) turned(now int64, ba *conn.Batch) {
	s.at = 0
	total := uint64(0)
	for _, i := range s.touched {
		n := uint64(s.counts[i])
		s.counts[i] = 0
		total += n
		p := s.run.publishers[s.first+i]
		p.delivered.Add(n)
		p.pump(now, ba)
	}
	s.touched = s.touched[:0]
	if total > 0 {
		s.received.Add(total)
	}
}
