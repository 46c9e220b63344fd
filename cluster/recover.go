package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/skein-mqtt/skein/cluster/replica"
	"github.com/skein-mqtt/skein/fsm"
)

// recoveringFile holds the store id of the node that is just founding the cluster anew. While it is there the
// node does not start.
const recoveringFile = "recovering"

// ErrRecovering: the founding of a new cluster from this data folder was interrupted.
var ErrRecovering = errors.New("cluster: the founding of a new cluster from this data folder was interrupted: run 'skein recover --force-new-cluster' on it again")

// Recovery is a stopped node's data folder, locked, from which a new cluster may be founded when a majority of
// the old one is lost for good.
type Recovery struct {
	folder *folder
	node   string
	self   replica.Server // in the old cluster
	found  *replica.Survey
}

// OpenRecovery locks a stopped node's data folder and reads all of its log. It changes nothing. It fails with
// ErrLocked while the node runs.
func OpenRecovery(dir, node string) (_ *Recovery, err error) {
	if _, err := os.Stat(filepath.Join(dir, "store-id")); err != nil { // opening would make it
		return nil, fmt.Errorf("data folder: %s is not one of a node: %w", dir, err)
	}
	r := &Recovery{node: node}
	if r.folder, err = openFolder(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.folder.close())
		}
	}()
	if err := r.folder.sound(); err != nil {
		return nil, err
	}
	if r.found, err = replica.Look(dir, serverID(node, r.folder.store), fsm.New(node)); err != nil {
		return nil, err
	}
	for _, s := range r.found.Servers {
		if nodeOf(s.ID) == node {
			r.self = s
		}
	}
	if r.self.ID == "" {
		return nil, fmt.Errorf("%s is no member of the cluster whose log it holds: nothing can be made of it", node)
	}
	return r, nil
}

// Survey is what the data folder holds.
func (r *Recovery) Survey() (state *fsm.FSM, index, term uint64) {
	return r.found.FSM, r.found.Last, r.found.Term
}

// Members are the nodes of the cluster as the data folder knows it, with their roles: RoleFollower or
// RoleNonvoter.
func (r *Recovery) Members() (out []NodeInfo) {
	for _, s := range r.found.Servers {
		role := RoleNonvoter
		if s.Voter {
			role = RoleFollower
		}
		out = append(out, NodeInfo{ID: nodeOf(s.ID), Role: role, PeerAddress: s.Address})
	}
	return out
}

// Force founds a new cluster of this node alone, with what its data folder holds. The node gets another
// identity: the rest of the old cluster is refused, should it come back. An interrupted one is to be done again.
func (r *Recovery) Force() error {
	store, err := r.folder.read(recoveringFile)
	if err != nil {
		return err
	}
	if store == "" {
		var id [8]byte
		rand.Read(id[:])
		store = hex.EncodeToString(id[:])
		if err := r.folder.write(recoveringFile, store); err != nil {
			return err
		}
	}
	self := replica.Server{ID: serverID(r.node, store), Address: r.self.Address, Voter: true}
	if err := replica.Refound(r.folder.dir, self, fsm.New(r.node)); err != nil {
		return err
	}
	if err := r.folder.write(identityFile, store); err != nil {
		return err
	}
	if err := r.folder.write("store-id", store); err != nil {
		return err
	}
	for _, name := range []string{founderFile, recoveringFile} {
		if err := os.Remove(filepath.Join(r.folder.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("data folder: %w", err)
		}
	}
	return replica.SyncFolder(r.folder.dir)
}

// Close unlocks the data folder.
func (r *Recovery) Close() error { return r.folder.close() }
