package replica

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// written makes a server with a snapshot and a log, and closes it.
func written(t *testing.T) *node {
	t.Helper()
	w := newWorld(t, 1, func(c *Config) { c.SnapshotBytes, c.BatchBytes = 16<<10, 4<<10 })
	n := w.leader()
	w.up(n)
	w.session(n)
	truncated := func() bool {
		first, err := n.store.FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		return first > 1
	}
	for i := 0; !truncated() || n.Stats().ToSnapshot > 8<<10; i++ {
		n.publish(1+200*i, 200).wait()
	}
	n.close()
	return n
}

func snapshotFolders(t *testing.T, n *node) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(n.dir, "raft", "snapshots", "*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("snapshots %v, %v", list, err)
	}
	return list
}

func TestDamagedFilesAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, n *node)
		want   []string
	}{
		"snapshot": {func(t *testing.T, n *node) {
			for _, dir := range snapshotFolders(t, n) {
				flip(t, filepath.Join(dir, "state.bin"), 20)
			}
		}, []string{"snapshots", "move that folder away"}},
		"its description": {func(t *testing.T, n *node) {
			for _, dir := range snapshotFolders(t, n) {
				if err := os.WriteFile(filepath.Join(dir, "meta.json"), []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}, []string{"snapshots", "meta.json"}},
		"snapshots are gone": {func(t *testing.T, n *node) {
			for _, dir := range snapshotFolders(t, n) {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
		}, []string{"log.db", "it begins at entry"}},
		"log": {func(t *testing.T, n *node) {
			path := filepath.Join(n.dir, "raft", "log.db")
			flip(t, path, 24)
			flip(t, path, 24+os.Getpagesize())
		}, []string{"log.db", "remove the data folder"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := written(t)
			c.damage(t, n)
			err := n.tryOpen()
			if err == nil {
				n.close()
				t.Fatal("it starts")
			}
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("error %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if n.fatals.Load() != 0 {
				t.Error("Fatal was called for an error that Open returns")
			}
		})
	}
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 0xff
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOlderSnapshotWillDo(t *testing.T) {
	n := written(t)
	list := snapshotFolders(t, n)
	if len(list) != keptSnapshots {
		t.Fatalf("%d snapshots are kept", len(list))
	}
	applied := n.Applied()
	if err := os.RemoveAll(list[1]); err != nil { // the log reaches back to the one before
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(filepath.Dir(list[0]), "9-9-9.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.open()
	n.w.leader()
	n.w.until("the log is applied", func() bool { return n.Applied() >= applied })
	if strings.Contains(strings.Join(snapshotFolders(t, n), " "), "9-9-9.tmp") {
		t.Error("an unfinished snapshot is left")
	}
}

func TestLogIsBounded(t *testing.T) {
	n := written(t)
	n.open()
	n.w.leader()
	n.w.up(n)
	for i := range 60 { // some 15 snapshots' worth
		n.publish(100_000+200*i, 200).wait()
	}
	n.w.until("old entries are dropped", func() bool {
		first, err := n.store.FirstIndex()
		return err == nil && n.Stats().LastIndex-first < 40
	})
	if size := n.Stats().LogBytes; size == 0 || size > 1<<20 {
		t.Errorf("the log has %d bytes", size)
	}
}

func TestDiskErrorsAreFatal(t *testing.T) {
	w := newWorld(t, 1, nil)
	n := w.leader()
	w.up(n)
	if err := n.store.bolt.Close(); err != nil { // every write fails from now on
		t.Fatal(err)
	}
	n.publish(1, 1)
	w.until("it is reported", func() bool { return n.fatals.Load() > 0 })
	n.close()
	if !strings.Contains(n.fatal.Error(), "log.db") || n.fatals.Load() != 1 {
		t.Errorf("%d times: %v", n.fatals.Load(), n.fatal)
	}
}

// TestTermThatCannotBeKept: raft panics when it can't write its term down. The node says what is wrong,
// and ends in order, whether it leads or follows.
func TestTermThatCannotBeKept(t *testing.T) {
	for _, leads := range []bool{false, true} {
		t.Run(map[bool]string{false: "follower", true: "leader"}[leads], func(t *testing.T) {
			w := newWorld(t, 3, nil)
			leader := w.leader()
			w.up(leader)
			n := leader
			if !leads {
				n = w.all[(slices.Index(w.all, leader)+1)%3]
			}
			if err := n.store.bolt.Close(); err != nil {
				t.Fatal(err)
			}
			if leads {
				leader.publish(1, 1)
			} else {
				leader.close() // the others go on with another term
			}
			w.until("it is reported", func() bool { return n.fatals.Load() > 0 })
			<-n.store.halted
			n.close()
			if !strings.Contains(n.fatal.Error(), "log.db") || n.fatals.Load() != 1 {
				t.Errorf("%d times: %v", n.fatals.Load(), n.fatal)
			}
		})
	}
}

func TestTwoProcessesOnOneLog(t *testing.T) {
	w := newWorld(t, 1, nil)
	n := w.all[0]
	_, err := openStore(filepath.Join(n.dir, "raft"), func(error) {})
	if err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("error %v", err)
	}
}

func TestConfig(t *testing.T) {
	if _, err := Open(Config{}); err == nil {
		t.Error("an empty configuration is fine")
	}
	w := newWorld(t, 1, nil)
	cfg := w.all[0].cfg
	cfg.Election = cfg.Heartbeat / 2
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "timeouts") {
		t.Errorf("error %v", err)
	}
}

// TestHalfASnapshot: a crash while a snapshot is made or removed leaves a folder without one of its files.
// It is not the disk's fault, and the node starts with the one before, if the log goes on from there.
func TestHalfASnapshot(t *testing.T) {
	for _, missing := range []string{"meta.json", "state.bin"} {
		t.Run(missing, func(t *testing.T) {
			n := written(t)
			half := filepath.Join(n.dir, "raft", "snapshots", "9-1-1")
			if err := os.Mkdir(half, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"meta.json", "state.bin"} {
				if name == missing {
					continue
				}
				if err := os.WriteFile(filepath.Join(half, name), []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := n.tryOpen(); err != nil {
				t.Fatal(err)
			}
			n.close()
			if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
		})
	}
}

// TestSealed: a bit that turns in an entry or in one of raft's variables is noticed.
func TestSealed(t *testing.T) {
	dir := t.TempDir()
	var failed error
	s, err := openStore(dir, func(err error) { failed = errors.Join(failed, err) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for name, turn := range map[string]func(*raft.Log){
		"index": func(l *raft.Log) { l.Index ^= 64 },
		"term":  func(l *raft.Log) { l.Term ^= 1 },
		"type":  func(l *raft.Log) { l.Type ^= 1 },
		"data":  func(l *raft.Log) { l.Data[3] ^= 16 },
		"none":  func(*raft.Log) {},
	} {
		failed = nil
		if err := s.StoreLog(&raft.Log{Index: 5, Term: 7, Data: []byte("data")}); err != nil {
			t.Fatal(err)
		}
		var l raft.Log
		if err := s.bolt.GetLog(5, &l); err != nil {
			t.Fatal(err)
		}
		turn(&l)
		if err := s.bolt.StoreLog(&l); err != nil {
			t.Fatal(err)
		}
		err := s.GetLog(l.Index, &l)
		if bad := name != "none"; bad != errors.Is(failed, ErrDamaged) || bad != (err != nil) {
			t.Errorf("%s: %v, reported %v", name, err, failed)
		}
	}
	for _, value := range []uint64{9, 1 << 40} {
		failed = nil
		key := []byte("CurrentTerm")
		if err := s.SetUint64(key, value); err != nil {
			t.Fatal(err)
		}
		if got, err := s.GetUint64(key); err != nil || got != value {
			t.Errorf("%d, %v, want %d", got, err, value)
		}
		raw, err := s.bolt.Get(key)
		if err != nil {
			t.Fatal(err)
		}
		raw[7] ^= 2
		if err := s.bolt.Set(key, raw); err != nil {
			t.Fatal(err)
		}
		if got, err := s.GetUint64(key); !errors.Is(failed, ErrDamaged) || err == nil {
			t.Errorf("a term that turned from %d to %d is fine", value, got)
		}
	}
}

// TestStateThatIsGone: the log was dropped for a snapshot which then lost a file. The node must not start as if
// it had promised nothing.
func TestStateThatIsGone(t *testing.T) {
	n := written(t)
	s, err := openStore(filepath.Join(n.dir, "raft"), func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if err := errors.Join(s.DeleteRange(first, last), s.close()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range snapshotFolders(t, n) {
		if err := os.Remove(filepath.Join(dir, "state.bin")); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // nor when it is started again
		if err := n.tryOpen(); !errors.Is(err, ErrDamaged) {
			t.Errorf("error %v", err)
			if err == nil {
				n.close()
			}
		}
	}
}
