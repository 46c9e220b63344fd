package replica

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// BenchmarkCommands measures commands/s through three replicas in one process, disks included, with so
// many commands outstanding in all.
func BenchmarkCommands(b *testing.B) {
	for _, outstanding := range []int{1, 16, 256, 2048} {
		for _, where := range []string{"leader", "follower", "all"} {
			b.Run(fmt.Sprintf("outstanding=%d/on=%s", outstanding, where), func(b *testing.B) {
				benchmarkCommands(b, outstanding, where)
			})
		}
	}
}

func benchmarkCommands(b *testing.B, outstanding int, where string) {
	w := newWorld(b, 3, nil)
	leader := w.leader()
	w.upAll()
	var nodes []*node
	for _, n := range w.all {
		if where == "all" || (n == leader) == (where == "leader") {
			nodes = append(nodes, n)
		}
		if where == "follower" && len(nodes) == 1 {
			break
		}
	}
	cmd := &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{
		Topic: "bench/topic", Payload: make([]byte, 256), Qos: 1,
	}}}
	room := make(chan struct{}, outstanding)
	done := func(_ fsm.Result, err error) {
		if err != nil {
			b.Error(err)
		}
		<-room
	}
	b.ResetTimer()
	for i := range b.N {
		room <- struct{}{}
		nodes[i%len(nodes)].Propose(cmd, done)
	}
	for range outstanding {
		room <- struct{}{}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
	var batches uint64
	for _, n := range nodes {
		batches += n.Stats().Batches
	}
	b.ReportMetric(float64(b.N)/float64(batches), "commands/batch")
}

// BenchmarkFollowerApplies measures how long after an idle leader's append all followers have applied.
func BenchmarkFollowerApplies(b *testing.B) {
	w := newWorld(b, 3, nil)
	leader := w.leader()
	for range b.N {
		if err := leader.Barrier(context.Background()); err != nil {
			b.Fatal(err)
		}
		for _, n := range w.all {
			for n.Applied() < leader.Applied() {
				time.Sleep(50 * time.Microsecond)
			}
		}
	}
}
