package replica

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// Snapshot writes a snapshot of the state, has the log before the last one dropped, and returns the last
// index that the newest snapshot holds.
func (r *Replica) Snapshot() (uint64, error) {
	if !r.enter() {
		return 0, ErrClosed
	}
	defer r.leave()
	if err := r.snapshot(); err != nil {
		return 0, explain(err)
	}
	return r.snapshots.newest()
}

// Restore replaces the state by the one that a snapshot of size bytes holds, at the leader. index is the last
// one that it holds: the log goes on behind it, and behind everything that the log had. Every replica
// restores it in place of what it has (Hooks.Restored). It blocks until a majority has it. The caller
// knows that the snapshot can be read: raft ends the process over one that can't.
func (r *Replica) Restore(ctx context.Context, from io.Reader, size int64, index uint64) error {
	if !r.enter() {
		return ErrClosed
	}
	defer r.leave()
	patience := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		patience = max(time.Until(deadline), time.Millisecond)
	}
	err := r.raft.Restore(&raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: index, Size: size}, from, patience)
	if errors.Is(err, raft.ErrEnqueueTimeout) {
		return context.DeadlineExceeded
	}
	return explain(err)
}
