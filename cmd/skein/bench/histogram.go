package bench

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are at most 1/64 of their value wide, in the manner of
// HdrHistogram. It is not safe for concurrent use.
type histogram struct {
	buckets [histogramRows << subBits]uint32
	count   uint64
	sum     uint64 // ns
	least   uint64
	most    uint64
}

const (
	subBits       = 6
	histogramRows = 38 // up to 2^43 ns, more than two hours
)

func bucketOf(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - subBits
	return min((shift+1)<<subBits|int(v>>shift&(1<<subBits-1)), histogramRows<<subBits-1)
}

// valueOf is the largest value in a bucket.
func valueOf(i int) uint64 {
	if i < 1<<subBits {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return uint64(1<<subBits|i&(1<<subBits-1)+1)<<shift - 1
}

func (h *histogram) add(ns int64) {
	v := uint64(max(0, ns))
	h.buckets[bucketOf(v)]++
	if h.count == 0 || v < h.least {
		h.least = v
	}
	h.count++
	h.sum += v
	h.most = max(h.most, v)
}

func (h *histogram) merge(o *histogram) {
	if o.count == 0 {
		return
	}
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	if h.count == 0 || o.least < h.least {
		h.least = o.least
	}
	h.count += o.count
	h.sum += o.sum
	h.most = max(h.most, o.most)
}

// quantile is the value below which that part of all lies.
func (h *histogram) quantile(q float64) time.Duration {
	want := max(uint64(q*float64(h.count)+0.5), 1)
	var seen uint64
	for i, n := range h.buckets {
		if seen += uint64(n); seen >= want {
			return time.Duration(min(max(valueOf(i), h.least), h.most))
		}
	}
	return time.Duration(h.most)
}

func (h *histogram) mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return time.Duration(h.sum / h.count)
}

// Latency is how long deliveries took, from when they were due, in milliseconds.
type Latency struct {
	Count uint64  `json:"count"`
	Min   float64 `json:"min_ms"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	Max   float64 `json:"max_ms"`
}

func (h *histogram) latency() Latency {
	if h.count == 0 {
		return Latency{}
	}
	ms := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
	return Latency{
		Count: h.count, Min: ms(time.Duration(h.least)), Mean: ms(h.mean()), P50: ms(h.quantile(0.5)), P90: ms(h.quantile(0.9)),
		P99: ms(h.quantile(0.99)), P999: ms(h.quantile(0.999)), Max: ms(time.Duration(h.most)),
	}
}
