package replica

import "time"

// Stats is what metrics tell of the replica. Reading them is cheap.
type Stats struct {
	Term          uint64
	LastIndex     uint64 // in the log of this node
	CommitIndex   uint64
	Applied       uint64
	SnapshotIndex uint64 // the last entry in the newest snapshot

	LogBytes    int64 // the log's file; it never shrinks, space of deleted entries is used again
	ToSnapshot  int64 // bytes of log until the next snapshot
	Writes      uint64
	WriteTime   time.Duration // of all writes to the log, fsync included
	Batches     uint64        // of this node, sealed
	Commands    uint64        // of this node, in those
	Outstanding int           // commands of this node without a result
	OutBytes    int           // of batches that the log has not passed
}

// Stats reads them.
func (r *Replica) Stats() Stats {
	s := Stats{
		Term: r.raft.CurrentTerm(), LastIndex: r.raft.LastIndex(), CommitIndex: r.raft.CommitIndex(),
		Applied: r.cfg.FSM.Applied(), SnapshotIndex: r.snapshotIndex.Load(),
		LogBytes: r.store.size(), ToSnapshot: max(r.keeper.limit-r.keeper.bytes.Load(), 0),
		Writes: r.store.writes.Load(), WriteTime: time.Duration(r.store.spent.Load()),
	}
	s.Outstanding, s.OutBytes = r.Backlog()
	r.proposer.mu.Lock()
	defer r.proposer.mu.Unlock()
	s.Batches, s.Commands = r.proposer.batches, r.proposer.commands
	return s
}
