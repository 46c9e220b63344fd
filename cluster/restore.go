package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// Read returns when this node has applied all that was committed anywhere before the call, with the index
// of the log that it has applied.
func (c *Cluster) Read(ctx context.Context) (uint64, error) {
	done := make(chan error, 1)
	c.Propose(&fsmpb.Command{Op: &fsmpb.Command_SharedDone{SharedDone: &fsmpb.SharedDone{}}}, func(_ fsm.Result, err error) { done <- err })
	select {
	case err := <-done:
		return c.fsm.Applied(), err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// SnapshotLog writes a snapshot of the state to this node's disk, shortens the log, and returns the last
// index that the newest snapshot holds. It blocks until that is done.
func (c *Cluster) SnapshotLog() (uint64, error) { return c.log.Snapshot() }

// Restore replaces the replicated state, at the leader only (else ErrNotLeader), with the one that r holds
// (see fsm.Snapshot.WriteTo), of this cluster or another one. Every node takes it as a snapshot, so that
// every incarnation ends and all clients are disconnected. It blocks until a majority has it. What r holds
// is read and checked in full before anything is changed.
func (c *Cluster) Restore(ctx context.Context, r io.Reader) (err error) {
	if !c.log.IsLeader() {
		return ErrNotLeader
	}
	state := fsm.New(c.cfg.NodeID)
	if err := state.Restore(r); err != nil {
		return fmt.Errorf("the backup can't be read: %w", err)
	}
	c.configuring.Lock() // the log's configuration must not change meanwhile
	defer c.configuring.Unlock()
	state.Rebase(c.Now())
	file, err := os.CreateTemp(c.cfg.DataDir, "restore-*.tmp")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	s := state.Snapshot()
	defer s.Release()
	size, err := s.WriteTo(file)
	if err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	c.cfg.Logger.Warn("the replicated state is being replaced by a backup's", "index", s.Index(), "bytes", size)
	return ordered(c.log.Restore(ctx, file, size, s.Index()))
}

// sweepRestores removes what a restore has left that a crash interrupted.
func sweepRestores(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, "restore-*.tmp"))
	for _, path := range left {
		_ = os.Remove(path)
	}
}
