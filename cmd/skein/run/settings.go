package run

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

// changeable are the keys that may be changed while the node runs, and what makes the change. Called with
// the settings' mutex held.
var changeable = map[string]func(n *node, c *config.Config){
	"log.level": func(n *node, c *config.Config) { _ = n.level.UnmarshalText([]byte(c.Log.Level)) }, // Validate knows it
	"drain.rate": func(n *node, c *config.Config) {
		n.drain.adjust(func(d *drain) { d.rate = c.Drain.Rate })
	},
	"drain.timeout": func(n *node, c *config.Config) {
		n.drain.adjust(func(d *drain) { d.timeout = c.Drain.Timeout })
	},
	"drain.notice": func(n *node, c *config.Config) {
		n.drain.adjust(func(d *drain) { d.notice = c.Drain.Notice })
	},
	"drain.client_timeout": func(n *node, c *config.Config) {
		n.drain.adjust(func(d *drain) { d.patience = c.Drain.ClientTimeout })
	},
}

// Settings implements admin.Local.
func (l local) Settings(prefix string) (list []*adminpb.Setting) {
	n := l.n
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range config.Keys() {
		if strings.HasPrefix(k.Name, prefix) {
			list = append(list, n.setting(k, n.now))
		}
	}
	return list
}

// setting is a key's row with the value of a configuration. Called with mu held.
func (n *node) setting(k config.Key, c *config.Config) *adminpb.Setting {
	return &adminpb.Setting{
		Node: n.id, Key: k.Name, Value: c.Text(k), Configured: n.cfg.Text(k), Changeable: changeable[k.Name] != nil,
		Doc: strings.ReplaceAll(k.Doc, "\n", " "),
	}
}

// Set implements admin.Local.
func (l local) Set(key, value string, dryRun bool) (*adminpb.Setting, error) {
	n := l.n
	n.mu.Lock()
	defer n.mu.Unlock()
	c, err := n.now.With(key, value)
	if err != nil {
		return nil, err
	}
	change := changeable[key]
	if change == nil {
		return nil, fmt.Errorf("%s can't be changed while a node runs, but %s: change the configuration and restart the node",
			key, strings.Join(slices.Sorted(maps.Keys(changeable)), ", "))
	}
	if !dryRun {
		change(n, c)
		n.now = c
	}
	for _, k := range config.Keys() {
		if k.Name == key {
			return n.setting(k, c), nil
		}
	}
	return nil, nil // With knows the key
}

// cordonFile is in the data folder while the node is cordoned: it stays so over a restart.
const cordonFile = "cordoned"

// Cordon implements admin.Local.
func (l local) Cordon(on, dryRun bool) (changed bool, err error) {
	n := l.n
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.broker.Cordoned()
	if was == on || dryRun {
		return was != on, nil
	}
	path := filepath.Join(n.cfg.Data.Dir, cordonFile)
	if on {
		err = os.WriteFile(path, nil, 0o600)
	} else if err = os.Remove(path); os.IsNotExist(err) {
		err = nil
	}
	if err != nil {
		return false, fmt.Errorf("data.dir: %w", err)
	}
	n.broker.Cordon(on)
	n.logger.Warn("an operator's order", "cordoned", on)
	return true, nil
}

// cordoned tells whether the node was cordoned before it was restarted.
func cordoned(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, cordonFile))
	return err == nil
}

// Shed implements admin.Local.
func (l local) Shed(ctx context.Context, count, rate int, progress func(total, left int)) {
	l.n.broker.Shed(ctx, count, rate, l.n.drain.clientPatience(), progress)
}
