package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// row is one measurement of all brokers.
type row struct {
	name  string
	nodes int
	unit  unit
	args  []string // of skein bench
	// floor is what Skein must be, as a multiple of the named peer's figure in the same run; empty: no peer is named.
	against string
	factor  float64
	// skip are peers that the row would say nothing about.
	skip []string
}

// unit is what a row's figure is.
type unit struct {
	name  string
	less  bool // is better
	value func(*figures) float64
	cpu   bool // CPU seconds per million deliveries mean something
	once  bool // a process that has been there before has the memory still: only its first turn tells
}

// figures are what skein bench prints.
type figures struct {
	PerSecond   float64 `json:"per_second"`
	Lost        int64   `json:"lost"`
	Repeated    int64   `json:"repeated"`
	Reordered   int64   `json:"reordered"`
	Refused     int64   `json:"refused"`
	Connections int64   `json:"connections"`
	Failed      int64   `json:"failed"`
	CPU         float64 `json:"cpu_seconds_per_million"`
	Latency     struct {
		P50 float64 `json:"p50_ms"`
		P99 float64 `json:"p99_ms"`
		Max float64 `json:"max_ms"`
	} `json:"latency"`
	Processes []struct {
		Cores float64 `json:"cores"`
		Grown float64 `json:"rss_grown_bytes"`
	} `json:"processes"`
}

var (
	rate    = unit{name: "messages/s", value: func(f *figures) float64 { return f.PerSecond }, cpu: true}
	connect = unit{name: "connects/s", value: func(f *figures) float64 { return f.PerSecond }}
	whole   = unit{name: "ms for all", less: true, value: func(f *figures) float64 { return f.Latency.Max }}
	median  = unit{name: "p50 ms", less: true, value: func(f *figures) float64 { return f.Latency.P50 }}
	memory  = unit{name: "KiB each", less: true, once: true, value: func(f *figures) (n float64) {
		for _, p := range f.Processes {
			n += p.Grown
		}
		return n / 1024 / float64(max(f.Connections, 1))
	}}
	cores = unit{name: "cores", less: true, value: func(f *figures) (n float64) {
		for _, p := range f.Processes {
			n += p.Cores
		}
		return n
	}}
)

var rows = []row{
	{name: "QoS 0 pairs", nodes: 1, unit: rate, args: []string{"pairs"}, against: "NATS", factor: 1.9},
	{name: "QoS 1 pairs, clean sessions", nodes: 1, unit: rate, args: []string{"pairs", "--qos=1"}, against: "Mosquitto", factor: 10},
	{name: "QoS 2 pairs, clean sessions", nodes: 1, unit: rate, args: []string{"pairs", "--qos=2"}, against: "Mosquitto", factor: 10},
	{name: "fan-out 1 → 100", nodes: 1, unit: rate, args: []string{"fanout"}, against: "NATS", factor: 1.25},
	{name: "fan-in 100 → 1", nodes: 1, unit: rate, args: []string{"fanin"}, against: "NATS", factor: 2},
	{name: "persistent QoS 1, connected", nodes: 1, unit: rate, args: []string{"pairs", "--qos=1", "--persistent"}},
	{name: "20,000 wildcard subscriptions", nodes: 1, unit: rate, args: []string{"wildcard"}},
	{name: "offline queue replay", nodes: 1, unit: rate, args: []string{"replay"}},
	{name: "20,000 retained read at once", nodes: 1, unit: whole, args: []string{"retained"}},
	{name: "memory of an idle connection (10,000)", nodes: 1, unit: memory, args: []string{"idle"}},
	{name: "connects", nodes: 1, unit: connect, args: []string{"connects", "--clients=5000"}},
	{name: "A to B: QoS 0", nodes: 3, unit: rate, args: []string{"pairs"}},
	{name: "A to B: QoS 1, clean sessions", nodes: 3, unit: rate, args: []string{"pairs", "--qos=1"}},
	{name: "A to B: QoS 2, clean sessions", nodes: 3, unit: rate, args: []string{"pairs", "--qos=2"}},
	{name: "A to B: persistent QoS 1", nodes: 3, unit: rate, args: []string{"pairs", "--qos=1", "--persistent"}},
	{name: "A to B: persistent QoS 2, both ends", nodes: 3, unit: rate, args: []string{"pairs", "--qos=2", "--persistent", "--persistent-publishers"}},
	{name: "A to B: persistent QoS 1 at 500/s", nodes: 3, unit: median, args: []string{"pairs", "--qos=1", "--persistent", "--rate=500"}},
	{name: "persistent connects, any node", nodes: 3, unit: connect, args: []string{"connects", "--clients=3000", "--persistent"}},
	{name: "idle, three processes", nodes: 3, unit: cores, args: []string{"idle", "--clients=1"}},
}

