package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Available says why there can be no Disk here; nil: there can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("a disk that fails needs root, to mount it")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("a disk that fails needs FUSE: %w", err)
	}
	return f.Close()
}

// Disk is a mounted folder. Its methods are safe for concurrent use.
type Disk struct {
	at, store, trash string
	server           *fuse.Server

	mu       sync.Mutex
	unsynced map[uint64]*image // by inode
	changes  []change          // of names, whose folder was not synced since
	removed  int               // files in trash
	full     bool
	broken   bool
	stats    Stats
}

// Stats is what a disk has done.
type Stats struct {
	Writes, Syncs  uint64
	Refused        uint64 // for want of room, or because it can't sync
	Forgotten      uint64 // bytes, in all power cuts
	NamesForgotten uint64
	Cuts           uint64
}

// Mount mounts a disk at a folder, which is made. What it holds is kept beside it, in at + ".store".
func Mount(at string) (*Disk, error) {
	d := &Disk{at: at, store: at + ".store", trash: at + ".trash", unsynced: make(map[uint64]*image)}
	for _, dir := range []string{d.at, d.store, d.trash} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("disk: %w", err)
		}
	}
	return d, d.mount()
}

func (d *Disk) mount() error {
	zero := time.Duration(0)
	root := &fs.LoopbackRoot{Path: d.store}
	root.RootNode = &node{LoopbackNode: fs.LoopbackNode{RootData: root}, disk: d}
	server, err := fs.Mount(d.at, root.RootNode, &fs.Options{
		EntryTimeout: &zero, AttrTimeout: &zero,
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: d.store, Name: "faulty", DisableXAttrs: true},
	})
	if err != nil {
		return fmt.Errorf("disk: mount %s: %w", d.at, err)
	}
	d.server = server
	return nil
}

// Full makes every write that needs room fail with ENOSPC, or not any more.
func (d *Disk) Full(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// Broken makes every fsync fail with EIO, or not any more. What was to be synced stays unsynced.
func (d *Disk) Broken(broken bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = broken
}

// Stats is what the disk has done so far.
func (d *Disk) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// sync tells whether an fsync succeeds, and counts it. Called with mu held.
func (d *Disk) sync() syscall.Errno {
	if d.broken {
		d.stats.Refused++
		return syscall.EIO
	}
	d.stats.Syncs++
	return 0
}

// Cut cuts the power: of what is not synced, rng decides what is left. Nobody may use the disk meanwhile.
func (d *Disk) Cut(rng *rand.Rand) error {
	if err := d.unmount(); err != nil {
		return err
	}
	d.mu.Lock()
	err := d.forget(rng)
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("disk: power cut: %w", err)
	}
	return d.mount()
}

// Wipe leaves the disk empty, for good. Nobody may use it meanwhile.
func (d *Disk) Wipe() error {
	if err := d.unmount(); err != nil {
		return err
	}
	d.mu.Lock()
	err := errors.Join(d.release(), os.RemoveAll(d.store), os.RemoveAll(d.trash), os.Mkdir(d.store, 0o700), os.Mkdir(d.trash, 0o700))
	d.changes = nil
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("disk: wipe: %w", err)
	}
	return d.mount()
}

// release forgets what is not synced, as if it were. Called with mu held.
func (d *Disk) release() error {
	var errs []error
	for ino, i := range d.unsynced {
		errs = append(errs, i.file.Close())
		delete(d.unsynced, ino)
	}
	return errors.Join(errs...)
}

func (d *Disk) unmount() error {
	var err error
	for range 100 { // the process that used it may just be ending
		if err = d.server.Unmount(); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("disk: unmount %s: %w", d.at, err)
}

// Close unmounts the disk. What it held stays in the folder beside it.
func (d *Disk) Close() error {
	err := d.unmount()
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(err, d.release(), os.RemoveAll(d.trash), os.Remove(d.at))
}

// Store is the folder that holds what is on the disk, whatever was synced.
func (d *Disk) Store() string { return d.store }

// change is one of a name: path was made, removed (kept in trash), or came from another path.
type change struct {
	path string // relative
	from string // renamed: relative
	kept string // what was there before, in trash; empty: nothing
}

func (c *change) undo(d *Disk) error {
	path := filepath.Join(d.store, c.path)
	err := error(nil)
	switch {
	case c.from != "":
		err = os.Rename(path, filepath.Join(d.store, c.from))
	case c.kept == "":
		return os.RemoveAll(path)
	}
	if c.kept != "" {
		err = errors.Join(err, os.Rename(c.kept, path))
	}
	if _, gone := os.Stat(filepath.Dir(path)); errors.Is(gone, os.ErrNotExist) {
		return nil // its folder was removed for good
	}
	return err
}

// moved keeps the changes of names in a folder at hand when that gets another name itself. Called with mu held.
func moved(changes []change, from, to string) {
	for i := range changes {
		for _, path := range []*string{&changes[i].path, &changes[i].from} {
			if rest, ok := strings.CutPrefix(*path, from+"/"); ok {
				*path = filepath.Join(to, rest)
			}
		}
	}
}

// keep moves a file out of the way, so that it can come back. It returns where it is. Called with mu held.
func (d *Disk) keep(path string) (string, error) {
	d.removed++
	kept := filepath.Join(d.trash, fmt.Sprint(d.removed))
	return kept, os.Rename(path, kept)
}

// forget is what a power cut does. Called with mu held.
func (d *Disk) forget(rng *rand.Rand) error {
	d.stats.Cuts++
	var errs []error
	for ino, i := range d.sorted() {
		n, err := i.restore(rng)
		d.stats.Forgotten += n
		errs = append(errs, err, i.file.Close())
		delete(d.unsynced, ino)
	}
	left := rng.IntN(len(d.changes) + 1) // as a journal: the first of them
	for k := len(d.changes) - 1; k >= left; k-- {
		d.stats.NamesForgotten++
		c := &d.changes[k]
		errs = append(errs, c.undo(d))
		if c.from != "" {
			moved(d.changes[:k], c.path, c.from)
		}
	}
	d.changes = nil
	return errors.Join(errs...)
}
