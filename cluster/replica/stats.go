package replica

// Stats is what metrics tell of the replica. Reading them is cheap.
type Stats struct {
	Term          uint64
	LastIndex     uint64 // in the log of this node
	CommitIndex   uint64
	Applied       uint64
	SnapshotIndex uint64 // the last entry in the newest snapshot

	LogBytes    int64  // the log's file; it never shrinks, space of deleted entries is used again
	ToSnapshot  int64  // bytes of log until the next snapshot
	Writes      Timing // of entries to the log, fsync included
	Commits     Timing // of this node's batches: from the first command until the batch is applied here
	Applies     Timing // of entries that came together
	Leaders     uint64 // how often this node saw another leader than before
	Batches     uint64 // of this node, sealed
	Commands    uint64 // of this node, in those
	Outstanding int    // commands of this node without a result
	OutBytes    int    // of batches that the log has not passed
}

// Stats reads them.
func (r *Replica) Stats() Stats {
	s := Stats{
		Term: r.raft.CurrentTerm(), LastIndex: r.raft.LastIndex(), CommitIndex: r.raft.CommitIndex(),
		Applied: r.cfg.FSM.Applied(), SnapshotIndex: r.snapshotIndex.Load(),
		LogBytes: r.store.size(), ToSnapshot: max(r.keeper.limit-r.keeper.bytes.Load(), 0),
		Writes: r.store.writing.read(), Commits: r.proposer.commits.read(), Applies: r.machine.applies.read(), Leaders: r.leaders.Load(),
	}
	s.Outstanding, s.OutBytes = r.Backlog()
	r.proposer.mu.Lock()
	defer r.proposer.mu.Unlock()
	s.Batches, s.Commands = r.proposer.batches, r.proposer.commands
	return s
}
