package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
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

	closed  atomic.Bool
	raft    atomic.Bool   // raft runs: see halt
	halted  chan struct{} // closed by the first halt
	once    sync.Once
	writing timing // of entries, fsync included
}

func openStore(dir string, fail func(error)) (*store, error) {
	s := &store{path: filepath.Join(dir, "log.db"), fail: fail, halted: make(chan struct{})}
	if err := verifyPages(s.path); errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("replica: open the log: %w", err)
	} else if err != nil {
		return nil, damaged(s.path, err)
	}
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

// guard turns a panic into an error: bbolt and raft panic on files that they can't read, or reach for
// memory that is not there.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
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

// halt ends the calling goroutine, after what it has deferred, if it is one of raft's: for errors over
// which raft would panic, and take the process with it before that has said why it ends.
func (s *store) halt() {
	if s.raft.Load() {
		s.once.Do(func() { close(s.halted) })
		runtime.Goexit()
	}
}

// FirstIndex implements raft.LogStore.
func (s *store) FirstIndex() (i uint64, err error) {
	err = guard(func() (err error) { i, err = s.bolt.FirstIndex(); return err })
	return i, s.read(err)
}

// LastIndex implements raft.LogStore.
func (s *store) LastIndex() (i uint64, err error) {
	err = guard(func() (err error) { i, err = s.bolt.LastIndex(); return err })
	return i, s.read(err)
}

// GetLog implements raft.LogStore.
func (s *store) GetLog(index uint64, log *raft.Log) error {
	err := guard(func() error { return s.bolt.GetLog(index, log) })
	if errors.Is(err, raft.ErrLogNotFound) && s.holds(index) { // others may have been replacing the end of the log
		err = guard(func() error { return s.bolt.GetLog(index, log) })
	}
	switch {
	case err == nil && (log.Index != index || !bytes.Equal(log.Extensions, seal(log))):
		err = fmt.Errorf("entry %d is not what was written: its checksum is another", index)
	case errors.Is(err, raft.ErrLogNotFound) && s.holds(index):
		err = fmt.Errorf("entry %d is missing", index)
	}
	if s.read(err) != nil && !errors.Is(err, raft.ErrLogNotFound) {
		s.halt()
	}
	log.Extensions = nil
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal is the checksum that an entry has on the disk, in the place of its extensions, of which we have none.
func seal(log *raft.Log) []byte {
	var head [17]byte
	binary.BigEndian.PutUint64(head[:], log.Index)
	binary.BigEndian.PutUint64(head[8:], log.Term)
	head[16] = byte(log.Type)
	return binary.BigEndian.AppendUint32(nil, crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, log.Data))
}

// holds tells whether an entry is among those that are there.
func (s *store) holds(index uint64) bool {
	first, err := s.FirstIndex()
	if err != nil || first == 0 || index < first {
		return false
	}
	last, err := s.LastIndex()
	return err == nil && index <= last
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore. It returns when the entries are on the disk.
func (s *store) StoreLogs(logs []*raft.Log) error {
	start := time.Now()
	sealed, list := make([]raft.Log, len(logs)), make([]*raft.Log, len(logs))
	for i, log := range logs { // raft shares them with others
		sealed[i] = *log
		sealed[i].Extensions = seal(log)
		list[i] = &sealed[i]
	}
	err := s.wrote(guard(func() error { return s.bolt.StoreLogs(list) }))
	s.writing.add(time.Since(start))
	return err
}

// DeleteRange implements raft.LogStore.
func (s *store) DeleteRange(lo, hi uint64) error {
	return s.wrote(guard(func() error { return s.bolt.DeleteRange(lo, hi) }))
}

// Set implements raft.StableStore.
func (s *store) Set(key, value []byte) error {
	value = binary.BigEndian.AppendUint32(slices.Clone(value), checksum(key, value))
	return s.wrote(guard(func() error { return s.bolt.Set(key, value) }))
}

// checksum is of a variable and its name: a vote or a term that is another one would split the cluster.
func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// Get implements raft.StableStore.
func (s *store) Get(key []byte) (v []byte, err error) {
	err = guard(func() (err error) { v, err = s.bolt.Get(key); return err })
	if err == nil {
		n := len(v) - 4
		if n < 0 || binary.BigEndian.Uint32(v[n:]) != checksum(key, v[:n]) {
			return nil, s.read(fmt.Errorf("%s is not what was written: its checksum is another", key))
		}
		v = v[:n]
	}
	return v, s.read(err)
}

// SetUint64 implements raft.StableStore.
func (s *store) SetUint64(key []byte, value uint64) error {
	err := s.Set(key, binary.BigEndian.AppendUint64(nil, value))
	if err != nil {
		s.halt()
	}
	return err
}

// GetUint64 implements raft.StableStore.
func (s *store) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err == nil && len(v) != 8 {
		err = s.read(fmt.Errorf("%s has %d bytes instead of 8", key, len(v)))
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
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
