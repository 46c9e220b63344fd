package fsm

import (
	"slices"

	"github.com/tidwall/btree"
)

// Snapshot is the state at one index. Taking it costs next to nothing: the trees are shared until
// they change, and a client's record is saved here the first time that it changes afterwards.
// Apply goes on while it is written. Release it when done.
type Snapshot struct {
	f        *FSM
	round    uint64
	applied  uint64
	now      int64
	lastID   uint64
	serial   uint64
	members  []*Member
	lives    []incarnationRow
	order    *btree.BTreeG[*client]
	groups   *btree.BTreeG[*group]
	interest *btree.BTreeG[interestRow]
	assigned *btree.BTreeG[assignment]
	parked   *btree.BTreeG[parkedWill]
	retained *btree.BTreeG[retainedRow]
	table    accessTable

	// Guarded by f.mu: what changed since, and up to where the clients have been written.
	saved       map[*client]clientCopy
	savedGroups map[*group]uint64
	begun       bool
	written     string
}

type incarnationRow struct {
	node         string
	number, next uint64
	live         bool
	endedAt      int64
	relays       []relayMark
}

// clientCopy is a client's record as it stood. What it points to is never written.
type clientCopy struct {
	id   string
	row  clientRow
	sess *sessionRow
	subs []Subscription
}

func (c *client) copy() clientCopy {
	out := clientCopy{id: c.id, row: c.clientRow, subs: c.subscriptions()}
	if c.sess != nil {
		s := *c.sess
		out.sess = &s
	}
	return out
}

// Snapshot takes one. Like Apply, it is called by one goroutine at a time.
func (f *FSM) Snapshot() *Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.round++
	s := &Snapshot{
		f: f, round: f.round, applied: f.applied, now: f.now, lastID: f.lastID, serial: f.timers.serial,
		members:  f.members.list,
		order:    f.clients.order.Copy(),
		groups:   f.topics.groups.Copy(),
		interest: f.interest.rows.Copy(),
		assigned: f.assigned.rows.Copy(),
		parked:   f.parked.rows.Copy(),
		retained: f.retained.rows.Copy(),
		table:    f.table.copy(),

		saved:       make(map[*client]clientCopy),
		savedGroups: make(map[*group]uint64),
	}
	for _, inc := range f.members.incarnations() {
		s.lives = append(s.lives, incarnationRow{inc.node, inc.number, inc.next, inc.live, inc.endedAt, slices.Clone(inc.relays)})
	}
	f.snapshots = append(f.snapshots, s)
	return s
}

// Index is the log index that the snapshot stands at.
func (s *Snapshot) Index() uint64 { return s.applied }

// Release lets go of what the snapshot keeps. It may be called more than once.
func (s *Snapshot) Release() {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.snapshots = slices.DeleteFunc(s.f.snapshots, func(o *Snapshot) bool { return o == s })
	s.saved, s.savedGroups = nil, nil
}

// touch must come before the first change to a client by a command: it saves the record for the
// snapshots that have not written it yet.
func (f *FSM) touch(c *client) {
	if c.round == f.round {
		return
	}
	for _, s := range f.snapshots {
		if c.round < s.round && !(s.begun && c.id <= s.written) {
			s.saved[c] = c.copy()
		}
	}
	c.round = f.round
}

// touchGroup is touch for a group's counter.
func (f *FSM) touchGroup(g *group) {
	if g.round == f.round {
		return
	}
	for _, s := range f.snapshots {
		if g.round < s.round {
			s.savedGroups[g] = g.turn
		}
	}
	g.round = f.round
}

// How many records, and subscriptions of theirs, are copied under one hold of the read lock.
const (
	snapshotChunk         = 256
	snapshotSubscriptions = 2048
)

// eachClient calls fn for the clients as they stood, without the lock.
func (s *Snapshot) eachClient(fn func(*clientCopy)) {
	chunk := make([]*client, 0, snapshotChunk)
	copies := make([]clientCopy, 0, snapshotChunk)
	flush := func() {
		for rest := chunk; len(rest) > 0; {
			copies = copies[:0]
			n, subs := 0, 0
			s.f.mu.RLock()
			for n < len(rest) && subs < snapshotSubscriptions {
				c, ok := s.saved[rest[n]]
				if !ok {
					c = rest[n].copy()
				}
				copies = append(copies, c)
				subs += len(c.subs)
				n++
			}
			s.begun, s.written = true, rest[n-1].id
			s.f.mu.RUnlock()
			for i := range copies {
				fn(&copies[i])
			}
			rest = rest[n:]
		}
		chunk = chunk[:0]
	}
	s.order.Scan(func(c *client) bool {
		if chunk = append(chunk, c); len(chunk) == cap(chunk) {
			flush()
		}
		return true
	})
	flush()
}

// eachGroup is eachClient for the groups that have counted.
func (s *Snapshot) eachGroup(fn func(filter, group string, turn uint64)) {
	chunk := make([]*group, 0, snapshotChunk)
	turns := make([]uint64, 0, snapshotChunk)
	flush := func() {
		turns = turns[:0]
		s.f.mu.RLock()
		for _, g := range chunk {
			turn, ok := s.savedGroups[g]
			if !ok {
				turn = g.turn
			}
			turns = append(turns, turn)
		}
		s.f.mu.RUnlock()
		for i, g := range chunk {
			if turns[i] != 0 {
				fn(g.filter.name, g.name, turns[i])
			}
		}
		chunk = chunk[:0]
	}
	s.groups.Scan(func(g *group) bool {
		if chunk = append(chunk, g); len(chunk) == cap(chunk) {
			flush()
		}
		return true
	})
	flush()
}
