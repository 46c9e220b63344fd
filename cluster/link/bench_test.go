package link

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/proto/clusterpb"
)

type counter struct{ n atomic.Int64 }

func (c *counter) LinkDone(string, clusterpb.LinkCode) { c.n.Add(1) }

// BenchmarkLink sends 100-byte payloads from one node to another over loopback, as fast as they are
// acknowledged or flow control lets them.
func BenchmarkLink(b *testing.B) {
	for qos, name := range []string{"QoS0", "QoS1"} {
		b.Run(name, func(b *testing.B) {
			_, from, to := pair(b, Config{})
			from.proxy.close()
			to.mu.Lock()
			arrived := 0
			to.noMember = func(*clusterpb.Frame) bool { arrived++; return true }
			to.mu.Unlock()
			f := frame(0, byte(qos))
			f.Payload = make([]byte, 100)
			var done counter
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; {
				if from.Congested("b") {
					time.Sleep(100 * time.Microsecond)
					continue
				}
				if from.Send(to.ref, f, &done) {
					i++
				}
			}
			eventually(b, "all arrive", func() bool {
				to.mu.Lock()
				defer to.mu.Unlock()
				return arrived >= b.N
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
		})
	}
}
