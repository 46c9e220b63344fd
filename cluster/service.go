package cluster

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/cluster/replica"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// service answers the other nodes, and this one where it asks itself.
type service struct {
	clusterpb.UnimplementedPeerServer
	c *Cluster
}

// Propose implements clusterpb.PeerServer.
func (s service) Propose(stream clusterpb.Peer_ProposeServer) error {
	return s.c.log.HandlePropose(stream)
}

// Lease implements clusterpb.PeerServer.
func (s service) Lease(stream clusterpb.Peer_LeaseServer) error { return s.c.leader.Serve(stream) }

// Link implements clusterpb.PeerServer.
func (s service) Link(stream clusterpb.Peer_LinkServer) error { return s.c.links.HandleLink(stream) }

// changePatience bounds one change of the members: with others waiting, without a majority it is given
// up, and asked for again.
const changePatience = askPatience

// leads is empty when this node leads and may judge others, else the leader's address.
func (c *Cluster) leads() (elsewhere string, err error) {
	if c.log.IsLeader() {
		if c.leader.Ready() {
			return "", nil
		}
		return "", status.Error(codes.Unavailable, "the leader has just been elected: not ready yet")
	}
	switch _, address := c.log.Leader(); address {
	case "", c.address:
		return "", status.Error(codes.Unavailable, "it knows no leader")
	default:
		return address, nil
	}
}

// Announce implements clusterpb.PeerServer. Without a nonce it only tells whether the node is a member,
// and notes where it is.
func (s service) Announce(ctx context.Context, req *clusterpb.AnnounceRequest) (*clusterpb.AnnounceReply, error) {
	c := s.c
	if elsewhere, err := c.leads(); err != nil || elsewhere != "" {
		return &clusterpb.AnnounceReply{LeaderAddr: elsewhere}, err
	}
	c.configuring.Lock()
	defer c.configuring.Unlock()
	// Nobody waits any more: another nonce may have been announced since.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	if c.isRemoving(req.Node) {
		return nil, status.Error(codes.Unavailable, "the node is just being removed")
	}
	server, ok := c.server(serverID(req.Node, req.StoreId))
	if !ok {
		return nil, status.Errorf(codes.FailedPrecondition, "%s with the data folder %s is no member", req.Node, req.StoreId)
	}
	if err := c.moved(ctx, server, req.PeerAddr); err != nil {
		return nil, err
	}
	if req.Nonce == 0 {
		return &clusterpb.AnnounceReply{}, nil
	}
	if inc, ok := c.fsm.Incarnation(req.Node, req.Nonce); ok {
		return &clusterpb.AnnounceReply{Incarnation: inc}, nil
	}
	if level := c.fsm.FeatureLevel(); req.Features < level {
		return nil, status.Errorf(codes.FailedPrecondition, "version %s knows feature level %d, and the cluster is at %d: "+
			"entries are read as that level says, so run the cluster's version on this node", req.Version, req.Features, level)
	}
	if err := c.succeed(req); err != nil {
		return nil, err
	}
	index, err := c.log.AppendSystem(ctx, &fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{
		Node: req.Node, Nonce: req.Nonce, StoreId: req.StoreId, PeerAddr: req.PeerAddr, MqttAddr: req.MqttAddr,
		AdminAddr: req.AdminAddr, HttpAddr: req.HttpAddr, Version: req.Version, Features: req.Features,
	}}})
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &clusterpb.AnnounceReply{Incarnation: index}, nil
}

// succeed tells whether a new incarnation may end the node's last one, which the NodeUp does. The data
// folder is locked, so the same one in another incarnation means that the last has ended; but an
// announcement may be late, and its node serve under a later one: no lease may be running.
func (c *Cluster) succeed(req *clusterpb.AnnounceRequest) error {
	ref, ok := c.fsm.Live(req.Node)
	if !ok {
		return nil
	}
	if m, ok := c.member(req.Node); ok && m.StoreID != req.StoreId {
		return status.Errorf(codes.Unavailable, "%s is in service with another data folder (%s)", req.Node, m.StoreID)
	}
	if left := c.leader.Expire(ref); left > 0 {
		return status.Errorf(codes.Unavailable, "the lease of its last incarnation runs out in %s", left.Round(time.Millisecond))
	}
	return nil
}

// moved notes the address of a server that came back under another one.
func (c *Cluster) moved(ctx context.Context, server replica.Server, address string) error {
	if address == "" || address == server.Address {
		return nil
	}
	add := c.log.AddNonvoter
	if server.Voter {
		add = c.log.AddVoter // of one that is a voter it changes the address
	}
	if err := add(ctx, server.ID, address); err != nil {
		return status.Errorf(codes.Unavailable, "its new address %s could not be noted: %v", address, err)
	}
	c.cfg.Logger.Info("a node has moved", "server", server.ID, "address", address, "before", server.Address)
	return nil
}

// Join implements clusterpb.PeerServer.
func (s service) Join(ctx context.Context, req *clusterpb.JoinRequest) (*clusterpb.JoinReply, error) {
	c := s.c
	if req.Cluster != c.cfg.ClusterName {
		return &clusterpb.JoinReply{Message: fmt.Sprintf("this is cluster %q, not %q", c.cfg.ClusterName, req.Cluster)}, nil
	}
	if elsewhere, err := c.leads(); err != nil || elsewhere != "" {
		return &clusterpb.JoinReply{LeaderAddr: elsewhere}, err
	}
	c.configuring.Lock()
	defer c.configuring.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	if err := c.admit(ctx, req); err != nil {
		return &clusterpb.JoinReply{Message: err.Error()}, nil
	}
	return &clusterpb.JoinReply{Done: true}, nil
}

// Leave implements clusterpb.PeerServer.
func (s service) Leave(ctx context.Context, req *clusterpb.LeaveRequest) (*clusterpb.LeaveReply, error) {
	c := s.c
	if elsewhere, err := c.leads(); err != nil || elsewhere != "" {
		return &clusterpb.LeaveReply{LeaderAddr: elsewhere}, err
	}
	ref := refOf(req.Node, req.Incarnation)
	order := c.leader.Condemn(ref, "it was drained")
	if order == nil {
		if live, ok := c.fsm.Live(req.Node); ok && live == ref {
			return nil, status.Error(codes.Unavailable, "it leads no more")
		}
		return &clusterpb.LeaveReply{Done: true}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	if _, err := c.log.AppendSystem(ctx, order); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &clusterpb.LeaveReply{Done: true}, nil
}
