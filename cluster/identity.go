package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Files of the data folder that say where the node belongs.
const (
	identityFile = "cluster-id"
	founderFile  = "founder"
)

// identity is which cluster the data folder belongs to: the store id of the node that founded it, a
// random name. It implements peer.Identity.
type identity struct {
	folder *folder

	mu sync.Mutex
	id string
}

func loadIdentity(f *folder) (*identity, error) {
	id, err := f.read(identityFile)
	return &identity{folder: f, id: id}, err
}

// Get is the identity; empty: none yet.
func (i *identity) Get() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.id
}

// Adopt makes id the folder's, unless it has one.
func (i *identity) Adopt(id string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.id != "" {
		return nil
	}
	if err := i.folder.write(identityFile, id); err != nil {
		return err
	}
	i.id = id
	return nil
}

// read is the content of a small file; empty: there is none.
func (f *folder) read(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("data folder: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func (f *folder) write(name, value string) error {
	return WriteFile(filepath.Join(f.dir, name), []byte(value+"\n"))
}
