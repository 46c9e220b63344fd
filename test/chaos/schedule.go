package chaos

import (
	"math/rand/v2"
	"slices"
)

// schedule is the order of faults that follows from a seed: all of them once in some order, then
// again in another.
type schedule struct {
	rng  *rand.Rand
	from []fault
	bag  []fault
}

// newSchedule draws from all faults, or from those that the options name; clocks: from those of clocks, too.
func newSchedule(o *Options, clocks bool) *schedule {
	s := &schedule{rng: rand.New(rand.NewPCG(o.Seed, seedFaults))}
	for _, f := range faults {
		ofClocks := slices.ContainsFunc(onClocks, func(c fault) bool { return c.name == f.name })
		if (len(o.Faults) == 0 || slices.Contains(o.Faults, f.name)) && (clocks || !ofClocks) {
			s.from = append(s.from, f)
		}
	}
	return s
}

// next is the next fault and what it draws from.
func (s *schedule) next() (fault, *rand.Rand) {
	if len(s.bag) == 0 {
		s.bag = slices.Clone(s.from)
		s.rng.Shuffle(len(s.bag), func(i, j int) { s.bag[i], s.bag[j] = s.bag[j], s.bag[i] })
	}
	f := s.bag[0]
	s.bag = s.bag[1:]
	return f, rand.New(rand.NewPCG(s.rng.Uint64(), seedFaults))
}
