package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/test/harness"
)

// probe is a client of a measurement: it publishes numbers at QoS 1, or subscribes, and is back on the next
// address as soon as its connection breaks.
type probe struct {
	id      string
	clean   bool
	publish string        // topic; empty: none
	filter  string        // empty: none
	ready   chan struct{} // holds one token: SUBACK came

	mu      sync.Mutex
	places  []string // addresses; the first is where it belongs
	moved   bool     // there is another first one
	wire    *wire
	at      string // the address it is connected to; empty: to none
	acks    []moment
	joined  []time.Time // CONNACKs
	arrived []moment
}

// moment is when a message's number was acknowledged, or arrived.
type moment struct {
	at   time.Time
	from string // who published it
	n    int
	sent time.Time
}

const (
	// probeEvery is between two messages of a probe.
	probeEvery = 10 * time.Millisecond
	// probeWindow is how many may be without an acknowledgement.
	probeWindow = 200
	// probePause is before a probe tries the next address.
	probePause = 20 * time.Millisecond
)

func newProbe(id string, clean bool, publish, filter string, places []string) *probe {
	return &probe{id: id, clean: clean, publish: publish, filter: filter, places: places, ready: make(chan struct{}, 1)}
}

// home has the probe connect to an address, and to others only when that fails.
func (p *probe) home(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.places = append([]string{address}, slices.DeleteFunc(slices.Clone(p.places), func(a string) bool { return a == address })...)
	p.moved = true
	if p.wire != nil && p.at != address {
		_ = p.wire.conn.Close()
	}
}

// next is the address to try for the n-th time since the last connection.
func (p *probe) next(n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.moved {
		p.moved = false
		n = 0
	}
	return p.places[n%len(p.places)]
}

// where is the address that it is connected to; empty: to none.
func (p *probe) where() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

// run connects again and again until ctx ends.
func (p *probe) run(ctx context.Context) {
	var unacked []moment
	last := 0
	for try := 0; ctx.Err() == nil; try++ {
		place := p.next(try)
		w, ack, err := hello(target{mqtt: place}, harness.V311, harness.Packet{ClientID: p.id, Clean: p.clean})
		if err != nil {
			wait(ctx, probePause)
			continue
		}
		p.mu.Lock()
		p.wire, p.at = w, place
		p.joined = append(p.joined, time.Now())
		if place == p.places[0] {
			try = 0 // the next one is another
		}
		p.mu.Unlock()
		if p.clean {
			unacked = nil
		}
		unacked, last = p.serve(ctx, w, ack.SessionPresent, unacked, last)
		w.close(true)
		p.mu.Lock()
		p.wire, p.at = nil, ""
		p.mu.Unlock()
	}
}

// serve is one connection. It returns what was not acknowledged, and the last number.
func (p *probe) serve(ctx context.Context, w *wire, present bool, unacked []moment, last int) ([]moment, int) {
	if p.filter != "" && !present && w.send(harness.Packet{Type: harness.SUBSCRIBE, ID: 1, Filters: []harness.Filter{{Name: p.filter, Options: 1}}}) != nil {
		return unacked, last
	}
	for _, m := range unacked {
		if w.send(p.packet(m, true)) != nil {
			return unacked, last
		}
	}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = w.send(harness.Packet{Type: harness.DISCONNECT})
			return unacked, last
		case k, ok := <-w.in:
			if !ok {
				return unacked, last
			}
			switch k.Type {
			case harness.PUBLISH:
				p.got(k)
				if k.QoS == 1 && w.send(harness.Packet{Type: harness.PUBACK, ID: k.ID}) != nil {
					return unacked, last
				}
			case harness.PUBACK:
				if i := slices.IndexFunc(unacked, func(m moment) bool { return packetID(m.n) == k.ID }); i >= 0 {
					m := unacked[i]
					m.at = time.Now()
					unacked = slices.Delete(unacked, i, i+1)
					p.mu.Lock()
					p.acks = append(p.acks, m)
					p.mu.Unlock()
				}
			case harness.SUBACK:
				select {
				case p.ready <- struct{}{}:
				default:
				}
			}
		case <-tick.C:
			if p.publish == "" || len(unacked) >= probeWindow {
				continue
			}
			last++
			m := moment{from: p.id, n: last, sent: time.Now()}
			unacked = append(unacked, m)
			if w.send(p.packet(m, false)) != nil {
				return unacked, last
			}
		}
	}
}

func packetID(n int) uint16 { return uint16(1 + n%60000) }

func (p *probe) packet(m moment, dup bool) harness.Packet {
	return harness.Packet{
		Type: harness.PUBLISH, Topic: p.publish, QoS: 1, Dup: dup, ID: packetID(m.n),
		Payload: fmt.Sprintf("%s %d %d", m.from, m.n, m.sent.UnixNano()),
	}
}

func (p *probe) got(k harness.Packet) {
	var m moment
	var ns int64
	if _, err := fmt.Sscanf(strings.TrimSpace(k.Payload), "%s %d %d", &m.from, &m.n, &ns); err != nil {
		return // not ours
	}
	m.at, m.sent = time.Now(), time.Unix(0, ns)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arrived = append(p.arrived, m)
}
