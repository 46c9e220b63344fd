package run

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/skein-mqtt/skein/cmd/skein/version"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/disk"
)

// gauges are read when somebody scrapes; nothing is counted here.
type gauges struct {
	rows []gauge
}

type gauge struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func() float64
}

func (g *gauges) add(kind prometheus.ValueType, name, help string, read func() float64) {
	g.rows = append(g.rows, gauge{prometheus.NewDesc("skein_"+name, help, nil, nil), kind, read})
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, r := range g.rows {
		ch <- r.desc
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	for _, r := range g.rows {
		ch <- prometheus.MustNewConstMetric(r.desc, r.kind, r.read())
	}
}

// stateMetrics are the sizes of the replicated state: the same on every node, so they are not to
// be added up.
type stateMetrics struct{ fsm *fsm.FSM }

var stateRows = []struct {
	desc *prometheus.Desc
	read func(*fsm.Counts) float64
}{
	{stateDesc("members", "Nodes that the cluster knows."), func(c *fsm.Counts) float64 { return float64(c.Members) }},
	{stateDesc("members_live", "Nodes in service."), func(c *fsm.Counts) float64 { return float64(c.Live) }},
	{stateDesc("sessions", "Persistent sessions, connected or not."), func(c *fsm.Counts) float64 { return float64(c.Sessions) }},
	{stateDesc("sessions_connected", "Persistent sessions with a connection."), func(c *fsm.Counts) float64 { return float64(c.Connected) }},
	{stateDesc("clean_clients", "Connected clients without a persistent session."), func(c *fsm.Counts) float64 { return float64(c.CleanClients) }},
	{stateDesc("subscriptions", "Subscriptions of persistent sessions."), func(c *fsm.Counts) float64 { return float64(c.Subscriptions) }},
	{stateDesc("interests", "Filters that nodes have clean subscribers for."), func(c *fsm.Counts) float64 { return float64(c.Interests) }},
	{stateDesc("retained_messages", "Retained messages."), func(c *fsm.Counts) float64 { return float64(c.Retained) }},
	{stateDesc("retained_bytes", "Size of the retained messages."), func(c *fsm.Counts) float64 { return float64(c.RetainedBytes) }},
	{stateDesc("queued_messages", "Messages in the queues of persistent sessions."), func(c *fsm.Counts) float64 { return float64(c.Queued) }},
	{stateDesc("shared_assigned_messages", "Messages assigned to clean members of shared groups and not settled yet."), func(c *fsm.Counts) float64 { return float64(c.Assigned) }},
	{stateDesc("wills_parked", "Wills that wait for the fate of a connection that was taken over."), func(c *fsm.Counts) float64 { return float64(c.ParkedWills) }},
}

func stateDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("skein_cluster_"+name, help+" Replicated: equal on all nodes.", nil, nil)
}

// Describe implements prometheus.Collector.
func (m stateMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, r := range stateRows {
		ch <- r.desc
	}
}

// Collect implements prometheus.Collector.
func (m stateMetrics) Collect(ch chan<- prometheus.Metric) {
	c := m.fsm.Counts()
	for _, r := range stateRows {
		ch <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, r.read(&c))
	}
}

// newRegistry holds what every node has; the wiring adds the broker's and the cluster's.
func newRegistry(f *fsm.FSM, d *disk.Watcher) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), stateMetrics{f})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "skein_build_info", Help: "1, with what the binary is as labels.",
		ConstLabels: prometheus.Labels{"version": version.Number, "commit": version.Commit(), "go": runtime.Version()},
	})
	build.Set(1)
	var g gauges
	g.add(prometheus.GaugeValue, "log_applied_index", "The log index that this node has applied.", func() float64 { return float64(f.Applied()) })
	g.add(prometheus.GaugeValue, "disk_free_bytes", "Free bytes on the data folder's disk.", func() float64 { return float64(d.Usage().Free) })
	g.add(prometheus.GaugeValue, "disk_low", "1 while the disk is low and the node therefore not ready.", func() float64 {
		if low, _, _ := d.Low(); low {
			return 1
		}
		return 0
	})
	r.MustRegister(build, &g)
	return r
}
