package bench

import (
	"fmt"
	"testing"

	"github.com/skein-mqtt/skein/proto/mqtt"
)

// BenchmarkRoute publishes to ever other topics, of which each matches one of very many wildcard
// subscriptions: the cost of a message must not grow with their number.
func BenchmarkRoute(b *testing.B) {
	for _, subscriptions := range []int{1000, 20_000, 200_000} {
		b.Run(fmt.Sprint(subscriptions), func(b *testing.B) {
			n := newNode(b)
			s, p := n.dial("subscriber"), n.dial("publisher")
			for i := 0; i < subscriptions; {
				packet := &mqtt.Subscribe{PacketID: 1}
				for range 500 {
					packet.Filters = append(packet.Filters, mqtt.Subscription{Filter: fmt.Sprintf("site/%d/+/value", i)})
					i++
				}
				s.send(packet.Append(nil, mqtt.V311))
				s.want(mqtt.SUBACK, 1)
			}
			var packets [][]byte // far more topics than are remembered
			for i := range 2000 {
				var b50 []byte
				for k := range few {
					topic := fmt.Sprintf("site/%d/%d/value", (i*few+k)*7919%subscriptions, k)
					b50, _ = mqtt.AppendPublish(b50, mqtt.V311, mqtt.PublishHeader{}, topic, nil, nil, make([]byte, 100))
				}
				packets = append(packets, b50)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range (b.N + few - 1) / few {
				p.send(packets[i%len(packets)])
				s.want(mqtt.PUBLISH, few)
			}
		})
	}
}
