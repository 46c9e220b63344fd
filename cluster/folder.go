package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/skein-mqtt/skein/cluster/replica"
)

// ErrLocked: another process runs on the data folder.
var ErrLocked = errors.New("the data folder is in use")

// folder is the locked data folder.
type folder struct {
	dir   string
	lock  *os.File
	store string // the random id that was made with it
}

// openFolder makes the folder if need be, locks it and reads or makes its id.
func openFolder(dir string) (*folder, error) {
	if err := makeFolder(filepath.Clean(dir)); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer lock.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("data folder %s: lock: %w", dir, err)
		}
		if pid, err := os.ReadFile(lock.Name()); err == nil && strings.TrimSpace(string(pid)) != "" {
			return nil, fmt.Errorf("%w: %s is held by the process %s", ErrLocked, dir, strings.TrimSpace(string(pid)))
		}
		return nil, fmt.Errorf("%w: %s is held by another process", ErrLocked, dir)
	}
	f := &folder{dir: dir, lock: lock}
	if err := f.open(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *folder) open() error {
	// Only for people: the lock itself is the kernel's.
	if err := f.lock.Truncate(0); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if _, err := f.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	path := filepath.Join(f.dir, "store-id")
	data, err := os.ReadFile(path)
	switch {
	case err == nil && strings.TrimSpace(string(data)) != "":
		f.store = strings.TrimSpace(string(data))
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("data folder: %w", err)
	}
	var id [8]byte
	rand.Read(id[:])
	f.store = hex.EncodeToString(id[:])
	return WriteFile(path, []byte(f.store+"\n"))
}

// WriteFile writes a small file so that a power cut leaves all of it or none.
func WriteFile(path string, data []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("data folder: %w", err)
		}
	}()
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return replica.SyncFolder(filepath.Dir(path))
}

// makeFolder is os.MkdirAll, and what it has made survives a power cut.
func makeFolder(path string) error {
	err := os.Mkdir(path, 0o700)
	switch parent := filepath.Dir(path); {
	case err == nil:
		return replica.SyncFolder(parent)
	case errors.Is(err, fs.ErrNotExist) && parent != path:
		if err := makeFolder(parent); err != nil {
			return err
		}
		return makeFolder(path)
	case errors.Is(err, fs.ErrExist):
		if info, statErr := os.Stat(path); statErr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

func (f *folder) close() error { return f.lock.Close() }
