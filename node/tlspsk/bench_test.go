package tlspsk

import (
	"io"
	"testing"
)

// BenchmarkRecords is one record there and opened, as a connection does it for each small batch.
func BenchmarkRecords(b *testing.B) {
	c, s := established(b, nil)
	buf := make([]byte, 1024)
	message := make([]byte, 200)
	sink := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.nc, sink[:headerSize+200+17]); err != nil {
			b.Fatal(err)
		}
		sink = c.out.append(sink[:0], recordApplication, message)
		if _, err := c.nc.Write(sink); err != nil {
			b.Fatal(err)
		}
		sink = sink[:cap(sink)]
		if n, err := s.Read(buf); n != len(message) || err != nil {
			b.Fatal(n, err)
		}
	}
}
