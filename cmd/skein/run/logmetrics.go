package run

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/skein-mqtt/skein/cluster"
)

// logMetrics are of the replicated log and of the links between the nodes.
type logMetrics struct{ c *cluster.Cluster }

var (
	descCommit = nodeDesc("log_commit_duration_seconds", "From the first command of a batch of this node until the batch is applied here.")
	descApply  = nodeDesc("log_apply_duration_seconds", "How long applying the entries took that came together.")
	descWrite  = nodeDesc("log_write_duration_seconds", "How long writing entries to the disk took, fsync included.")

	descLinkUp        = nodeDesc("link_connected", "1 while the link to the node stands.", "node")
	descLinkCongested = nodeDesc("link_congested", "1 while publishers to the node are paused.", "node")
	descLinkBytes     = nodeDesc("link_unacknowledged_bytes", "Bytes on the way to the node: queued, or not acknowledged.", "node")

	logRows = []struct {
		desc *prometheus.Desc
		kind prometheus.ValueType
		read func(*cluster.Stats) float64
	}{
		{nodeDesc("log_term", "Raft's term."), prometheus.GaugeValue, func(s *cluster.Stats) float64 { return float64(s.Term) }},
		{nodeDesc("log_last_index", "The last index in this node's log."), prometheus.GaugeValue, func(s *cluster.Stats) float64 { return float64(s.LastIndex) }},
		{nodeDesc("log_commit_index", "The last index that this node knows to be committed."), prometheus.GaugeValue, func(s *cluster.Stats) float64 { return float64(s.CommitIndex) }},
		{nodeDesc("log_snapshot_index", "The last index that the newest snapshot holds."), prometheus.GaugeValue, func(s *cluster.Stats) float64 { return float64(s.SnapshotIndex) }},
		{nodeDesc("log_until_snapshot_bytes", "How much the log may grow until the next snapshot."), prometheus.GaugeValue, func(s *cluster.Stats) float64 { return float64(s.ToSnapshot) }},
		{nodeDesc("log_file_bytes", "Size of the log's file, which never shrinks."), prometheus.GaugeValue, func(s *cluster.Stats) float64 { return float64(s.LogBytes) }},
		{nodeDesc("log_batches_total", "Batches of commands that this node has put together."), prometheus.CounterValue, func(s *cluster.Stats) float64 { return float64(s.Batches) }},
		{nodeDesc("log_batched_commands_total", "Commands in those batches."), prometheus.CounterValue, func(s *cluster.Stats) float64 { return float64(s.Commands) }},
		{nodeDesc("log_leader_changes_total", "How often this node saw another leader than before."), prometheus.CounterValue, func(s *cluster.Stats) float64 { return float64(s.Leaders) }},
	}
)

// Describe implements prometheus.Collector.
func (m logMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descCommit, descApply, descWrite, descLinkUp, descLinkCongested, descLinkBytes} {
		ch <- d
	}
	for _, r := range logRows {
		ch <- r.desc
	}
}

// Collect implements prometheus.Collector.
func (m logMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.c.Stats()
	for _, r := range logRows {
		ch <- prometheus.MustNewConstMetric(r.desc, r.kind, r.read(&s))
	}
	timed := func(d *prometheus.Desc, t cluster.Timing) {
		buckets := make(map[float64]uint64, len(t.Buckets))
		for limit, n := range t.Buckets {
			buckets[limit.Seconds()] = n
		}
		ch <- prometheus.MustNewConstHistogram(d, t.Count, t.Sum.Seconds(), buckets)
	}
	timed(descCommit, s.Commits)
	timed(descApply, s.Applies)
	timed(descWrite, s.Writes)
	for _, l := range m.c.LinkStats() {
		put := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, l.Node)
		}
		put(descLinkUp, truth(l.Connected))
		put(descLinkCongested, truth(l.Congested))
		put(descLinkBytes, float64(l.Unacked))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
