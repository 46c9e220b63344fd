// Package run joins the parts of a node: it opens them in order, keeps them going, and closes them
// in the opposite order when the process is told to end.
//
// It owns the order of start and stop, the drain, and the translation between packages that must not
// know each other. It must hold no broker logic.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/skein-mqtt/skein/cluster"
	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/cmd/skein/version"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/admin"
	"github.com/skein-mqtt/skein/node/auth"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/node/disk"
	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/node/httpd"
	"github.com/skein-mqtt/skein/node/listener"
	"github.com/skein-mqtt/skein/node/memory"
	"github.com/skein-mqtt/skein/node/operators"
	"github.com/skein-mqtt/skein/node/ring"
	protocol "github.com/skein-mqtt/skein/node/session"
	"github.com/skein-mqtt/skein/node/trace"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// features is the highest feature level that this binary knows: see the log's format.
const features = 3

// node is a running node.
type node struct {
	cfg       *config.Config
	id        string
	logger    *slog.Logger
	fsm       *fsm.FSM
	rules     *auth.Rules
	broker    *broker.Broker
	cluster   *cluster.Cluster
	disk      *disk.Watcher
	memory    *memory.Watcher
	drain     *drain
	health    *health
	gate      *operators.Gate
	audit     *operators.Audit
	admin     *admin.Server
	http      *httpd.Server
	watching  []watched
	listeners []*listener.Listener
	policies  map[string]*broker.Policy // by listener; read only once they accept
	started   time.Time
	level     slog.LevelVar
	lines     *ring.Ring[admin.Line] // of the node's log; nil: they are not remembered
	events    *event.Log
	tracer    trace.Tracer

	mu     sync.Mutex
	served bool
	now    *config.Config // cfg with what has been changed since; see changeable
}

// Run runs a node until ctx ends or a signal comes: SIGTERM and SIGINT let its clients go first, a
// second one ends it at once. At SIGHUP it reads certificates and keys again. It returns why the node
// could not go on, if that is so.
func Run(ctx context.Context, cfg *config.Config) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	n, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	if err := n.export(ctx, &group); err != nil {
		n.close()
		return err
	}
	group.Go(func() { _ = n.broker.Run(ctx) })
	group.Go(func() { _ = n.disk.Run(ctx) })
	group.Go(func() { _ = n.memory.Run(ctx) })
	group.Go(func() { n.events.Run(ctx) })
	group.Go(func() {
		if err := n.rules.Run(ctx); err != nil {
			n.logger.Error("the access rules are not read again when they change", "error", err)
		}
	})
	group.Go(func() { n.reload(ctx) })
	for _, w := range n.watching {
		group.Go(func() { w.Run(ctx) })
	}
	err = n.wait(ctx, signals)
	stop(nil)
	if err != nil { // raft may have stopped where it stood, and never answer who waits for it
		n.abandon()
		return err
	}
	n.close()
	group.Wait()
	return nil
}

// closePatience bounds how long a node that can't go on may take to close.
const closePatience = 2 * time.Second

// abandon closes what can be closed. The process is to end afterwards.
func (n *node) abandon() {
	closed := make(chan struct{})
	go func() { // ends with the process, at the latest
		n.close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(closePatience):
	}
}

// reload has everybody read certificates and keys again at each SIGHUP, until ctx ends.
func (n *node) reload(ctx context.Context) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			for _, l := range n.listeners {
				l.Reload()
			}
			for _, w := range n.watching {
				w.Reload()
			}
		}
	}
}

