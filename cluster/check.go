package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/cluster/replica"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// ErrQuarantined: this node's replica of the state is not what the others have. It serves nobody, in this
// process and in any later one on the same data folder.
var ErrQuarantined = errors.New("cluster: this node is quarantined")

// quarantineFile says in the data folder why the node may not serve.
const quarantineFile = "quarantined"

const (
	// checkPatience is how long a node waits for the others' digests of an entry, and checkAgain how often it asks.
	checkPatience = time.Minute
	checkAgain    = 500 * time.Millisecond
	// checksKept is how many indexes a leader compares at a time.
	checksKept = 4
)

// checks compare the replicas. Every node takes a snapshot of its state at the first entry of each interval of
// the log's time, which is the same entry everywhere, and tells the leader its digest.
type checks struct {
	slot int64 // of the last entry; the applying goroutine's own

	mu      sync.Mutex
	hashing bool                         // this node computes a digest
	newest  uint64                       // the index of the last one
	told    map[uint64]map[string][]byte // at the leader: index → server → digest
	split   uint64                       // the index at which no majority agreed, said once
	reason  string                       // why this node is quarantined
}

// check is called when an entry has been applied, before the next one is.
func (c *Cluster) check(index uint64) {
	every := c.cfg.CheckInterval.Milliseconds()
	if every <= 0 {
		return
	}
	slot := c.fsm.Now() / every
	if slot == c.checks.slot {
		return
	}
	first := c.checks.slot == 0 // where in its interval this replica began to read is chance
	c.checks.slot = slot
	// Binaries of different feature levels may write the same state differently: in the middle of an upgrade
	// those that are ahead are not compared.
	if first || c.Self().Incarnation == 0 || c.fsm.FeatureLevel() < c.cfg.Features || !c.checks.begin(index) {
		return
	}
	snapshot := c.fsm.Snapshot()
	c.spawn(func() {
		hash := snapshot.Hash()
		snapshot.Release()
		c.checks.hashed()
		c.compare(index, hash[:])
	})
}

// begin tells whether a digest may be computed: one at a time.
func (k *checks) begin(index uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hashing || k.reason != "" {
		return false
	}
	k.hashing, k.newest = true, index
	return true
}

func (k *checks) hashed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hashing = false
}

// current tells whether no later check has begun.
func (k *checks) current(index uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.newest == index
}

// compare asks the leader until it knows whether the others have the same state, or until there is a later check,
// which answers for this one, too. Without a majority that tells its own there is no verdict.
func (c *Cluster) compare(index uint64, hash []byte) {
	for deadline := time.Now().Add(checkPatience); time.Now().Before(deadline); {
		verdict := clusterpb.CheckReply_UNKNOWN
		err := c.ask(c.ctx, func(ctx context.Context, leader authority) (string, bool, error) {
			r, err := leader.Check(ctx, &clusterpb.CheckRequest{Node: c.cfg.NodeID, StoreId: c.folder.store, Index: index, Hash: hash})
			verdict = r.GetVerdict()
			return r.GetLeaderAddr(), err == nil && r.GetLeaderAddr() == "", err
		})
		switch {
		case err == nil && verdict == clusterpb.CheckReply_EQUAL:
			return
		case err == nil && verdict == clusterpb.CheckReply_DIFFERS:
			c.quarantine(index)
			return
		}
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(checkAgain):
		}
		if !c.checks.current(index) {
			return
		}
	}
	c.cfg.Logger.Warn("this node's state was not compared with the others': too few of them told theirs", "index", index)
}

// Check implements clusterpb.PeerServer.
func (s service) Check(_ context.Context, req *clusterpb.CheckRequest) (*clusterpb.CheckReply, error) {
	c := s.c
	if elsewhere, err := c.leads(); err != nil || elsewhere != "" {
		return &clusterpb.CheckReply{LeaderAddr: elsewhere}, err
	}
	servers, err := c.log.Servers()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	id := serverID(req.Node, req.StoreId)
	if !slices.ContainsFunc(servers, func(s replica.Server) bool { return s.ID == id }) {
		return nil, status.Errorf(codes.FailedPrecondition, "%s with the data folder %s is no member", req.Node, req.StoreId)
	}
	verdict, split := c.checks.tell(id, req.Index, req.Hash, servers)
	if split != "" {
		c.cfg.Logger.Error("the nodes' states differ, and no majority agrees on one: compare 'skein get retained' and 'get sessions' of each, "+
			"then stop the wrong ones, clear their data folders and let them join anew", "index", req.Index, "states", split)
	}
	return &clusterpb.CheckReply{Verdict: verdict}, nil
}

