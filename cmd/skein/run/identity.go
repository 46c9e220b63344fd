package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/skein-mqtt/skein/cluster"
)

// nodeID is the node's name: the configured one, else the one that the data folder was made with,
// else the host's. A data folder belongs to one name for ever: under another one the node would
// be taken for a new member that holds an old member's log.
func nodeID(configured, dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "node-id"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("data.dir: %w", err)
	}
	stored := strings.TrimSpace(string(data))
	switch {
	case stored == "" && configured == "":
		host, err := os.Hostname()
		if err != nil || host == "" {
			return "", errors.New("node.id: this host has no name: give the node one with --node-id")
		}
		return host, nil
	case stored == "":
		return configured, nil
	case configured != "" && configured != stored:
		return "", fmt.Errorf("node.id: %s holds the data of node %q, not of %q: name another folder with --data, or leave --node-id out", dir, stored, configured)
	}
	return stored, nil
}

// keepID writes the name into the data folder. Called when the folder is locked.
func keepID(id, dir string) error {
	path := filepath.Join(dir, "node-id")
	if data, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(data)) == id {
		return nil
	}
	if err := cluster.WriteFile(path, []byte(id+"\n")); err != nil {
		return fmt.Errorf("data.dir: %w", err)
	}
	return nil
}
