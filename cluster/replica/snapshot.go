package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skein-mqtt/skein/fsm"
)

const (
	// keptSnapshots: the last one, and the one before for as long as it is being sent to somebody.
	keptSnapshots = 2
	// trailingSlack is for entries that are appended while raft turns to its log.
	trailingSlack = 16
	// snapshotAgain is the pause after a snapshot that could not be taken.
	snapshotAgain = time.Second
)

// snapshots are the files of the snapshots.
type snapshots struct {
	*raft.FileSnapshotStore
	dir      string
	starting bool // only the newest is good enough: see List
	damage   error
}

// openSnapshots opens the folder. bare: the log has no entry.
func openSnapshots(dir string, config *raft.Config, bare bool) (*snapshots, error) {
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, config.Logger)
	if err != nil {
		return nil, fmt.Errorf("replica: snapshots in %s: %w", dir, err)
	}
	s := &snapshots{FileSnapshotStore: files, dir: filepath.Join(dir, "snapshots"), starting: true}
	return s, s.sweep(bare)
}

// sweep removes what a crash has left half written or half removed, and finds those that raft would skip
// in silence. Whether the log goes on from the newest that is left is checked afterwards; behind a bare log
// a half snapshot that is newer than all whole ones may be what the log was dropped for, and stays.
func (s *snapshots) sweep(bare bool) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("replica: snapshots: %w", err)
	}
	var half []string
	var whole, lost uint64 // the highest index of either
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		path := filepath.Join(s.dir, e.Name())
		if strings.HasSuffix(path, ".tmp") {
			half = append(half, path)
			continue
		}
		meta, err := os.ReadFile(filepath.Join(path, "meta.json"))
		if err == nil {
			_, err = os.Stat(filepath.Join(path, "state.bin"))
		}
		var term, index uint64
		_, _ = fmt.Sscanf(e.Name(), "%d-%d", &term, &index) // another name says 0: it is no snapshot of raft's
		switch {
		case errors.Is(err, fs.ErrNotExist):
			half, lost = append(half, path), max(lost, index)
		case err != nil:
			return s.broken(path, err)
		case !json.Valid(meta):
			return s.broken(path, errors.New("meta.json can't be read"))
		default:
			whole = max(whole, index)
		}
	}
	if bare && lost > whole {
		return s.broken(s.dir, fmt.Errorf("the log is empty, and the snapshot that ended at %d lacks a file", lost))
	}
	for _, path := range half {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("replica: snapshots: %w", err)
		}
	}
	return nil
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, transport raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil {
		return nil, err
	}
	return &sealed{sink, filepath.Join(s.dir, sink.ID())}, nil
}

// sealed is a snapshot on its way to the disk. Raft syncs its files and the folder of all snapshots, but
// not the snapshot's own: the names in it might not survive.
type sealed struct {
	raft.SnapshotSink
	dir string
}

// Close implements raft.SnapshotSink.
func (s *sealed) Close() error {
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	return SyncFolder(s.dir)
}

// broken is the error for a snapshot that can't be read.
func (s *snapshots) broken(path string, err error) error {
	return fmt.Errorf("%w: snapshot %s: %w; move that folder away: the node then takes the snapshot before it, "+
		"if the log still reaches back so far, else remove the data folder and let the node join as a new server",
		ErrDamaged, path, err)
}

// List implements raft.SnapshotStore. While raft starts it shows the newest alone: an older one may end
// before the log begins, and who moves the newest away should know it.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	list, err := s.FileSnapshotStore.List()
	if s.starting && len(list) > 1 {
		list = list[:1]
	}
	return list, err
}

// Open implements raft.SnapshotStore.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.FileSnapshotStore.Open(id)
	if err != nil {
		err = s.broken(filepath.Join(s.dir, id), err)
		if s.starting {
			s.damage = err
		}
	}
	return meta, r, err
}

// newest is the last index in the newest snapshot, 0: there is none.
func (s *snapshots) newest() (uint64, error) {
	list, err := s.List()
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[0].Index, nil
}

// snapshot is one that raft is about to write.
type snapshot struct {
	*fsm.Snapshot
	r *Replica
}

// Persist implements raft.FSMSnapshot. Entries are applied meanwhile.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.WriteTo(interruptible{sink, s.r.closing}); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	return s.r.persisted(s.Index())
}

// persisted settles how much of the log raft keeps, which it looks at next: all that came after the
// snapshot before. Who is being sent that one finds what follows when it has it, and it is of use if the
// new one can't be read.
func (r *Replica) persisted(index uint64) error {
	before := r.snapshotIndex.Swap(index)
	reload := r.raft.ReloadableConfig()
	reload.TrailingLogs = r.raft.LastIndex() - before + trailingSlack
	if err := r.raft.ReloadConfig(reload); err != nil {
		return fmt.Errorf("replica: trailing entries: %w", err)
	}
	return nil
}

// interruptible fails when the replica closes: a large snapshot would hold that up.
type interruptible struct {
	io.Writer
	closing <-chan struct{}
}

func (w interruptible) Write(p []byte) (int, error) {
	select {
	case <-w.closing:
		return 0, ErrClosed
	default:
		return w.Writer.Write(p)
	}
}

// keeper has a snapshot taken whenever enough log was applied since the last.
type keeper struct {
	limit int64
	due   chan struct{} // holds one token

	bytes atomic.Int64 // applied since the last snapshot began
}

// entryCost is what an entry counts beside its bytes. A node that starts reads the log from the last snapshot on, and a small
// entry takes it as long as a large one, some 70 µs: so it reads 60,000 of them at most, not half a million.
const entryCost = 1 << 10

func newKeeper(limit int64) *keeper { return &keeper{limit: limit, due: make(chan struct{}, 1)} }

// applied counts an entry; called on the applying goroutine.
func (k *keeper) applied(size int) {
	if k.bytes.Add(int64(size)+entryCost) >= k.limit {
		select {
		case k.due <- struct{}{}:
		default:
		}
	}
}

// restored: what was counted is in the snapshot, and raft has dropped the log.
func (k *keeper) restored() {
	k.bytes.Store(0)
}

// keepSnapshots runs until the replica closes.
func (r *Replica) keepSnapshots() {
	for {
		select {
		case <-r.closing:
			return
		case <-r.keeper.due:
		}
		if r.keeper.bytes.Load() < r.keeper.limit {
			continue
		}
		if err := r.snapshot(); err != nil {
			r.cfg.Logger.Warn("no snapshot of the log could be taken; it grows until one can", "folder", r.snapshots.dir, "error", err)
			if !r.pause(snapshotAgain) {
				return
			}
		}
	}
}

// snapshot takes one and has the log before the last one dropped.
func (r *Replica) snapshot() error {
	bytes, start := r.keeper.bytes.Load(), time.Now()
	if err := r.raft.Snapshot().Error(); err != nil {
		if errors.Is(err, raft.ErrNothingNewToSnapshot) || r.isClosing() {
			return nil
		}
		return err
	}
	r.keeper.bytes.Add(-bytes)
	r.cfg.Logger.Debug("snapshot of the log", "index", r.snapshotIndex.Load(), "seconds", time.Since(start).Seconds())
	return nil
}
