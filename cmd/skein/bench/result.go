package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// Result is what a run measured. Rates, CPU and latency are of the time after the warm-up; what was
// sent, lost, repeated and reordered is of all of it.
type Result struct {
	Mode        Mode    `json:"mode"`
	Version     string  `json:"version"`
	QoS         byte    `json:"qos"`
	Persistent  bool    `json:"persistent"`
	Publishers  int     `json:"publishers,omitempty"`
	Subscribers int     `json:"subscribers,omitempty"`
	Payload     int     `json:"payload_bytes,omitempty"`
	Window      int     `json:"window,omitempty"`
	Rate        float64 `json:"rate,omitempty"`
	Seconds     float64 `json:"seconds"`

	Delivered uint64  `json:"delivered"` // within Seconds
	PerSecond float64 `json:"per_second"`
	Sent      uint64  `json:"sent"`
	Expected  uint64  `json:"expected"` // deliveries of what was sent
	Received  uint64  `json:"received"`
	Lost      uint64  `json:"lost"`
	Repeated  uint64  `json:"repeated"`
	Reordered uint64  `json:"reordered"`
	Refused   uint64  `json:"refused"` // publishes that the broker answered with an error
	Unacked   uint64  `json:"unacked"` // publishes at QoS 1 and 2 that it never answered: their loss breaks no promise

	Connections int     `json:"connections,omitempty"` // connects, idle
	Failed      int     `json:"failed,omitempty"`      // of these
	Latency     Latency `json:"latency"`               // of deliveries; of CONNECT to CONNACK

	Processes    []Process `json:"processes,omitempty"`
	CPU          float64   `json:"cpu_seconds_per_million,omitempty"` // of the processes together
	GeneratorCPU float64   `json:"generator_cpu_seconds"`
}

func (r *Result) take(w, before *watch, pids []int) {
	r.Seconds = w.at.Sub(before.at).Seconds()
	r.GeneratorCPU = (w.own - before.own).Seconds()
	r.Processes = w.since(before, pids, r.Delivered)
	for _, p := range r.Processes {
		r.CPU += p.CPUPerMillion
	}
	if r.Seconds > 0 {
		r.PerSecond = float64(r.Delivered) / r.Seconds
	}
}

// JSON writes the result as one object.
func (r *Result) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Table writes the result for people.
func (r *Result) Table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	if r.Mode.publishes() {
		kind := "clean"
		if r.Persistent {
			kind = "persistent"
		}
		row("run", "%s, MQTT %s, QoS %d, %s, %d to %d, %d bytes, window %d", r.Mode, r.Version, r.QoS, kind, r.Publishers, r.Subscribers, r.Payload, r.Window)
		row("deliveries", "%d in %.1f s, %.0f/s", r.Delivered, r.Seconds, r.PerSecond)
		row("messages", "%d sent, %d of %d deliveries came", r.Sent, r.Received, r.Expected)
		row("lost", "%d", r.Lost)
		row("repeated", "%d", r.Repeated)
		row("reordered", "%d", r.Reordered)
		if r.Unacked > 0 {
			row("unacked", "%d", r.Unacked)
		}
		if r.Refused > 0 {
			row("refused", "%d", r.Refused)
		}
	} else {
		row("run", "%s, MQTT %s", r.Mode, r.Version)
		row("connections", "%d, %d failed, in %.1f s, %.0f/s", r.Connections, r.Failed, r.Seconds, r.PerSecond)
	}
	if l := r.Latency; l.Count > 0 {
		row("latency ms", "p50 %.3f, p90 %.3f, p99 %.3f, p99.9 %.3f, max %.3f, mean %.3f", l.P50, l.P90, l.P99, l.P999, l.Max, l.Mean)
	}
	for _, p := range r.Processes {
		text := fmt.Sprintf("%.2f s (%.3f cores), %.1f MiB", p.CPU, p.Cores, float64(p.RSS)/(1<<20))
		if r.Mode.publishes() {
			text += fmt.Sprintf(", %.3f s a million", p.CPUPerMillion)
		} else if r.Connections > 0 {
			text += fmt.Sprintf(", %.2f KiB a connection", float64(p.Grown)/1024/float64(r.Connections))
		}
		row(fmt.Sprintf("process %d", p.PID), "%s", text)
	}
	if len(r.Processes) > 1 && r.Mode.publishes() {
		row("processes", "%.3f s a million", r.CPU)
	}
	row("generator", "%.2f s", r.GeneratorCPU)
	return w.Flush()
}
