package topic

import (
	"fmt"
	"testing"
)

// BenchmarkRoute: the time for one name stays the same, however many subscriptions there are.
func BenchmarkRoute(b *testing.B) {
	for _, n := range []int{100, 10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var tree Tree[int, int]
			for i := range n {
				tree.Add(fmt.Sprintf("site/%d/device/%d/state", i%1000, i), i, i)
			}
			tree.Add("site/+/device/50/#", 0, 0)
			tree.Add("#", 0, 0)
			found := 0
			fn := func(int, int) bool { found++; return true }
			b.ReportAllocs()
			for b.Loop() {
				found = 0
				tree.Match("site/50/device/50/state", fn)
			}
			if found != 3 {
				b.Fatalf("%d matches", found)
			}
		})
	}
}

// BenchmarkSubscribe: one of many subscribers of one filter comes and goes.
func BenchmarkSubscribe(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var tree Tree[int, int]
			for i := range n {
				tree.Add("a/b", i, i)
			}
			i := 0
			for b.Loop() {
				tree.Remove("a/b", i)
				tree.Add("a/b", n+i, 0)
				i++
			}
		})
	}
}

// BenchmarkRetained: ten of many names match.
func BenchmarkRetained(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var tree NameTree[int]
			for i := range n {
				tree.Set(fmt.Sprintf("site/%d/device/%d", i/10, i%10), i)
			}
			for b.Loop() {
				found := 0
				tree.MatchFilter("site/7/device/+", func(string, int) bool { found++; return true })
				if found != 10 {
					b.Fatalf("%d matches", found)
				}
			}
		})
	}
}
