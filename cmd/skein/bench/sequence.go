package bench

import "sync"

// stream follows one publisher's numbers at one subscriber: they should be 0, 1, 2 and so on.
type stream struct {
	next    uint64 // one past the highest that was seen
	missing map[uint64]struct{}
	gone    uint64 // missing, beyond what the map remembers
}

// maxMissing bounds what one stream remembers of its gaps.
const maxMissing = 1 << 20

// arrival is what a number turned out to be.
type arrival uint8

const (
	inOrder arrival = iota
	late            // after a higher one
	again
)

func (s *stream) see(n uint64) arrival {
	switch {
	case n == s.next:
		s.next++
		return inOrder
	case n > s.next:
		if s.missing == nil {
			s.missing = make(map[uint64]struct{})
		}
		for ; s.next < n; s.next++ {
			if len(s.missing) < maxMissing {
				s.missing[s.next] = struct{}{}
			} else {
				s.gone++
			}
		}
		s.next++
		return inOrder
	}
	if _, ok := s.missing[n]; ok {
		delete(s.missing, n)
		return late
	}
	return again
}

// member is see for one of a group, who get the numbers between them. fresh: nobody has had it before.
func (s *stream) member(n uint64, fresh bool) arrival {
	switch {
	case !fresh:
		return again
	case n < s.next:
		return late
	}
	s.next = n + 1
	return inOrder
}

// lost is how many of the first sent numbers did not come.
func (s *stream) lost(sent uint64) uint64 {
	if sent < s.next { // cannot be: it is not a number of ours
		sent = s.next
	}
	return sent - s.next + uint64(len(s.missing)) + s.gone
}

// pool follows one publisher's numbers at the members of a shared group: each should come once, to any.
type pool struct {
	mu   sync.Mutex
	seen []uint64 // a bit each
	n    uint64   // how many different ones
}

func (p *pool) see(n uint64) (fresh bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, bit := int(n/64), uint64(1)<<(n%64)
	for len(p.seen) <= i {
		p.seen = append(p.seen, 0)
	}
	if p.seen[i]&bit != 0 {
		return false
	}
	p.seen[i] |= bit
	p.n++
	return true
}
