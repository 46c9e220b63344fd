package lease

import (
	"slices"
	"time"

	"github.com/skein-mqtt/skein/fsm"
)

// core is what a leader knows in one term: pure, time comes in. One lock of its user covers it, so
// that a grant and a verdict never cross.
type core struct {
	cfg  Config
	term uint64

	ready   bool // the term's barrier has passed and the log's clock runs
	began   time.Duration
	stepped time.Duration
	proved  time.Duration      // when a majority last said that this node leads
	nodes   map[uint64]*holder // by incarnation: those that live in the leader's state machine
	commits []commitMark
	clocks  map[string]int64 // wall clock minus the leader's clock, by node, as last heard
}

// holder is a live incarnation.
type holder struct {
	ref       fsm.NodeRef
	renewed   time.Duration // the last grant, or since when it could have asked for one
	granted   bool
	refused   bool // by an operator: it is waited out
	condemned bool // its NodeDown has been proposed: never granted again
	reported  bool // in this term
	applied   uint64
}

// commitMark says what was committed at some moment.
type commitMark struct {
	at    time.Duration
	index uint64
}

// commitStep is how finely commits are remembered.
const commitStep = 200 * time.Millisecond

func newCore(cfg Config, term uint64) *core {
	return &core{cfg: cfg, term: term, nodes: make(map[uint64]*holder), clocks: make(map[string]int64)}
}

// start is the moment from which leases can be granted.
func (c *core) start(now time.Duration, committed uint64) {
	c.ready, c.began, c.stepped, c.proved = true, now, now, now
	c.commits = []commitMark{{now, committed}}
	for _, h := range c.nodes {
		h.renewed = now
	}
}

// sync makes the live incarnations those of the state machine.
func (c *core) sync(now time.Duration, members []fsm.Member) {
	live := 0
	for i := range members {
		m := &members[i]
		if !m.Live {
			continue
		}
		live++
		if c.nodes[m.Incarnation] == nil {
			c.nodes[m.Incarnation] = &holder{ref: fsm.NodeRef{Node: m.ID, Incarnation: m.Incarnation}, renewed: now}
		}
	}
	if live == len(c.nodes) {
		return
	}
	for inc := range c.nodes {
		if !slices.ContainsFunc(members, func(m fsm.Member) bool { return m.Live && m.Incarnation == inc }) {
			delete(c.nodes, inc)
		}
	}
}

// find is the live incarnation of that name, or nil.
func (c *core) find(ref fsm.NodeRef) *holder {
	if h := c.nodes[ref.Incarnation]; h != nil && h.ref == ref {
		return h
	}
	return nil
}

// report notes how far a node has applied the log.
func (c *core) report(ref fsm.NodeRef, applied uint64) {
	if h := c.find(ref); h != nil {
		h.reported = true
		h.applied = max(h.applied, applied)
	}
}

// committed remembers the commit index, for settled.
func (c *core) committed(now time.Duration, index uint64) {
	if n := len(c.commits); n > 0 && now-c.commits[n-1].at < commitStep {
		return
	}
	c.commits = append(c.commits, commitMark{now, index})
	// Keep one that is at least Lag old.
	for len(c.commits) > 1 && now-c.commits[1].at >= c.cfg.Lag {
		c.commits = c.commits[1:]
	}
}

// settled is what was committed at least ago before now in this term, as far as that is remembered;
// else what was committed when it began.
func (c *core) settled(now, ago time.Duration) uint64 {
	for i := len(c.commits) - 1; i >= 0; i-- {
		if now-c.commits[i].at >= ago {
			return c.commits[i].index
		}
	}
	return 0
}

// Reasons why a lease is not granted.
const (
	refuseUnknown   = "this incarnation is not live in the log"
	refuseCondemned = "the verdict on this incarnation has been given"
	refuseRemoved   = "the node is being removed"
	refuseBehind    = "the node is too far behind the log"
	refuseNotReady  = "the leader is not ready"
)

// grant renews a lease. The caller has made sure, after the request arrived, that it still leads. An
// empty string: granted.
func (c *core) grant(now time.Duration, ref fsm.NodeRef) string {
	h := c.find(ref)
	switch {
	case !c.ready:
		return refuseNotReady
	case h == nil:
		return refuseUnknown
	case h.condemned:
		return refuseCondemned
	case h.refused:
		return refuseRemoved
	case h.applied < c.settled(now, c.cfg.Lag):
		return refuseBehind
	}
	h.renewed, h.granted = now, true
	return ""
}

