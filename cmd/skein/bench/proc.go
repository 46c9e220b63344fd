package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is what a process has used.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// clockTicks is USER_HZ, which is 100 on every Linux that Go runs on.
const clockTicks = 100

// readUsage reads /proc, so it works on Linux.
func readUsage(pid int) (usage, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, fmt.Errorf("bench: process %d can't be watched: %w", pid, err)
	}
	text := string(b)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // the name before may hold anything
	if len(fields) < 22 {
		return usage{}, fmt.Errorf("bench: process %d can't be watched: /proc/%[1]d/stat is not as expected", pid)
	}
	number := func(i int) int64 { n, _ := strconv.ParseInt(fields[i], 10, 64); return n }
	return usage{
		cpu: time.Duration(number(11)+number(12)) * (time.Second / clockTicks),
		rss: number(21) * int64(os.Getpagesize()),
	}, nil
}

// ownCPU is what this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watch is a reading of all watched processes.
type watch struct {
	at   time.Time
	own  time.Duration
	pids []usage
}

func look(pids []int) (watch, error) {
	w := watch{at: time.Now(), own: ownCPU()}
	for _, pid := range pids {
		u, err := readUsage(pid)
		if err != nil {
			return w, err
		}
		w.pids = append(w.pids, u)
	}
	return w, nil
}

// Process is what a watched process used meanwhile.
type Process struct {
	PID           int     `json:"pid"`
	CPU           float64 `json:"cpu_seconds"`
	CPUPerMillion float64 `json:"cpu_seconds_per_million,omitempty"` // deliveries
	Cores         float64 `json:"cores"`
	RSS           int64   `json:"rss_bytes"` // at the end
	Grown         int64   `json:"rss_grown_bytes"`
}

// since compares two readings.
func (w *watch) since(before *watch, pids []int, deliveries uint64) []Process {
	list := make([]Process, len(pids))
	for i, pid := range pids {
		a, b := before.pids[i], w.pids[i]
		p := Process{PID: pid, CPU: (b.cpu - a.cpu).Seconds(), RSS: b.rss, Grown: b.rss - a.rss}
		if s := w.at.Sub(before.at).Seconds(); s > 0 {
			p.Cores = p.CPU / s
		}
		if deliveries > 0 {
			p.CPUPerMillion = p.CPU / float64(deliveries) * 1e6
		}
		list[i] = p
	}
	return list
}
