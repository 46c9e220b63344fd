package fsm

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

type benchCluster struct {
	f     *FSM
	index uint64
	next  uint64
}

func newBench(b *testing.B) *benchCluster {
	c := &benchCluster{f: New("n1"), next: 1}
	c.apply(b, EncodeSystem(nil, 1_000_000, &fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: "n1", Nonce: 1}}}))
	return c
}

func (c *benchCluster) apply(b *testing.B, entry []byte) {
	c.index++
	if _, err := c.f.Apply(c.index, 1, entry); err != nil {
		b.Fatal(err)
	}
}

func (c *benchCluster) batch(b *testing.B, cmds []*fsmpb.Command) {
	raw, err := (&fsmpb.Batch{Origin: "n1", Incarnation: 1, First: c.next, Commands: cmds}).MarshalVT()
	if err != nil {
		b.Fatal(err)
	}
	c.next += uint64(len(cmds))
	c.apply(b, EncodeBatch(nil, 1_000_000, raw))
}

// sessions connects n persistent sessions with three subscriptions each.
func (c *benchCluster) sessions(b *testing.B, n int) {
	var cmds []*fsmpb.Command
	for i := range n {
		id := fmt.Sprintf("client-%07d", i)
		epoch := EpochAt(c.index+1, len(cmds))
		cmds = append(cmds, connect(id, 3600), &fsmpb.Command{Op: &fsmpb.Command_Subscribe{Subscribe: &fsmpb.Subscribe{
			ClientId: id, Epoch: uint64(epoch), Subscriptions: []*fsmpb.Subscription{
				{Filter: "cmd/" + id, Qos: 1}, {Filter: "cfg/" + id + "/#", Qos: 1}, {Filter: "grp/" + id[:10] + "/+", Qos: 0},
			},
		}}})
		if len(cmds) == 1000 || i == n-1 {
			c.batch(b, cmds)
			cmds = cmds[:0]
		}
	}
}

// BenchmarkPublish: commands of the log road, one subscriber each, in batches of 256, with the
// subscribers' progress.
func BenchmarkPublish(b *testing.B) {
	const clients = 10_000
	c := newBench(b)
	c.sessions(b, clients)
	payload := make([]byte, 256)
	var cmds []*fsmpb.Command
	n := 0
	raw := func() []byte {
		cmds = cmds[:0]
		for range 256 {
			id := fmt.Sprintf("client-%07d", n%clients)
			epoch, _ := c.f.ClientEpoch(id)
			cmds = append(cmds, &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{
				ClientId: "client-0000000", Topic: "cmd/" + id, Payload: payload, Qos: 1,
			}}})
			if v := n / clients; v > 0 {
				cmds = append(cmds, &fsmpb.Command{Op: &fsmpb.Command_Progress{Progress: &fsmpb.Progress{
					ClientId: id, Epoch: uint64(epoch), Cursor: uint64(v),
				}}})
			}
			n++
		}
		out, err := (&fsmpb.Batch{Origin: "n1", Incarnation: 1, First: c.next, Commands: cmds}).MarshalVT()
		if err != nil {
			b.Fatal(err)
		}
		c.next += uint64(len(cmds))
		return EncodeBatch(nil, 1_000_000, out)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += 256 {
		b.StopTimer()
		entry := raw()
		b.StartTimer()
		c.apply(b, entry)
	}
}

func BenchmarkFanOut(b *testing.B) {
	c := newBench(b)
	var cmds []*fsmpb.Command
	for i := range 1000 {
		id := fmt.Sprintf("client-%07d", i)
		cmds = append(cmds, connect(id, 3600), subscribe(id, EpochAt(c.index+1, len(cmds)), "all"))
	}
	c.batch(b, cmds)
	b.ReportAllocs()
	for b.Loop() {
		c.batch(b, []*fsmpb.Command{{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{Topic: "all", Payload: []byte("x"), Qos: 1}}}})
	}
}

func BenchmarkRoute(b *testing.B) {
	c := newBench(b)
	c.sessions(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		if r := c.f.Route("cmd/client-0001234"); r.Persistent != 2 {
			b.Fatal(r)
		}
	}
}

// BenchmarkSnapshot reports how long Apply stands still, and how long the write takes.
func BenchmarkSnapshot(b *testing.B) {
	c := newBench(b)
	c.sessions(b, 200_000)
	var stall, write time.Duration
	var size int64
	for b.Loop() {
		start := time.Now()
		s := c.f.Snapshot()
		stall += time.Since(start)
		start = time.Now()
		n, err := s.WriteTo(io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		write += time.Since(start)
		size = n
		s.Release()
	}
	b.ReportMetric(float64(stall.Nanoseconds())/float64(b.N), "stall-ns/op")
	b.ReportMetric(float64(write.Milliseconds())/float64(b.N), "write-ms/op")
	b.ReportMetric(float64(size)/200_000, "bytes/session")
}
