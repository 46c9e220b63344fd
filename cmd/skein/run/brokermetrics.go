package run

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/node/listener"
)

// brokerMetrics are the broker's counters, read when somebody scrapes.
type brokerMetrics struct{ b *broker.Broker }

func nodeDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("skein_"+name, help, labels, nil)
}

var (
	descReceived  = nodeDesc("publish_received_total", "PUBLISH packets received from clients, by QoS.", "qos")
	descSent      = nodeDesc("publish_sent_total", "PUBLISH packets written to clients at first, by QoS.", "qos")
	descRoad      = nodeDesc("publish_routed_total", "Publishes of this node's clients by the road that they took.", "road")
	descLimits    = nodeDesc("limit_hits_total", "How often clients have reached a limit, by the key that sets it.", "limit")
	descDropped   = nodeDesc("messages_dropped_total", "Messages that were not delivered, by reason.", "reason")
	descAuth      = nodeDesc("authentications_total", "CONNECTs that the access rules have judged, by outcome.", "outcome")
	descListener  = nodeDesc("listener_connections", "Open connections, by listener.", "listener")
	descInflight  = nodeDesc("inflight_messages", "Messages at QoS 1 and 2 that were sent to this node's clients and are not completed.")
	descWaiting   = nodeDesc("waiting_messages", "Messages that wait to be sent to this node's clients.")
	descUnwritten = nodeDesc("unwritten_bytes", "Bytes that wait for room in the clients' sockets.")
	descSentBytes = nodeDesc("sent_bytes_total", "Bytes of MQTT packets sent.")
	brokerCounter = []struct {
		desc *prometheus.Desc
		kind prometheus.ValueType
		read func(*broker.Stats) uint64
	}{
		{nodeDesc("connections_opened_total", "Connections accepted."), prometheus.CounterValue, func(s *broker.Stats) uint64 { return s.Opened }},
		{nodeDesc("connections_closed_total", "Connections that have ended."), prometheus.CounterValue, func(s *broker.Stats) uint64 { return s.Closed }},
		{nodeDesc("connections_refused_total", "Connections refused: a CONNECT that was not allowed, or no room."), prometheus.CounterValue, func(s *broker.Stats) uint64 { return s.Refused }},
		{nodeDesc("connects_total", "Clients that got a CONNACK with success."), prometheus.CounterValue, func(s *broker.Stats) uint64 { return s.Connects }},
		{nodeDesc("timeouts_total", "Clients that were silent for too long, or slow with their CONNECT."), prometheus.CounterValue, func(s *broker.Stats) uint64 { return s.Timeouts }},
		{nodeDesc("protocol_errors_total", "Connections closed because of what the client sent."), prometheus.CounterValue, func(s *broker.Stats) uint64 { return s.ProtocolErrors }},
		{nodeDesc("clients_expelled_total", "Connections closed because their right to be here was taken away: a user deleted or disabled, a ban."), prometheus.CounterValue, func(s *broker.Stats) uint64 { return s.Expelled }},
		{nodeDesc("packets_received_total", "MQTT packets received."), prometheus.CounterValue, func(s *broker.Stats) uint64 { return s.PacketsIn }},
		{nodeDesc("received_bytes_total", "Bytes of MQTT packets received."), prometheus.CounterValue, func(s *broker.Stats) uint64 { return s.BytesIn }},
		{nodeDesc("connections", "Open connections."), prometheus.GaugeValue, func(s *broker.Stats) uint64 { return uint64(s.Connections) }},
		{nodeDesc("clients", "Clients connected to this node."), prometheus.GaugeValue, func(s *broker.Stats) uint64 { return uint64(s.Clients) }},
	}
)

// Describe implements prometheus.Collector.
func (m brokerMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descReceived, descSent, descRoad, descDropped, descLimits, descAuth, descListener, descInflight, descWaiting, descUnwritten, descSentBytes} {
		ch <- d
	}
	for _, r := range brokerCounter {
		ch <- r.desc
	}
}

