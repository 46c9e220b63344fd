package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/skein-mqtt/skein/cluster/replica"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// Role of a node in the log.
type Role string

// Roles, as operators see them.
const (
	RoleLeader   Role = "leader"
	RoleFollower Role = "follower"
	RoleNonvoter Role = "nonvoter" // it has no vote yet
	RoleNone     Role = "none"     // no member of the log: not joined yet, or without its old data folder
)

// NodeInfo is what this node knows of a node.
type NodeInfo struct {
	ID           string
	Role         Role
	Live         bool   // an incarnation of it is in service, as far as the log is applied here
	Seen         bool   // gossip takes its process for alive
	Incarnation  uint64 // the live one; 0: none
	Version      string
	Features     uint32
	PeerAddress  string
	MQTTAddress  string
	AdminAddress string
	HTTPAddress  string
	Since        int64  // the log's clock in ms: since when it is live, or not
	Reason       string // why its last incarnation ended, unless it is live
}

// Nodes are all nodes that the log, its configuration or gossip knows, by id.
func (c *Cluster) Nodes() []NodeInfo {
	nodes := make(map[string]*NodeInfo)
	at := func(id string) *NodeInfo {
		if nodes[id] == nil {
			nodes[id] = &NodeInfo{ID: id, Role: RoleNone}
		}
		return nodes[id]
	}
	for _, o := range append(c.others(), c.notes(false)) {
		n := at(o.ID)
		n.Seen = true
		n.PeerAddress, n.MQTTAddress, n.AdminAddress, n.HTTPAddress = o.Peer, o.MQTT, o.Admin, o.HTTP
	}
	if n := at(c.cfg.NodeID); n.Version == "" {
		n.Version, n.Features = c.cfg.Version, c.cfg.Features
	}
	for _, m := range c.fsm.Members() {
		n := at(m.ID)
		n.Live, n.Version, n.Features, n.Since, n.Reason = m.Live, m.Version, m.Features, m.Since, m.DownReason
		if m.Live {
			n.Incarnation, n.Reason = m.Incarnation, ""
		}
		if m.Live || n.PeerAddress == "" {
			n.PeerAddress, n.MQTTAddress, n.AdminAddress, n.HTTPAddress = m.PeerAddr, m.MQTTAddr, m.AdminAddr, m.HTTPAddr
		}
	}
	leader, _ := c.log.Leader()
	servers, _ := c.log.Servers() // without them there are no roles
	for _, s := range servers {
		n := at(nodeOf(s.ID))
		switch {
		case s.ID == leader:
			n.Role = RoleLeader
		case s.Voter && n.Role != RoleLeader:
			n.Role = RoleFollower
		case n.Role == RoleNone:
			n.Role = RoleNonvoter
		}
		if n.PeerAddress == "" {
			n.PeerAddress = s.Address
		}
	}
	out := make([]NodeInfo, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, *n)
	}
	slices.SortFunc(out, func(a, b NodeInfo) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func refOf(node string, incarnation uint64) fsm.NodeRef {
	return fsm.NodeRef{Node: node, Incarnation: incarnation}
}

// member is what the log knows of a node.
func (c *Cluster) member(id string) (fsm.Member, bool) {
	for _, m := range c.fsm.Members() {
		if m.ID == id {
			return m, true
		}
	}
	return fsm.Member{}, false
}

// alive tells whether a server's node is in service with that server's data folder.
func (c *Cluster) alive(server string) bool {
	m, ok := c.member(nodeOf(server))
	return ok && m.Live && serverID(m.ID, m.StoreID) == server
}

// voters counts those of the log, and how many of them are alive, without one server.
func (c *Cluster) voters(servers []replica.Server, without string) (all, alive int) {
	for _, s := range servers {
		if s.Voter && s.ID != without {
			all++
			if s.ID == c.id || c.alive(s.ID) {
				alive++
			}
		}
	}
	return all, alive
}

// remove takes a server out of the log's configuration, if a majority of the others is alive. Called at
// the leader, with configuring held.
func (c *Cluster) remove(ctx context.Context, server replica.Server) error {
	servers, err := c.log.Servers()
	if err != nil {
		return err
	}
	if all, alive := c.voters(servers, server.ID); server.Voter && alive < all/2+1 {
		return fmt.Errorf("%w: without %s %d of %d voters are in service", ErrQuorum, server.ID, alive, all)
	}
	if err := c.log.RemoveServer(ctx, server.ID); err != nil {
		return err
	}
	c.cfg.Logger.Warn("removed from the members of the log", "server", server.ID)
	return nil
}

// admit makes a blank node a member without a vote. If it had another data folder before, that server
// is replaced: what it promised went with its disk, and the name can't be in service twice. Called at
// the leader, with configuring held.
func (c *Cluster) admit(ctx context.Context, req *clusterpb.JoinRequest) error {
	if c.isRemoving(req.Node) {
		return errors.New("the node is just being removed")
	}
	servers, err := c.log.Servers()
	if err != nil {
		return err
	}
	id := serverID(req.Node, req.StoreId)
	for _, s := range servers {
		if s.ID == id {
			return c.moved(ctx, s, req.PeerAddr)
		}
	}
	for _, s := range servers {
		switch {
		case nodeOf(s.ID) == req.Node:
			if live, ok := c.fsm.Live(req.Node); ok {
				return fmt.Errorf("a node of the name %s is in service (incarnation %d)", live.Node, live.Incarnation)
			}
			if err := c.remove(ctx, s); err != nil {
				return fmt.Errorf("its old data folder's place in the cluster is kept: %w", err)
			}
		case s.Address == req.PeerAddr:
			return fmt.Errorf("the address %s is that of the member %s: remove that node first, or let it run", s.Address, s.ID)
		}
	}
	if err := c.log.AddNonvoter(ctx, id, req.PeerAddr); err != nil {
		return err
	}
	c.cfg.Logger.Info("a node has joined, without a vote at first", "server", id, "address", req.PeerAddr)
	return nil
}