// tell notes a server's digest and judges the server by all its digests that are kept. split says, once for an
// index, who has which when all voters have told theirs and no majority agrees.
func (k *checks) tell(id string, index uint64, hash []byte, servers []replica.Server) (verdict clusterpb.CheckReply_Verdict, split string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.told == nil {
		k.told = make(map[uint64]map[string][]byte)
	}
	if k.told[index] == nil {
		k.told[index] = make(map[string][]byte)
	}
	k.told[index][id] = hash
	for len(k.told) > checksKept {
		delete(k.told, slices.Min(slices.Collect(maps.Keys(k.told))))
	}
	for at, by := range k.told {
		if by[id] == nil {
			continue
		}
		agreed, all := majority(by, servers)
		switch {
		case agreed == nil && all && at == index && k.split != index:
			k.split = index
			for _, s := range servers {
				split += fmt.Sprintf("%s %.4x, ", s.ID, by[s.ID])
			}
		case agreed == nil:
		case !bytes.Equal(agreed, by[id]):
			return clusterpb.CheckReply_DIFFERS, ""
		case at == index:
			verdict = clusterpb.CheckReply_EQUAL
		}
	}
	return verdict, split
}

// majority is the digest that a majority of the voters has, if any; all: every voter has told its own.
func majority(by map[string][]byte, servers []replica.Server) (agreed []byte, all bool) {
	voters, told := 0, 0
	count := make(map[string]int)
	for _, s := range servers {
		if s.Voter {
			voters++
			if h := by[s.ID]; h != nil {
				told++
				count[string(h)]++
			}
		}
	}
	for h, n := range count {
		if n > voters/2 {
			agreed = []byte(h)
		}
	}
	return agreed, told == voters
}

// quarantine takes this node out of service for good: what it would tell its clients is wrong. It keeps its
// vote, for its log is what the others have, and hands the leadership over if it has it.
func (c *Cluster) quarantine(index uint64) {
	why := quarantineReason(index)
	c.cfg.Logger.Error("this node is quarantined", "reason", why)
	if err := c.folder.write(quarantineFile, why); err != nil {
		c.fatal(err) // else it would serve again after a restart
	}
	c.early.mu.Lock() // leaderChanged either sees the reason, or has come before
	c.checks.mu.Lock()
	c.checks.reason = why
	c.checks.mu.Unlock()
	c.leader.Change(false, 0)
	c.early.mu.Unlock()
	c.setWaiting(why)
	c.life.expel(c)
	c.abdicate()
}

// abdicate hands the leadership over if this node has it and is quarantined: nobody gets a lease from it. Maintenance
// calls it again until it has worked.
func (c *Cluster) abdicate() {
	if c.Quarantined() != "" && c.log.IsLeader() {
		leaderLog{c}.HandOver()
	}
}

func quarantineReason(index uint64) string {
	return fmt.Sprintf("it is quarantined: at entry %d of the log its state was not that of a majority; "+
		"keep its data folder for a look at the cause, clear it, and let the node join as a new one", index)
}

// Quarantined says why this node may not serve; empty: it may.
func (c *Cluster) Quarantined() string {
	c.checks.mu.Lock()
	defer c.checks.mu.Unlock()
	return c.checks.reason
}

// admitted fails for a data folder whose node may not start.
func (f *folder) admitted() error {
	if store, err := f.read(recoveringFile); err != nil {
		return err
	} else if store != "" {
		return ErrRecovering
	}
	return f.sound()
}

// sound fails for a data folder whose node was quarantined.
func (f *folder) sound() error {
	why, err := f.read(quarantineFile)
	if err != nil {
		return err
	}
	if why != "" {
		return fmt.Errorf("%w: %s: %s", ErrQuarantined, filepath.Join(f.dir, quarantineFile), why)
	}
	return nil
}

// expel ends the incarnation at once, on this node: the others notice by its lease.
func (l *life) expel(c *Cluster) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ref.Incarnation != 0 {
		l.end(c)
	}
}
