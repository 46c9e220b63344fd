package run

import (
	"context"
	"fmt"
	"os"

	"github.com/skein-mqtt/skein/cluster"
	"github.com/skein-mqtt/skein/cluster/certs"
	"github.com/skein-mqtt/skein/cluster/membership"
	"github.com/skein-mqtt/skein/node/files"
)

// secure gives the node its certificate and its keys for other nodes, and has them read again when they change.
func (n *node) secure(c *cluster.Config) error {
	cfg := n.cfg
	if cfg.Cluster.Cert != "" {
		watched := newFollower(cfg.Cluster.Cert, cfg.Cluster.Key, cfg.Cluster.CA)
		own, err := certs.Load(certs.Config{
			Cert: cfg.Cluster.Cert, Key: cfg.Cluster.Key, CA: cfg.Cluster.CA, Cluster: cfg.Cluster.Name, Node: n.id, Logger: n.logger,
		})
		if err != nil {
			return err
		}
		c.Security = own
		watched.read = own.Reload
		n.watch(watched)
	}
	if file := cfg.Gossip.KeyFile; file != "" {
		watched := newFollower(file)
		var err error
		if c.GossipKeys, err = gossipKeys(file); err != nil {
			return err
		}
		watched.read = func() { n.rekey(file) }
		n.watch(watched)
	}
	if cfg.Cluster.Insecure && (c.Security == nil || len(c.GossipKeys) == 0) {
		n.logger.Warn("cluster.insecure: nodes talk in plain text; whoever reaches these ports reads and changes everything",
			"peer", cfg.Peer.Listen, "gossip", cfg.Gossip.Listen)
	}
	return nil
}

func gossipKeys(file string) ([][]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("gossip.key_file: %w", err)
	}
	keys, err := membership.ParseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("gossip.key_file: %s: %w: make one with 'skein keyring add'", file, err)
	}
	return keys, nil
}

func (n *node) rekey(file string) {
	keys, err := gossipKeys(file)
	if err == nil {
		err = n.cluster.GossipKeys(keys)
	}
	if err != nil {
		n.logger.Error("the gossip keeps the keys that it has", "error", err)
		return
	}
	n.logger.Info("the keys of gossip were read again", "file", file, "keys", len(keys))
}

// follower has files read again when they change.
type follower struct {
	names  []string
	loaded files.Stamps
	read   func()
}

// newFollower is called before the files are read for the first time.
func newFollower(names ...string) *follower {
	return &follower{names: names, loaded: files.Look(names)}
}

// Reload implements watched.
func (f *follower) Reload() { f.read() }

// Run implements watched.
func (f *follower) Run(ctx context.Context) {
	files.Watch(ctx, 0, f.loaded, func() []string { return f.names }, f.read)
}