// proofAfter is how often a leader asks the majority when nobody asks it for a lease, and half of the
// time that may pass between two answers before it counts as unable.
func (c *core) proofAfter() time.Duration { return c.cfg.Duration / 4 }

// again is after what time who has just been answered should ask again: at the next beat, which is the same for all,
// so that one question to the majority, and one moment in which a sleeping processor wakes, is enough for all.
func (c *core) again(now time.Duration) time.Duration {
	beat := c.cfg.Duration / beats
	left := beat - (now-c.began)%beat
	if left < beat/4 { // it was just a little early
		left += beat
	}
	return left
}

// verdictIn is the shortest time after which a verdict may be due, at most limit.
func (c *core) verdictIn(now, limit time.Duration) time.Duration {
	for _, h := range c.nodes {
		if !h.condemned {
			limit = min(limit, h.renewed+c.cfg.Duration+c.cfg.Drift-now+time.Millisecond)
		}
	}
	return limit
}

// unable is for how long, up to now, nobody could have renewed a lease because this node itself did not
// hear from a majority: it was starved, or the others were.
func (c *core) unable(now time.Duration) time.Duration {
	return max(0, now-c.proved-2*c.proofAfter())
}

// prove notes that a majority has just said that this node leads. What it was unable to grant before
// does not count against those who would have asked.
func (c *core) prove(now time.Duration) {
	if lost := c.unable(now); lost > 0 {
		for _, h := range c.nodes {
			h.renewed = min(now, h.renewed+lost)
		}
	}
	c.proved = now
}

// verdicts are the incarnations whose lease must have run out by now. From here on none of them is
// granted one. Called at least a few times per lease: after a longer pause this process was itself
// asleep, and so it knows nothing of the others: they get their time anew.
func (c *core) verdicts(now time.Duration) []fsm.NodeRef {
	if !c.ready {
		return nil
	}
	slept := now-c.stepped > c.cfg.Duration
	c.stepped = now
	if slept {
		c.proved = now
	}
	var down []fsm.NodeRef
	for _, h := range c.nodes {
		if slept && !h.condemned {
			h.renewed = max(h.renewed, now)
		}
		if h.condemned || now-h.renewed-c.unable(now) > c.cfg.Duration+c.cfg.Drift {
			h.condemned = true
			down = append(down, h.ref)
		}
	}
	slices.SortFunc(down, func(a, b fsm.NodeRef) int { return int(int64(a.Incarnation) - int64(b.Incarnation)) })
	return down
}

// watermark is what every live incarnation has applied. own is what the leader had applied before
// its members were read for sync: an incarnation that began later has applied more than that.
func (c *core) watermark(own uint64) uint64 {
	for _, h := range c.nodes {
		if !h.reported {
			return 0
		}
		own = min(own, h.applied)
	}
	return own
}

// clock notes a node's wall clock, read in the past: of several readings the fastest counts.
func (c *core) clock(now time.Duration, node string, wall int64) {
	offset := wall - now.Milliseconds()
	if old, ok := c.clocks[node]; ok {
		offset = max(offset, old)
	}
	c.clocks[node] = offset
}

// median is the lower median of the voters' wall clocks, if at least a majority of them is known.
func (c *core) median(now time.Duration, voters []string) (int64, bool) {
	var known []int64
	for _, v := range voters {
		if offset, ok := c.clocks[v]; ok {
			known = append(known, offset+now.Milliseconds())
		}
	}
	if len(voters) == 0 || len(known) < len(voters)/2+1 {
		return 0, false
	}
	slices.Sort(known)
	return known[(len(known)-1)/2], true
}

// clockSlip is by how much the log's clock may be behind the members' clocks without being moved: what the
// message that told of a clock may take.
const clockSlip = 10 * time.Second

// base is the log's time at the beginning of a term: never before reached, the newest stamp in the log. A leader goes on
// where the last one would be by now, which told tells (0: nobody knows), so that what is to happen in 2 s doesn't happen
// earlier because that clock was some tenths of a second behind. Only a clock that is plainly wrong, or that nobody
// remembers, is set anew, by the median.
func base(reached, told, median int64) int64 {
	if told > 0 && median-told <= clockSlip.Milliseconds() {
		return max(reached, told)
	}
	return max(reached, median)
}

// commits0 is since when it is remembered what was committed.
func (c *core) commits0() time.Duration {
	if len(c.commits) == 0 {
		return c.stepped
	}
	return c.commits[0].at
}
