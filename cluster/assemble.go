package cluster

import (
	"errors"
	"slices"

	"github.com/skein-mqtt/skein/cluster/membership"
	"github.com/skein-mqtt/skein/cluster/peer"
	"github.com/skein-mqtt/skein/cluster/replica"
)

// assemble opens the port and the log and joins them with what stands already. What it opened is
// closed by closers.
func (c *Cluster) assemble() error {
	id, err := loadIdentity(c.folder)
	if err != nil {
		return err
	}
	c.identity = id
	if c.founding.named, err = c.folder.read(founderFile); err != nil {
		return err
	}
	port, err := peer.Open(peer.Config{
		Bind: c.cfg.PeerBind, Advertise: c.cfg.PeerAdvertise, Cluster: c.cfg.ClusterName, Server: c.id,
		Identity: id, Security: c.cfg.Security, Logger: c.cfg.Logger,
	})
	if err != nil {
		return err
	}
	c.closers = append(c.closers, port.Close)
	c.address, c.dial, c.port = port.Address(), port, port
	transport := replica.NewTransport(port.Raft(c.whereabouts), c.cfg.Logger)
	log, err := replica.Open(replica.Config{
		ID: c.id, Node: c.cfg.NodeID, Dir: c.cfg.DataDir, Transport: transport, Dial: port.Peer, FSM: c.fsm,
		Heartbeat: c.cfg.HeartbeatTimeout, Election: c.cfg.ElectionTimeout, LeaderLease: c.cfg.LeaderLeaseTimeout,
		SnapshotBytes: c.cfg.SnapshotBytes, Logger: c.cfg.Logger,
		Hooks: replica.Hooks{
			Effects: c.effects, Applied: c.appliedTo, Restored: c.restored, LeaderChanged: c.leaderChanged, Led: c.led, Fatal: c.fatal,
		},
	})
	if err != nil {
		return errors.Join(err, transport.Close())
	}
	c.log, c.transport = log, transport
	leaderLog{c}.SetClock(nil)
	c.logReady()
	c.closers = append(c.closers, log.Close, func() error { port.Quiet(); return nil })
	port.Serve(service{c: c})
	return nil
}

// whereabouts is which server the configuration has under an address and where it is now: gossip hears
// first of one that came back under another address. Raft asks for each stream that it opens.
func (c *Cluster) whereabouts(address string) (server, at string, ok bool) {
	if !c.hasLog() {
		return "", "", false // raft tries again
	}
	servers, err := c.log.Servers()
	if err != nil {
		return "", "", false
	}
	i := slices.IndexFunc(servers, func(s replica.Server) bool { return s.Address == address })
	if i < 0 {
		return "", "", false
	}
	server, at = servers[i].ID, address
	for _, n := range c.others() {
		if serverID(n.ID, n.Store) == server && n.Peer != "" {
			at = n.Peer
		}
	}
	return server, at, true
}

// others are the nodes that gossip knows, without this one.
func (c *Cluster) others() []membership.Node {
	if g := c.gossip.Load(); g != nil {
		return g.Nodes()
	}
	return nil
}

// exists tells whether this node belongs to a cluster: it holds state, or another's founder has begun
// to send it. (With its own identity and no state it crashed in the middle of founding.)
func (c *Cluster) exists() (bool, error) {
	if id := c.identity.Get(); id != "" && id != c.folder.store {
		return true, nil
	}
	if servers, err := c.log.Servers(); err == nil && len(servers) > 0 {
		return true, nil
	}
	return c.log.HasState()
}
