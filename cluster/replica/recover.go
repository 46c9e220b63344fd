package replica

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/skein-mqtt/skein/fsm"
)

// Survey is what a stopped server's files hold.
type Survey struct {
	FSM     *fsm.FSM // the state after the last entry, committed or not
	Servers []Server // the members as of the newest change in the log
	Last    uint64   // index and term of the last entry
	Term    uint64
}

// files opens a stopped server's files, without raft. The caller closes the store.
func files(dir, id string) (*Replica, error) {
	if _, err := os.Stat(filepath.Join(dir, "raft", "log.db")); err != nil { // opening would make it
		return nil, fmt.Errorf("replica: there is no log: %w", err)
	}
	r := &Replica{cfg: Config{ID: id, Dir: dir, Logger: slog.New(slog.DiscardHandler)}.withDefaults()}
	r.stop = func() {}
	if err := r.openFiles(); err != nil {
		if r.store != nil {
			err = errors.Join(err, r.store.close())
		}
		return nil, err
	}
	return r, nil
}

// Look reads a stopped server's files and changes nothing about what they say. empty must be a state machine
// without a state.
func Look(dir, id string, empty *fsm.FSM) (*Survey, error) {
	r, err := files(dir, id)
	if err != nil {
		return nil, err
	}
	s, err := r.look(empty)
	return s, errors.Join(err, r.store.close())
}

func (r *Replica) look(empty *fsm.FSM) (*Survey, error) {
	s := &Survey{FSM: empty}
	var members raft.Configuration
	list, err := r.snapshots.List()
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	if len(list) > 0 {
		meta, from, err := r.snapshots.Open(list[0].ID)
		if err != nil {
			return nil, err
		}
		err = s.FSM.Restore(from)
		if err = errors.Join(err, from.Close()); err != nil {
			return nil, r.snapshots.broken(filepath.Join(r.snapshots.dir, meta.ID), err)
		}
		s.Last, s.Term, members = meta.Index, meta.Term, meta.Configuration
	}
	last, err := r.store.LastIndex()
	if err != nil {
		return nil, damaged(r.store.path, err)
	}
	for i := s.Last + 1; i <= last; i++ {
		var entry raft.Log
		if err := r.store.GetLog(i, &entry); err != nil {
			return nil, damaged(r.store.path, err)
		}
		switch entry.Type {
		case raft.LogCommand:
			_, err = s.FSM.Apply(entry.Index, entry.Term, entry.Data)
		case raft.LogConfiguration:
			err = guard(func() error { members = raft.DecodeConfiguration(entry.Data); return nil })
		}
		if err != nil {
			return nil, fmt.Errorf("replica: entry %d can't be applied: %w", i, err)
		}
		s.Last, s.Term = entry.Index, entry.Term
	}
	s.Servers = serversOf(members)
	return s, nil
}

// Refound makes a stopped server the only one of its log, under an id and an address: what its files hold, committed
// or not, is all that there is from then on. Done twice, or again after it was interrupted, it is done once. empty
// must be a state machine without a state.
func Refound(dir string, self Server, empty *fsm.FSM) error {
	r, err := files(dir, self.ID)
	if err != nil {
		return err
	}
	_, transport := raft.NewInmemTransport(raft.ServerAddress(self.Address))
	m := &rebuilt{fsm: empty}
	err = guard(func() error {
		return raft.RecoverCluster(r.cfg.raft(), m, r.store, r.store, r.snapshots, transport, raft.Configuration{Servers: []raft.Server{
			{Suffrage: raft.Voter, ID: raft.ServerID(self.ID), Address: raft.ServerAddress(self.Address)},
		}})
	})
	if err != nil {
		err = fmt.Errorf("replica: %w", err)
	}
	return errors.Join(err, m.err, transport.Close(), r.store.close())
}

// rebuilt is a state machine that is only rebuilt and written. It implements raft.FSM.
type rebuilt struct {
	fsm *fsm.FSM
	err error // after it nothing is applied
}

// Apply implements raft.FSM.
func (m *rebuilt) Apply(l *raft.Log) any {
	if m.err == nil {
		_, m.err = m.fsm.Apply(l.Index, l.Term, l.Data)
	}
	return m.err
}

// Restore implements raft.FSM.
func (m *rebuilt) Restore(from io.ReadCloser) error { return m.fsm.Restore(from) }

// Snapshot implements raft.FSM.
func (m *rebuilt) Snapshot() (raft.FSMSnapshot, error) {
	if m.err != nil {
		return nil, m.err
	}
	return rewritten{m.fsm.Snapshot()}, nil
}

type rewritten struct{ *fsm.Snapshot }

// Persist implements raft.FSMSnapshot.
func (s rewritten) Persist(sink raft.SnapshotSink) error {
	if _, err := s.WriteTo(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return nil
}
