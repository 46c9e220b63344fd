package run

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/skein-mqtt/skein/cluster"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/admin"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

// Backup implements admin.Cluster.
func (o orders) Backup(ctx context.Context, begin func(index uint64, time int64) io.Writer) error {
	if _, err := o.n.cluster.Read(ctx); err != nil {
		return fmt.Errorf("this node can't tell what is committed: %w", err)
	}
	now := o.n.fsm.Now()
	s := o.n.fsm.Snapshot()
	defer s.Release()
	_, err := s.WriteTo(begin(s.Index(), now))
	return err
}

// Restore implements admin.Cluster.
func (o orders) Restore(ctx context.Context, r io.ReadSeeker, force, dryRun bool) (*adminpb.RestoreResponse, error) {
	if !o.n.cluster.IsLeader() {
		return nil, fmt.Errorf("%w: another one does", admin.ErrNotLeader)
	}
	state := fsm.New(o.n.id)
	if err := state.Restore(r); err != nil {
		return nil, fmt.Errorf("%w: %w", admin.ErrBadBackup, err)
	}
	with, now := state.Counts(), o.n.fsm.Counts()
	res := &adminpb.RestoreResponse{
		BackupIndex: state.Applied(), Sessions: uint64(with.Sessions), Retained: uint64(with.Retained), Queued: uint64(with.Queued),
		ReplacedSessions: uint64(now.Sessions), ReplacedRetained: uint64(now.Retained),
	}
	if now.Sessions+now.Retained > 0 && !force && !dryRun {
		return nil, fmt.Errorf("%w: the cluster has %d sessions and %d retained messages", admin.ErrHasState, now.Sessions, now.Retained)
	}
	if dryRun {
		return res, nil
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	err := o.n.cluster.Restore(ctx, r)
	if errors.Is(err, cluster.ErrNotLeader) {
		err = fmt.Errorf("%w: %w", admin.ErrNotLeader, err)
	}
	return res, err
}

// Snapshot implements admin.Local.
func (l local) Snapshot(dryRun bool) (uint64, error) {
	if dryRun {
		return l.n.fsm.Applied(), nil
	}
	return l.n.cluster.SnapshotLog()
}

// MayRemove implements admin.Cluster.
func (o orders) MayRemove(node string, force bool) error {
	return known(o.n.cluster.MayRemove(node, force))
}

// MayTransfer implements admin.Cluster.
func (o orders) MayTransfer(node string) error { return known(o.n.cluster.MayTransfer(node)) }