// result is what came of a row.
type result struct {
	*row
	brokers []*score
}

// score is one broker's.
type score struct {
	name   string
	values []float64
	cpus   []float64
	wrong  []string // lost, repeated, reordered, or it could not be measured
}

func middle(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// measure gives each broker its turns, one after the other.
func (r *row) measure(ctx context.Context, o *options, peers []peer, dir string) (*result, error) {
	res := &result{row: r}
	var running []*broker
	defer func() {
		for _, b := range running {
			b.stop()
		}
		os.RemoveAll(dir)
	}()
	for i := range peers {
		p := &peers[i]
		if !slices.Contains(p.nodes, r.nodes) || slices.Contains(r.skip, p.name) {
			continue
		}
		b, err := p.start(ctx, filepath.Join(dir, p.name), r.nodes)
		if err != nil {
			return nil, err
		}
		running = append(running, b)
		res.brokers = append(res.brokers, &score{name: p.name})
	}
	rounds := o.rounds
	if r.unit.once {
		rounds = 1
	}
	for round := range rounds {
		for k := range running {
			i := (k + round) % len(running) // nobody is always the first
			if err := r.turn(ctx, o, running[i], res.brokers[i]); err != nil {
				return nil, err
			}
		}
	}
	return res, nil
}

// turn runs the load once. A broker that does not manage is no error.
func (r *row) turn(ctx context.Context, o *options, b *broker, s *score) error {
	limit, cancel := context.WithTimeout(ctx, 10*o.duration+2*time.Minute)
	defer cancel()
	args := append([]string{"bench"}, r.args...)
	if r.nodes > 1 && r.args[0] == "pairs" {
		args = append(args, "--pub-addr", b.addrs[0], "--sub-addr", b.addrs[1])
	} else {
		args = append(args, "--addr", strings.Join(b.addrs, ","))
	}
	args = append(args, "--pids", strings.Join(b.pids, ","), "--duration", o.duration.String(), "--progress=0", "--output=json")
	cmd := exec.CommandContext(limit, filepath.Join(o.bin, "skein"), args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var f figures
	if json.Unmarshal(out.Bytes(), &f) != nil {
		if err == nil {
			err = errors.New("skein bench printed no JSON")
		}
		s.wrong = append(s.wrong, strings.TrimSpace(fmt.Sprintf("%s %v", firstLine(errOut.String()), err)))
		return nil
	}
	if f.Lost+f.Repeated+f.Reordered+f.Refused+f.Failed > 0 {
		s.wrong = append(s.wrong, f.faults())
	}
	s.values = append(s.values, r.unit.value(&f))
	s.cpus = append(s.cpus, f.CPU)
	return nil
}

func (f *figures) faults() string {
	var out []string
	for _, c := range []struct {
		n    int64
		what string
	}{{f.Lost, "lost"}, {f.Repeated, "repeated"}, {f.Reordered, "reordered"}, {f.Refused, "refused"}, {f.Failed, "failed"}} {
		if c.n > 0 {
			out = append(out, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(out, ", ")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
