package replica

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
