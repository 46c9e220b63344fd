package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// lockPatience is how long another process may take to let go of the log.
	lockPatience = time.Second
	// cachedEntries of the log's end stay in memory: replication reads every entry back.
	cachedEntries = 128
)

// store is the log and raft's few variables, in one bbolt file. It reports what fails: raft itself would
// go on, or panic.
type store struct {
	bolt *raftboltdb.BoltStore
	path string
	fail func(error)

	closed atomic.Bool
	writes atomic.Uint64
	spent  atomic.Int64 // ns in writes, fsync included
}

func openStore(dir string, fail func(error)) (*store, error) {
	s := &store{path: filepath.Join(dir, "log.db"), fail: fail}
	err := guard(func() (err error) {
		s.bolt, err = raftboltdb.New(raftboltdb.Options{
			Path: s.path,
			BoltOptions: &bbolt.Options{
				Timeout: lockPatience, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
			},
		})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("replica: %s is in use by another process: %w", s.path, err)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("replica: open the log: %w", err)
	case err != nil:
		return nil, damaged(s.path, err)
	}
	return s, nil
}

// damaged is the error for a file that can't be read. A server that lost its log has forgotten what it
// promised, so it must not go on under its name.
func damaged(path string, err error) error {
	return fmt.Errorf("%w: %s: %w; check the disk, then restore the file, or remove the data folder and let the node join as a new server", ErrDamaged, path, err)
}

// guard turns a panic into an error: bbolt and raft panic on files that they can't read.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return fn()
}

// IsMonotonic tells raft to drop the whole log when it has installed a snapshot. With a gap instead, a
// follower whose log had diverged can be sent the same snapshot for ever.
func (s *store) IsMonotonic() bool { return true }

// read reports what can't be read. Raft asks for entries that may not be there.
func (s *store) read(err error) error {
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) && !errors.Is(err, raftboltdb.ErrKeyNotFound) && !s.closed.Load() {
		s.fail(damaged(s.path, err))
	}
	return err
}

func (s *store) wrote(err error) error {
	if err != nil && !s.closed.Load() {
		s.fail(fmt.Errorf("replica: write to %s: %w; free or repair the disk, then start the node again", s.path, err))
	}
	return err
}

func (s *store) FirstIndex() (uint64, error) {
	i, err := s.bolt.FirstIndex()
	return i, s.read(err)
}

func (s *store) LastIndex() (uint64, error) {
	i, err := s.bolt.LastIndex()
	return i, s.read(err)
}

func (s *store) GetLog(index uint64, log *raft.Log) error { return s.read(s.bolt.GetLog(index, log)) }

func (s *store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

func (s *store) StoreLogs(logs []*raft.Log) error {
	start := time.Now()
	err := s.wrote(s.bolt.StoreLogs(logs))
	s.writes.Add(1)
	s.spent.Add(int64(time.Since(start)))
	return err
}

func (s *store) DeleteRange(lo, hi uint64) error { return s.wrote(s.bolt.DeleteRange(lo, hi)) }

func (s *store) Set(key, value []byte) error { return s.wrote(s.bolt.Set(key, value)) }

func (s *store) Get(key []byte) ([]byte, error) {
	v, err := s.bolt.Get(key)
	return v, s.read(err)
}

func (s *store) SetUint64(key []byte, value uint64) error {
	return s.wrote(s.bolt.SetUint64(key, value))
}

func (s *store) GetUint64(key []byte) (uint64, error) {
	v, err := s.bolt.GetUint64(key)
	return v, s.read(err)
}

// size is that of the file, which never shrinks: space of deleted entries is used again.
func (s *store) size() int64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func (s *store) close() error {
	s.closed.Store(true)
	return s.bolt.Close()
}