// Collect implements prometheus.Collector.
func (m brokerMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.b.Stats()
	put := func(d *prometheus.Desc, v uint64, label string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), label)
	}
	put(descAuth, s.Allowed, "allowed")
	put(descAuth, s.Denied, "denied")
	load := m.b.Load()
	for name, n := range load.Listeners {
		ch <- prometheus.MustNewConstMetric(descListener, prometheus.GaugeValue, float64(n), name)
	}
	for d, v := range map[*prometheus.Desc]int{descInflight: load.Inflight, descWaiting: load.Queued, descUnwritten: load.Unwritten} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	ch <- prometheus.MustNewConstMetric(descSentBytes, prometheus.CounterValue, float64(load.SentBytes))
	for q := range s.Received {
		put(descReceived, s.Received[q], strconv.Itoa(q))
		put(descSent, s.Sent[q], strconv.Itoa(q))
	}
	for r, name := range broker.RoadNames {
		put(descRoad, s.Published[r], name)
	}
	for r := 1; r < len(s.Dropped); r++ {
		put(descDropped, s.Dropped[r], fsm.Reason(r).String())
	}
	for l, name := range broker.LimitNames {
		put(descLimits, s.Limits[l], name)
	}
	for _, r := range brokerCounter {
		ch <- prometheus.MustNewConstMetric(r.desc, r.kind, float64(r.read(&s)))
	}
}

// registry is all of a node's metrics.
func (n *node) registry() *prometheus.Registry {
	r := newRegistry(n.fsm, n.disk)
	var g gauges
	g.add(prometheus.GaugeValue, "lease_held", "1 while this node holds its lease.", func() float64 {
		if leased, _ := n.cluster.LeaseState(); leased {
			return 1
		}
		return 0
	})
	g.add(prometheus.GaugeValue, "memory_limit_bytes", "What the process may hold, see memory.limit; 0: no limit.", func() float64 { return float64(n.memory.Limit()) })
	g.add(prometheus.GaugeValue, "memory_live_bytes", "What the process holds and can't give back.", func() float64 {
		_, live := n.memory.High()
		return float64(live)
	})
	g.add(prometheus.GaugeValue, "memory_tight", "1 while three quarters of the limit can't be given back and publishes are therefore held back or refused.", func() float64 {
		if high, _ := n.memory.High(); high {
			return 1
		}
		return 0
	})
	g.add(prometheus.GaugeValue, "log_backlog_commands", "Commands of this node that are proposed and not applied.", func() float64 {
		commands, _ := n.cluster.Backlog()
		return float64(commands)
	})
	g.add(prometheus.GaugeValue, "log_backlog_bytes", "The same in bytes.", func() float64 {
		_, bytes := n.cluster.Backlog()
		return float64(bytes)
	})
	g.add(prometheus.GaugeValue, "log_leader", "1 while this node leads the log.", func() float64 { return truth(n.cluster.IsLeader()) })
	g.add(prometheus.GaugeValue, "cordoned", "1 while an operator keeps new clients away.", func() float64 { return truth(n.broker.Cordoned()) })
	g.add(prometheus.CounterValue, "peer_refused_total", "Connections to the peer port that were not those of nodes of this cluster.", func() float64 {
		return float64(n.cluster.PeersRefused())
	})
	g.add(prometheus.CounterValue, "admin_refused_total", "Orders and pages refused to those who may not have them.", func() float64 {
		return float64(n.gate.Refused())
	})
	r.MustRegister(brokerMetrics{n.broker}, authMetrics{n.rules}, logMetrics{n.cluster}, listenerMetrics{n.listeners}, &g)
	return r
}

// listenerMetrics are what each listener has refused.
type listenerMetrics struct{ listeners []*listener.Listener }

var descNoRoom = nodeDesc("listener_refused_total", "Connections that a listener had no room for (max_connections).", "listener")

// Describe implements prometheus.Collector.
func (m listenerMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- descNoRoom
}

// Collect implements prometheus.Collector.
func (m listenerMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, l := range m.listeners {
		name := l.Spec().Scheme + "://" + l.Addr().String() // without its settings
		ch <- prometheus.MustNewConstMetric(descNoRoom, prometheus.CounterValue, float64(l.Refused()), name)
	}
}
