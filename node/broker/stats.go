package broker

import (
	"sync"
	"sync/atomic"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/event"
)

// road is how a publish went.
type road uint8

const (
	roadLink road = iota
	roadLog
	roads
)

// RoadNames are the metric labels of Stats.Published.
var RoadNames = [roads]string{"link", "log"}

// stats are this node's counters since it started.
type stats struct {
	opened, closed, refused, connects atomic.Uint64
	timeouts, protocolErrors          atomic.Uint64
	packetsIn, bytesIn, bytesOut      atomic.Uint64 // bytesOut: of connections that are closed
	allowed, denied                   atomic.Uint64 // CONNECTs that were judged
	expelled                          atomic.Uint64
	received, sent                    [3]atomic.Uint64 // PUBLISHes by QoS
	published                         [roads]atomic.Uint64
	dropped                           [fsm.ReasonCount]atomic.Uint64
	limits                            [LimitCount]atomic.Uint64

	events *event.Log

	mu     sync.Mutex
	ledger map[string]*[fsm.ReasonCount]uint64
}

// ledgerLimit bounds the clients whose drops are told apart; those of others count in the sums alone.
const ledgerLimit = 100_000

// drop counts messages that were not delivered (P8). client may be empty: it is not known.
func (s *stats) drop(client string, r fsm.Reason, n int) {
	if n <= 0 || r >= fsm.ReasonCount {
		return
	}
	s.dropped[r].Add(uint64(n))
	s.events.Drop(client, r.String(), n)
	if client == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ledger == nil {
		s.ledger = make(map[string]*[fsm.ReasonCount]uint64)
	}
	row := s.ledger[client]
	if row == nil {
		if len(s.ledger) >= ledgerLimit {
			return
		}
		row = new([fsm.ReasonCount]uint64)
		s.ledger[string([]byte(client))] = row // the argument may alias a buffer
	}
	row[r] += uint64(n)
}

// Stats are the counters, read one after the other.
type Stats struct {
	Opened, Closed, Refused, Connects uint64 // connections
	Timeouts, ProtocolErrors          uint64
	Expelled                          uint64 // closed because their right to be here was taken away
	PacketsIn, BytesIn                uint64
	Allowed, Denied                   uint64    // CONNECTs that Config.Access has judged
	Received, Sent                    [3]uint64 // PUBLISHes by QoS
	Published                         [roads]uint64
	Dropped                           [fsm.ReasonCount]uint64
	Limits                            [LimitCount]uint64 // how often each was reached
	Connections                       int
	Clients                           int // with a CONNECT in the log
	Subscriptions                     int // of those connected here, shared ones not counted
}

// Stats reads the counters.
func (b *Broker) Stats() Stats {
	s := &b.stats
	out := Stats{
		Opened: s.opened.Load(), Closed: s.closed.Load(), Refused: s.refused.Load(), Connects: s.connects.Load(),
		Timeouts: s.timeouts.Load(), ProtocolErrors: s.protocolErrors.Load(), Expelled: s.expelled.Load(),
		PacketsIn: s.packetsIn.Load(), BytesIn: s.bytesIn.Load(), Allowed: s.allowed.Load(), Denied: s.denied.Load(),
	}
	for i := range out.Received {
		out.Received[i], out.Sent[i] = s.received[i].Load(), s.sent[i].Load()
	}
	for i := range out.Published {
		out.Published[i] = s.published[i].Load()
	}
	for i := range out.Dropped {
		out.Dropped[i] = s.dropped[i].Load()
	}
	for i := range out.Limits {
		out.Limits[i] = s.limits[i].Load()
	}
	b.mu.Lock()
	out.Connections, out.Clients = len(b.conns), len(b.clients)
	b.mu.Unlock()
	b.local.mu.RLock()
	out.Subscriptions = b.local.tree.Len()
	b.local.mu.RUnlock()
	return out
}

// Losses are the messages that one client did not get from this node, by reason.
func (b *Broker) Losses(client string) (out [fsm.ReasonCount]uint64) {
	b.stats.mu.Lock()
	defer b.stats.mu.Unlock()
	if row := b.stats.ledger[client]; row != nil {
		out = *row
	}
	return out
}

// DroppedOnLink counts what the links lost; see link.Config.Dropped.
func (b *Broker) DroppedOnLink(r fsm.Reason, n int) { b.stats.drop("", r, n) }
