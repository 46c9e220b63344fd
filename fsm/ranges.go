package fsm

import (
	"cmp"
	"slices"
)

// Sets of sequence numbers: ascending ranges that neither overlap nor touch. They are never
// written in place, because views and snapshots hold them.

// pairs reads lo, hi pairs as the commands carry them, without what is at or below floor. ok is
// false when they make no sense, as beyond ceil: nobody was sent those.
func pairs(p []uint64, floor, ceil uint64) (out []Range, ok bool) {
	if len(p)%2 != 0 {
		return nil, false
	}
	for i := 0; i < len(p); i += 2 {
		lo, hi := p[i], p[i+1]
		if lo > hi || lo == 0 || hi > ceil {
			return nil, false
		}
		if lo = max(lo, floor+1); lo <= hi {
			out = append(out, Range{lo, hi})
		}
	}
	return out, true
}

// union is the set of both; more need not be in order, and may overlap.
func union(rs, more []Range) []Range {
	if len(more) == 0 {
		return rs
	}
	all := slices.Concat(rs, more)
	slices.SortFunc(all, func(a, b Range) int { return cmp.Compare(a.Lo, b.Lo) })
	out := all[:1]
	for _, r := range all[1:] {
		last := &out[len(out)-1]
		if r.Lo <= last.Hi+1 {
			last.Hi = max(last.Hi, r.Hi)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// subtract is the set of what is in rs and not in less.
func subtract(rs, less []Range) []Range {
	if len(rs) == 0 || len(less) == 0 {
		return rs
	}
	var out []Range
	changed := false
	j := 0
	for _, r := range rs {
		for j < len(less) && less[j].Hi < r.Lo {
			j++
		}
		lo := r.Lo
		k := j
		for ; k < len(less) && less[k].Lo <= r.Hi; k++ {
			changed = true
			if less[k].Lo > lo {
				out = append(out, Range{lo, less[k].Lo - 1})
			}
			lo = less[k].Hi + 1
		}
		if lo <= r.Hi {
			out = append(out, Range{lo, r.Hi})
		}
	}
	if !changed {
		return rs
	}
	return out
}

// above is the set of what is in rs and above floor.
func above(rs []Range, floor uint64) []Range {
	i := 0
	for i < len(rs) && rs[i].Hi <= floor {
		i++
	}
	rs = rs[i:]
	if len(rs) == 0 {
		return nil
	}
	if rs[0].Lo <= floor {
		rs = slices.Clone(rs)
		rs[0].Lo = floor + 1
	}
	return rs
}

// contains tells whether seq is in rs.
func contains(rs []Range, seq uint64) bool { return through(rs, seq) > 0 }

// through is the last number of the range that seq is in, 0 if it is in none.
func through(rs []Range, seq uint64) uint64 {
	lo, hi := 0, len(rs)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if rs[mid].Hi < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(rs) || rs[lo].Lo > seq {
		return 0
	}
	return rs[lo].Hi
}