// wait returns when the node is to end.
func (n *node) wait(ctx context.Context, signals <-chan os.Signal) error {
	select {
	case err := <-n.cluster.Failed():
		n.logger.Error("the node can't go on", "error", err)
		return err
	case <-ctx.Done():
		return nil
	case s := <-signals:
		n.logger.Info("the node ends: its clients go first; a second signal ends it at once", "signal", s.String())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.drain.start(ctx, 0, 0)
	drained := make(chan error, 1)
	go func() { drained <- n.drain.wait() }() // ends when ctx does, at the latest
	select {
	case err := <-drained:
		if errors.Is(err, context.DeadlineExceeded) {
			n.logger.Warn("not every client could be let go in time")
		}
	case err := <-n.cluster.Failed():
		n.logger.Error("the node can't go on", "error", err)
		return err
	case s := <-signals:
		n.logger.Warn("the node ends at once", "signal", s.String())
		cancel()
		<-drained
	}
	return nil
}

// open opens the parts. On an error, those that were opened are closed.
func open(ctx context.Context, cfg *config.Config) (_ *node, err error) {
	n := &node{cfg: cfg, now: cfg, started: time.Now(), events: event.New(cfg.Admin.Events), policies: make(map[string]*broker.Policy)}
	if cfg.Admin.LogLines > 0 {
		n.lines = ring.New[admin.Line](cfg.Admin.LogLines)
	}
	n.logger = newLogger(os.Stderr, cfg.Log, &n.level, n.lines)
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.id, err = nodeID(cfg.Node.ID, cfg.Data.Dir); err != nil {
		return nil, err
	}
	n.logger = n.logger.With("self", n.id) // what the parts say of other nodes stands under "node"
	n.fsm = fsm.New(n.id)
	if n.rules, err = auth.Open(n.authConfig(&cfg.Auth)); err != nil {
		return nil, err
	}
	bc := brokerConfig(n.id, cfg, n.logger)
	bc.Events, bc.Tracer = n.events, &n.tracer
	bc.Access = access{n.rules}
	if n.broker, err = broker.New(bc, n.fsm); err != nil {
		return nil, err
	}
	if cordoned(cfg.Data.Dir) {
		n.broker.Cordon(true)
		n.logger.Warn("this node is cordoned: it takes no clients until 'skein uncordon'")
	}
	n.memory = memory.New(memory.Config{
		Limit: uint64(cfg.Memory.Limit), Percent: cfg.Memory.LimitPercent, Interval: 250 * time.Millisecond, Changed: n.memoryChanged,
	})
	if err := n.bind(); err != nil { // before anything is written: a taken port is the commonest error
		return nil, err
	}
	if err := n.join(ctx); err != nil {
		return nil, err
	}
	if err := keepID(n.id, cfg.Data.Dir); err != nil {
		return nil, err
	}
	n.disk = disk.New(disk.Config{
		Path: cfg.Data.Dir, LowBytes: uint64(cfg.Disk.LowBytes), LowPercent: cfg.Disk.LowPercent, Interval: cfg.Disk.Interval,
		Changed: n.diskChanged,
	})
	n.drain = &drain{
		rate: cfg.Drain.Rate, timeout: cfg.Drain.Timeout, notice: cfg.Drain.Notice, patience: cfg.Drain.ClientTimeout, logger: n.logger,
		transfer: n.cluster.HandOver,
		clients: func(ctx context.Context, rate func() int) error {
			return n.broker.Drain(ctx, rate, n.drain.clientPatience())
		},
		count: n.broker.Count,
		leave: n.cluster.Leave,
	}
	n.health = &health{
		inService: n.hasServed, quarantined: n.cluster.Quarantined, lease: n.cluster.LeaseState, low: n.disk.Low, drain: n.drain, grace: cfg.Cluster.Grace, cordoned: n.broker.Cordoned,
	}
	if err := n.openServices(); err != nil {
		return nil, err
	}
	for _, l := range n.listeners {
		l.Start()
	}
	for _, l := range beyondLoopback(cfg.Listen, !n.rules.Asks() || cfg.Auth.AllowAnonymous) {
		n.logger.Warn("this listener takes anonymous clients from beyond this host", "listener", l)
	}
	n.logger.Info("node starts", "version", version.Number, "listen", cfg.Listen, "http", cfg.HTTP.Listen, "admin", cfg.Admin.Listen, "data", cfg.Data.Dir)
	return n, nil
}

// bind opens the MQTT listeners, which accept nothing yet.
func (n *node) bind() error {
	for _, text := range n.cfg.Listen {
		spec, err := listener.Parse(text)
		if err != nil {
			return fmt.Errorf("listen: %q %w", text, err)
		}
		l, err := listener.Open(listener.Config{Spec: spec, Handshake: n.cfg.MQTT.ConnectTimeout, Serve: n.serve, Logger: n.logger})
		if err != nil {
			return err
		}
		n.listeners = append(n.listeners, l)
		n.policies[spec.URL] = policy(&spec)
	}
	return nil
}

// serve runs one connection, and calls done when it has ended.
func (n *node) serve(nc net.Conn, s *listener.Spec, id listener.Identity, done func()) {
	if s.Scheme == "ws" || s.Scheme == "wss" {
		wc, err := conn.Upgrade(nc, s.URL, s.Path, n.cfg.MQTT.ConnectTimeout)
		if err != nil {
			n.logger.Debug("WebSocket handshake failed", "listener", s.URL, "remote", nc.RemoteAddr().String(), "error", err)
			done()
			return
		}
		_ = n.broker.ServeAs(wc, s.URL, n.identity(s, id), done)
		return
	}
	_ = n.broker.ServeAs(conn.New(nc, s.URL), s.URL, n.identity(s, id), done)
}

// identity is what the broker is told of a client by its listener.
func (n *node) identity(s *listener.Spec, id listener.Identity) broker.Identity {
	return broker.Identity{Username: id.Username, Verified: id.Verified, Policy: n.policies[s.URL]}
}

// policy is nil for a listener that asks for nothing of its own.
func policy(s *listener.Spec) *broker.Policy {
	if len(s.Versions) == 0 && s.Anonymous == nil && s.Mount == "" {
		return nil
	}
	p := &broker.Policy{Anonymous: s.Anonymous, Mount: s.Mount}
	for _, v := range s.Versions {
		p.Versions = append(p.Versions, mqtt.Version(v))
	}
	return p
}

// join opens the node's part in the cluster.
func (n *node) join(ctx context.Context) error {
	cfg := n.cfg
	c := cluster.Config{
		NodeID: n.id, DataDir: cfg.Data.Dir, PeerBind: cfg.Peer.Listen, GossipBind: cfg.Gossip.Listen,
		Join: cfg.Cluster.Join, BootstrapExpect: cfg.Cluster.BootstrapExpect, ClusterName: cfg.Cluster.Name,
		HeartbeatTimeout: cfg.Cluster.RaftHeartbeat, ElectionTimeout: cfg.Cluster.RaftElection, LeaderLeaseTimeout: cfg.Cluster.RaftLease,
		Lease: cfg.Cluster.Lease, Drift: cfg.Cluster.Drift, Grace: cfg.Cluster.Grace,
		MaxUnacked: int(cfg.Cluster.LinkBuffer), SnapshotBytes: int64(cfg.Cluster.SnapshotBytes),
		CheckInterval: cfg.Cluster.CheckInterval,
		Version:       version.Number, Features: features, Logger: n.logger,
		Dropped: n.broker.DroppedOnLink, Relieved: n.broker.Relieved, Repick: n.broker.Repick,
	}
	var err error
	if err = n.secure(&c); err != nil {
		return err
	}
	for _, a := range []struct {
		key, configured, bound string
		to                     *string
	}{
		{"peer", cfg.Peer.Advertise, cfg.Peer.Listen, &c.PeerAdvertise},
		{"gossip", cfg.Gossip.Advertise, cfg.Gossip.Listen, &c.GossipAdvertise},
		{"admin", cfg.Admin.Advertise, cfg.Admin.Listen, &c.AdminAdvertise},
		{"http", cfg.HTTP.Advertise, cfg.HTTP.Listen, &c.HTTPAdvertise},
	} {
		if a.bound == "" {
			continue
		}
		if *a.to, err = advertised(a.key, a.configured, a.bound); err != nil {
			return err
		}
	}
	for _, l := range n.listeners {
		if u, err := url.Parse(l.Spec().URL); err == nil && u.Scheme == "tcp" {
			c.MQTTAdvertise, err = advertised("listen", "", u.Host)
			if err != nil {
				c.MQTTAdvertise = u.Host
			}
			break
		}
	}
	if n.cluster, err = cluster.Open(ctx, c, n.fsm, n.broker); err != nil {
		return err
	}
	n.broker.Attach(n.cluster)
	return nil
}

// hasServed tells whether the node has been in service since it started: before that there is no
// lease that could be missed.
func (n *node) hasServed() bool {
	in, _ := n.cluster.InService()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.served = n.served || in
	return n.served
}

func (n *node) diskChanged(low bool, u disk.Usage, err error) {
	switch {
	case err != nil:
		n.logger.Error("the free disk space can't be read", "dir", n.cfg.Data.Dir, "error", err)
	case low:
		n.logger.Error("the disk is nearly full: the node is not ready", "dir", n.cfg.Data.Dir, "free", u.Free)
	default:
		n.logger.Info("the disk has room again", "dir", n.cfg.Data.Dir, "free", u.Free)
	}
}

func (n *node) memoryChanged(high bool, used, mark uint64) {
	n.broker.Tight(high)
	if high {
		n.logger.Warn("memory is tight: publishes are held back as memory.policy says", "policy", n.cfg.Memory.Policy, "used", used, "mark", mark)
		return
	}
	n.logger.Info("memory has room again", "used", used, "mark", mark)
}

// close closes the parts that are open, in the order in which they stop needing each other.
func (n *node) close() {
	for _, l := range n.listeners {
		l.Stop()
	}
	if n.broker != nil {
		n.broker.Close()
	}
	for _, l := range n.listeners {
		_ = l.Close()
	}
	if n.admin != nil {
		_ = n.admin.Close()
	}
	_ = n.audit.Close()
	if n.cluster != nil {
		if err := n.cluster.Close(); err != nil {
			n.logger.Error("the cluster's part did not close well", "error", err)
		}
	}
	if n.http != nil {
		_ = n.http.Close()
	}
	if n.rules != nil {
		n.rules.Close()
	}
}

// queuePolicies are the words of mqtt.queue_policy.
var queuePolicies = map[string]protocol.Full{
	"drop_newest": protocol.DropNewest, "drop_oldest": protocol.DropOldest, "disconnect": protocol.Disconnect,
}

// memoryPolicies are the words of memory.policy.
var memoryPolicies = map[string]broker.MemoryPolicy{"pause": broker.MemoryPause, "refuse": broker.MemoryRefuse}

// ratePolicies are the words of mqtt.rate_policy.
var ratePolicies = map[string]broker.RatePolicy{"pause": broker.RatePause, "disconnect": broker.RateDisconnect}

func brokerConfig(id string, c *config.Config, logger *slog.Logger) broker.Config {
	m := &c.MQTT
	return broker.Config{
		Node: id, Version: version.Number, MaxPacketSize: int(m.MaxPacketSize), ReceiveMaximum: m.ReceiveMaximum,
		MaxInflight: m.MaxInflight, MaxKeepalive: m.MaxKeepalive, TopicAliasMaximum: m.TopicAliasMaximum,
		MaxQueuedMessages: m.MaxQueuedMessages, MaxQueuedBytes: uint64(m.MaxQueuedBytes), QueuePolicy: queuePolicies[m.QueuePolicy], QueueQoS0: m.QueueQoS0,
		SessionExpiryMax: m.SessionExpiryMax, MaxConnections: m.MaxConnections, ConnectTimeout: m.ConnectTimeout,
		RetainAvailable: m.RetainAvailable, MaxQoS: m.MaxQoS, WildcardAvailable: m.WildcardAvailable,
		SharedAvailable: m.SharedAvailable, DenySubscribe: m.DenySubscribe, LegacySuback: m.LegacySuback, UsernameAsClientID: m.UsernameAsClientID,
		SysInterval: m.SysInterval, MaxBufferedBytes: int(m.MaxBufferedBytes), MaxTopicLevels: m.MaxTopicLevels, MaxTopicLength: m.MaxTopicLength, MaxSubscriptions: m.MaxSubscriptions,
		MaxPerAddress: m.MaxConnectionsPerAddress, MaxConnectRate: m.MaxConnectRate, MaxMessageRate: m.MaxMessageRate, MaxByteRate: int(m.MaxByteRate),
		RatePolicy: ratePolicies[m.RatePolicy], MemoryPolicy: memoryPolicies[c.Memory.Policy], MaxRetainedMessages: m.MaxRetainedMessages, MaxRetainedBytes: uint64(m.MaxRetainedBytes),
		ServerReference: c.Drain.ServerReference, Logger: logger,
	}
}
