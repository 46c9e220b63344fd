package harness

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// Cluster is the nodes of one test.
type Cluster struct {
	Nodes []*Node

	owner  testing.TB // the nodes end with it
	t      testing.TB // who uses the cluster now
	dir    string
	expect int
	placed int
	flags  []string
}

// Start starts count nodes with these flags for each and waits until all are ready. They end, and
// their folders go, with the test.
func Start(t testing.TB, count int, flags ...string) *Cluster {
	t.Helper()
	Binary(t)
	c := &Cluster{owner: t, t: t, dir: t.TempDir(), expect: count, flags: flags}
	for range count {
		c.place()
	}
	c.Each((*Node).Start)
	c.Each((*Node).WaitReady)
	return c
}

// In lends the cluster to a subtest: all nodes run and are ready when it begins, and what goes
// wrong until it ends is its failure.
func (c *Cluster) In(t testing.TB) {
	t.Helper()
	owner := c.t
	c.use(t)
	t.Cleanup(func() {
		c.use(owner)
		if t.Failed() {
			c.Each((*Node).logTail)
		}
	})
	c.Heal()
}

func (c *Cluster) use(t testing.TB) {
	c.t = t
	c.Each(func(n *Node) { n.t = t })
}

// Heal starts and resumes what does not run and waits until all nodes are ready.
func (c *Cluster) Heal() {
	c.t.Helper()
	for _, n := range c.Nodes {
		switch {
		case !n.Running():
			n.Start()
		case n.paused:
			n.Resume()
		}
	}
	c.Each((*Node).WaitReady)
}

// Forget takes a node that does not run out of the cluster's list: it is not healed again.
func (c *Cluster) Forget(gone *Node) {
	c.Nodes = slices.DeleteFunc(c.Nodes, func(n *Node) bool { return n == gone })
}

// Add starts one more node and returns when it is ready.
func (c *Cluster) Add() *Node {
	c.t.Helper()
	n := c.place()
	n.Start()
	n.WaitReady()
	return n
}

// Node is node I, counted from 1 as in its id.
func (c *Cluster) Node(i int) *Node { return c.Nodes[i-1] }

// Each calls fn for all nodes in order.
func (c *Cluster) Each(fn func(*Node)) {
	for _, n := range c.Nodes {
		fn(n)
	}
}

// place makes room for a node.
func (c *Cluster) place() *Node {
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort(c.t)) }
	c.placed++
	id := fmt.Sprintf("node%d", c.placed)
	n := &Node{
		ID: id, MQTT: address(), WS: address(), HTTP: address(), Admin: address(), Peer: address(), Gossip: address(),
		Data: filepath.Join(c.dir, id), Log: filepath.Join(c.dir, id+".log"),
		t: c.t, c: c, flags: c.flags,
	}
	c.Nodes = append(c.Nodes, n)
	c.owner.Cleanup(n.end)
	return n
}

func (c *Cluster) gossipOfOthers(n *Node) string {
	var list []string
	for _, o := range c.Nodes {
		if o != n {
			list = append(list, o.Gossip)
		}
	}
	return strings.Join(list, ",")
}

// Members asks the running nodes in turn for all members.
func (c *Cluster) Members() []*adminpb.Node {
	c.t.Helper()
	var last error
	for _, n := range c.Nodes {
		if !n.Running() || n.paused {
			continue
		}
		list, err := n.members()
		if err == nil {
			return list
		}
		last = err
	}
	c.t.Logf("members: %v", last)
	return nil
}

func (n *Node) members() ([]*adminpb.Node, error) {
	conn, err := grpc.NewClient(n.Admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	answer, err := adminpb.NewAdminClient(conn).ListNodes(ctx, &adminpb.ListNodesRequest{})
	return answer.GetNodes(), err
}

// Leader is the node that leads the log, as soon as there is one that is not paused.
func (c *Cluster) Leader() *Node {
	c.t.Helper()
	var leader *Node
	c.Await("a leader", func() bool {
		for _, m := range c.Members() {
			if m.GetRole() != "leader" {
				continue
			}
			for _, n := range c.Nodes {
				if n.ID == m.GetId() && n.Running() && !n.paused {
					leader = n
					return true
				}
			}
		}
		return false
	})
	return leader
}

// Follower is a running node that does not lead, other than the given ones.
func (c *Cluster) Follower(not ...*Node) *Node {
	c.t.Helper()
	leader := c.Leader()
	for _, n := range c.Nodes {
		if n != leader && n.Running() && !n.paused && !slices.Contains(not, n) {
			return n
		}
	}
	c.t.Fatal("no such follower")
	return nil
}

// Await polls until ok says so.
func (c *Cluster) Await(what string, ok func() bool) {
	c.t.Helper()
	Await(c.t, what, ok)
}

// Await polls until ok says so, for at most 20 s.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come to pass in time: %s", what)
		}
	}
}
