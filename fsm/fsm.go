package fsm

import (
	"sync"
	"sync/atomic"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// FSM is the state machine. Apply, Advance, Snapshot and Restore are called by one goroutine at a
// time; reads come from any goroutine.
type FSM struct {
	node       string // only chooses effects
	generation atomic.Uint64
	awaited    atomic.Uint64 // see AwaitedGeneration
	access     struct {      // what readers ask without a lock
		generation atomic.Uint64
		users      atomic.Int64
	}

	mu sync.RWMutex
	state
	snapshots []*Snapshot // those not released yet
	round     uint64      // snapshots begun, see touch

	// What follows is scratch of the entry that is being applied.
	index    uint64
	offset   int
	stamp    int64
	origin   *incarnation // of the batch, nil in a system entry
	sequence uint64       // of the command in the batch
	counter  string       // the node at which drops of this entry are counted
	batch    fsmpb.Batch
	effects  []Effect
	wills    []pendingWill
	reads    []retainedRead
	matched  []*filter
	hits     []hit
	serial   uint64 // of the publish whose hits are being gathered
	bygone   bygone
}

// state is what a snapshot holds, with the indexes that are derived from it.
type state struct {
	applied  uint64
	now      int64
	lastID   uint64 // the last Message.ID or assignment id
	timers   timers
	members  members
	clients  clients
	topics   filters
	retained retainedTable
	interest interests
	assigned assignments
	parked   parkedWills
	table    accessTable
	counts   counts
}

// counts are derived, kept for Counts.
type counts struct {
	sessions      int
	subscriptions int
	queued        int
}

// New makes an empty state machine for the named node.
func New(node string) *FSM {
	f := &FSM{node: node}
	f.reset()
	return f
}

func (f *FSM) reset() {
	f.state = state{
		timers:   newTimers(),
		members:  newMembers(),
		clients:  newClients(),
		topics:   newFilters(),
		retained: newRetainedTable(),
		interest: newInterests(),
		assigned: newAssignments(),
		parked:   newParkedWills(),
		table:    newAccessTable(),
	}
}

// Applied is the index of the last entry that was applied.
func (f *FSM) Applied() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.applied
}

// Now is the log's clock in ms.
func (f *FSM) Now() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.now
}

// Advance notes an entry that is not ours (raft's own).
func (f *FSM) Advance(index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = max(f.applied, index)
}

// RouteGeneration changes whenever a Route may have changed.
func (f *FSM) RouteGeneration() uint64 { return f.generation.Load() }

func (f *FSM) rerouted() {
	f.generation.Add(1)
	f.awaited.Add(1)
}

// AwaitedGeneration changes with each entry that somebody may wait for until all nodes have applied it: with the
// routes, and with each subscription, also one that changes no route because others of its filter are there.
func (f *FSM) AwaitedGeneration() uint64 { return f.awaited.Load() }

// nextID gives out an id that was never given before: the position of the command where that is
// free, as for the first message of a publish, else the next one.
func (f *FSM) nextID() uint64 {
	f.lastID = max(f.lastID+1, uint64(EpochAt(f.index, f.offset)))
	return f.lastID
}
