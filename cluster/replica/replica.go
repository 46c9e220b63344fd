package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skein-mqtt/skein/fsm"
)

// Replica is this node's replica of the log.
type Replica struct {
	cfg       Config
	raft      *raft.Raft
	store     *store
	logs      *raft.LogCache // over store
	snapshots *snapshots
	machine   *machine
	keeper    *keeper
	proposer  *proposer
	route     *route

	clock         atomic.Pointer[func() int64]
	snapshotIndex atomic.Uint64
	leaders       atomic.Uint64 // changes of the leader that this node has seen

	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	closing <-chan struct{}
	group   sync.WaitGroup // the replica's own goroutines
	once    sync.Once
	closed  error

	stirred chan struct{} // holds one token: raft's state or its leader may have changed
	halt    chan struct{} // closed when raft has shut down

	mu      sync.Mutex
	opened  bool           // Open has raft running
	failed  error          // the first fatal error
	shut    bool           // nothing is handed to raft any more
	pending sync.WaitGroup // what raft has to answer; added to with mu held
}

// Open opens the replica's files, or makes them, and starts raft. A new replica waits until somebody
// bootstraps it or a leader makes it a member.
func Open(cfg Config) (_ *Replica, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &Replica{
		cfg: cfg, keeper: newKeeper(cfg.SnapshotBytes), proposer: newProposer(cfg.BatchBytes, cfg.Window),
		route: newRoute(), stirred: make(chan struct{}, 1), halt: make(chan struct{}),
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.closing = r.ctx.Done()
	r.SetClock(nil)
	defer func() {
		if err != nil {
			r.stop()
			if r.store != nil && r.raft == nil {
				err = errors.Join(err, r.store.close())
			}
		}
	}()
	r.machine = &machine{r: r, nudge: func(uint64, uint64) {}}
	if t, ok := cfg.Transport.(*Transport); ok {
		r.machine.nudge = t.Applied
		t.Pace(cfg.LeaderLease)
	}
	if err := r.openFiles(); err != nil {
		return nil, err
	}
	if err := r.openRaft(); err != nil {
		return nil, err
	}
	r.group.Go(r.watch)
	r.group.Go(r.carry)
	r.group.Go(r.keepSnapshots)
	if err := r.running(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// fatal reports the first error after which this node must stop: to the hook, or by Open.
func (r *Replica) fatal(err error) {
	r.mu.Lock()
	report := r.opened && r.failed == nil && !r.isClosing()
	if r.failed == nil {
		r.failed = err
	}
	r.mu.Unlock()
	if report {
		r.cfg.Logger.Error("the replica of the log has failed: this node must stop", "error", err)
		r.cfg.Hooks.Fatal(err)
	}
}

// running notes that raft runs, and returns what has failed until then.
func (r *Replica) running() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened = true
	return r.failed
}

func (r *Replica) openFiles() (err error) {
	dir := filepath.Join(r.cfg.Dir, "raft")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	if r.store, err = openStore(dir, r.fatal); err != nil {
		return err
	}
	if r.logs, err = raft.NewLogCache(cachedEntries, r.store); err != nil {
		return err
	}
	first, err := r.store.FirstIndex()
	if err != nil {
		return damaged(r.store.path, err)
	}
	if r.snapshots, err = openSnapshots(dir, r.cfg.raft(), first == 0); err != nil {
		return err
	}
	for _, d := range []string{dir, r.cfg.Dir} { // the files' own names, too, have to survive
		if err := SyncFolder(d); err != nil {
			return err
		}
	}
	return r.check(first)
}

// SyncFolder puts the names in a folder on the disk.
func SyncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// check finds a log that does not go on where the newest snapshot ends: raft would panic when it gets there.
func (r *Replica) check(first uint64) error {
	taken, err := r.snapshots.newest()
	if err != nil {
		return err
	}
	if first > taken+1 {
		return damaged(r.store.path, fmt.Errorf("it begins at entry %d, but the newest snapshot in %s ends at %d", first, r.snapshots.dir, taken))
	}
	return nil
}

// openRaft starts raft, which restores the newest snapshot and reads the log behind it.
func (r *Replica) openRaft() error {
	err := guard(func() (err error) {
		r.raft, err = raft.NewRaft(r.cfg.raft(), r.machine, r.logs, r.store, r.snapshots, r.cfg.Transport)
		return err
	})
	r.snapshots.starting = false
	switch {
	case err == nil:
	case r.snapshots.damage != nil:
		return r.snapshots.damage
	case r.machine.dead != nil:
		return r.snapshots.broken(r.snapshots.dir, r.machine.dead)
	default:
		return damaged(r.store.path, err)
	}
	r.store.raft.Store(true)
	r.raft.RegisterObserver(raft.NewObserver(nil, false, func(*raft.Observation) bool {
		r.stir()
		return false
	}))
	r.stir()
	return nil
}

// wait tells when a group is done.
func wait(g *sync.WaitGroup) <-chan struct{} {
	done := make(chan struct{})
	go func() { // ends with what the group counts
		g.Wait()
		close(done)
	}()
	return done
}

func (r *Replica) isClosing() bool { return r.ctx.Err() != nil }

// pause waits, and tells whether the replica still runs.
func (r *Replica) pause(d time.Duration) bool {
	select {
	case <-r.closing:
		return false
	case <-time.After(d):
		return true
	}
}

// Close stops the replica and returns when nothing of it runs any more. Commands without a result have
// their done called with ErrClosed. It closes the transport.
func (r *Replica) Close() error {
	r.once.Do(func() {
		r.stop()
		r.mu.Lock()
		r.shut = true
		r.mu.Unlock()
		// Raft must answer everything before it is shut down: it forgets what it holds then, and who waits
		// would wait for ever. It does so at the latest when it loses its majority.
		select {
		case <-wait(&r.pending):
		case <-r.store.halted: // then nothing is answered any more
		}
		down := r.raft.Shutdown()
		if t, ok := r.cfg.Transport.(interface{ Interrupt() }); ok {
			t.Interrupt()
		}
		r.closed = down.Error()
		close(r.halt)
		r.group.Wait()
		r.End(ErrClosed)
		r.closed = errors.Join(r.closed, r.store.close())
	})
	return r.closed
}

// enter announces a question to raft that leave ends. false: the replica is closed.
func (r *Replica) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shut {
		return false
	}
	r.pending.Add(1)
	return true
}

func (r *Replica) leave() { r.pending.Done() }

// explain makes raft's errors the package's own.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.Is(err, raft.ErrCantBootstrap):
		return ErrHasState
	}
	return fmt.Errorf("replica: %w", err)
}

// submit puts an entry into the log of this node, which leads, and returns when raft has it in its queue.
// done runs on a goroutine of its own when the entry was applied here, or with what became of it instead;
// it may be in the log all the same.
func (r *Replica) submit(entry []byte, done func(index uint64, err error)) error {
	if !r.enter() {
		return ErrClosed
	}
	future := r.raft.ApplyLog(raft.Log{Data: entry}, 0)
	go func() { // Close waits for it
		defer r.leave()
		err := future.Error()
		if err == nil {
			err, _ = future.Response().(error)
		}
		if err != nil {
			done(0, explain(err))
			return
		}
		done(future.Index(), nil)
	}()
	return nil
}

// append puts a batch into the log of this node, which leads. See submit.
func (r *Replica) append(batch []byte, done func(error)) error {
	entry := fsm.EncodeBatch(make([]byte, 0, len(batch)+64), r.now(), batch)
	return r.submit(entry, func(_ uint64, err error) { done(err) })
}
