package run

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/skein-mqtt/skein/node/auth"
)

// authMetrics are the counters of logins, read when somebody scrapes.
type authMetrics struct{ rules *auth.Rules }

var (
	descLogins  = nodeDesc("auth_verdicts_total", "Verdicts of the methods in auth.methods on logins.", "method", "verdict")
	descFailed  = nodeDesc("auth_failures_total", "Logins refused, but for bans.")
	descBanned  = nodeDesc("auth_banned_total", "Logins refused because of a ban, the cluster's or this node's own.")
	descBans    = nodeDesc("auth_bans_total", "How often an address was kept out for a while because of auth.max_failures.")
	descKeptOut = nodeDesc("auth_addresses_kept_out", "Addresses that are kept out now because of auth.max_failures.")
)

// Describe implements prometheus.Collector.
func (m authMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLogins, descFailed, descBanned, descBans, descKeptOut} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m authMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.rules.Stats()
	put := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for _, one := range s.Methods {
		put(descLogins, one.Allowed, one.Name, "allow")
		put(descLogins, one.Denied, one.Name, "deny")
		put(descLogins, one.Passed, one.Name, "pass")
	}
	put(descFailed, s.Failed)
	put(descBanned, s.Banned)
	put(descBans, s.KeptOut)
	ch <- prometheus.MustNewConstMetric(descKeptOut, prometheus.GaugeValue, float64(s.Now))
}
