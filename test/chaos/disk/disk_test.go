//go:build linux

package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
)

func mounted(t *testing.T) *Disk {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	d, err := Mount(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write writes a file and syncs what it is told to.
func write(t *testing.T, path string, data []byte, syncFile, syncFolder bool) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	must(t, err)
	_, err = f.WriteAt(data, 0)
	must(t, err)
	if syncFile {
		must(t, f.Sync())
	}
	must(t, f.Close())
	if syncFolder {
		dir, err := os.Open(filepath.Dir(path))
		must(t, err)
		must(t, dir.Sync())
		must(t, dir.Close())
	}
}

// TestCut: what was synced is there after each power cut, and what was not is there or not.
func TestCut(t *testing.T) {
	old, young := bytes.Repeat([]byte("old "), 4096), bytes.Repeat([]byte("new "), 5000)
	seen := make(map[string]bool)
	for seed := range uint64(12) {
		d := mounted(t)
		path := func(name string) string { return filepath.Join(d.at, name) }
		write(t, path("sure"), old, true, true)
		write(t, path("changed"), old, true, true)
		write(t, path("changed"), young, false, false)
		write(t, path("nameless"), old, true, false)
		must(t, os.Mkdir(path("folder"), 0o700))
		write(t, path("folder/file"), old, true, true)
		must(t, os.Rename(path("sure"), path("moved")))
		must(t, d.Cut(rand.New(rand.NewPCG(seed, 0))))
		_, err := os.Stat(path("sure"))
		back := err == nil
		seen["moved back"] = seen["moved back"] || back
		seen["moved"] = seen["moved"] || !back
		name := map[bool]string{true: "sure", false: "moved"}[back]
		if b, err := os.ReadFile(path(name)); err != nil || !bytes.Equal(b, old) {
			t.Fatalf("seed %d: %s has %d bytes, %v", seed, name, len(b), err)
		}
		b, err := os.ReadFile(path("changed"))
		must(t, err)
		seen["old size"] = seen["old size"] || len(b) == len(old)
		seen["new size"] = seen["new size"] || len(b) == len(young)
		for at := 0; at < len(old); at += sector {
			got := b[at : at+sector]
			switch {
			case bytes.Equal(got, old[at:at+sector]):
				seen["old sector"] = true
			case bytes.Equal(got, young[at:at+sector]):
				seen["new sector"] = true
			default:
				t.Fatalf("seed %d: the sector at %d is neither old nor new", seed, at)
			}
		}
		_, err = os.Stat(path("nameless"))
		seen["nameless gone"] = seen["nameless gone"] || errors.Is(err, os.ErrNotExist)
		_, err = os.Stat(path("folder"))
		seen["folder gone"] = seen["folder gone"] || errors.Is(err, os.ErrNotExist)
	}
	for _, what := range []string{"moved", "moved back", "old size", "new size", "old sector", "new sector", "nameless gone", "folder gone"} {
		if !seen[what] {
			t.Errorf("never seen: %s", what)
		}
	}
}

// TestReplaced: a file that was written anew and renamed over the old one is one of both.
func TestReplaced(t *testing.T) {
	d := mounted(t)
	path := filepath.Join(d.at, "f")
	write(t, path, []byte("old"), true, true)
	for seed := range uint64(10) {
		write(t, path+".new", []byte("new"), true, false)
		must(t, os.Rename(path+".new", path))
		must(t, d.Cut(rand.New(rand.NewPCG(seed, 0))))
		if b, err := os.ReadFile(path); err != nil || string(b) != "old" && string(b) != "new" {
			t.Fatalf("seed %d: %q, %v", seed, b, err)
		}
		write(t, path, []byte("old"), true, true)
	}
}

func TestFullAndBroken(t *testing.T) {
	d := mounted(t)
	f, err := os.Create(filepath.Join(d.at, "f"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("x")
	must(t, err)
	d.Full(true)
	if _, err = f.WriteString("y"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	if err = f.Truncate(1 << 20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("truncate: %v", err)
	}
	if _, err := os.Create(filepath.Join(d.at, "g")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("create: %v", err)
	}
	d.Full(false)
	d.Broken(true)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	d.Broken(false)
	must(t, f.Sync())
}

// TestBolt: a database that syncs keeps what it has committed, whatever is cut. Another process uses it:
// a goroutine that waits for a page of a file in memory would hold up this one, which has to bring it.
func TestBolt(t *testing.T) {
	if path := os.Getenv("TEST_SKEIN_BOLT"); path != "" {
		fill(t, path)
		return
	}
	d := mounted(t)
	path := filepath.Join(d.at, "db")
	write(t, path, nil, true, true)
	for seed := range uint64(5) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestBolt$")
		cmd.Env = append(os.Environ(), "TEST_SKEIN_BOLT="+path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, out)
		}
		must(t, d.Cut(rand.New(rand.NewPCG(seed, 0))))
	}
}

// fill commits 200 keys more, of which all from earlier must be there.
func fill(t *testing.T, path string) {
	db, err := bbolt.Open(path, 0o600, nil)
	must(t, err)
	defer db.Close()
	must(t, db.Update(func(tx *bbolt.Tx) error {
		runs, err := tx.CreateBucketIfNotExists([]byte("runs"))
		if err != nil {
			return err
		}
		run, err := runs.NextSequence()
		if err != nil {
			return err
		}
		keys, err := tx.CreateBucketIfNotExists([]byte("keys"))
		if err != nil {
			return err
		}
		if n := keys.Stats().KeyN; n != 200*int(run-1) {
			t.Errorf("%d keys in run %d", n, run)
		}
		for n := range 200 {
			if err := keys.Put([]byte{byte(run), byte(n)}, make([]byte, 300)); err != nil {
				return err
			}
		}
		return nil
	}))
}
