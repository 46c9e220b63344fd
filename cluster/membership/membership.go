package membership

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config of the gossip. Bind and Cluster are required.
type Config struct {
	Bind      string   // HOST:PORT; port 0 takes a free one
	Advertise string   // HOST:PORT as the others should use it; empty: as bound
	Join      []string // HOST:PORT or HOST, names too
	Cluster   string   // nodes of another cluster are not heard
	Self      Node
	Keys      [][]byte // of 16, 24 or 32 bytes: the first encrypts the gossip, all decrypt it. None: it is plain
	Logger    *slog.Logger
}

const (
	// joinAgain is how long the search waits after it found nobody, and searchAgain how often it goes
	// on when it did: a cluster that was cut in two for long finds itself again by it.
	joinAgain   = 500 * time.Millisecond
	searchAgain = 15 * time.Second
	// leavePatience bounds how long the farewell may take.
	leavePatience = 500 * time.Millisecond
	// updatePatience is how long a change of the notes may block.
	updatePatience = 100 * time.Millisecond
)

// Membership is the gossip of one node.
type Membership struct {
	cfg  Config
	list *memberlist.Memberlist
	keys *memberlist.Keyring // nil: gossip is plain
	bind string

	ctx     context.Context
	stop    context.CancelFunc
	group   sync.WaitGroup
	changed chan struct{}

	mu    sync.Mutex
	notes []byte
	self  Node
	nodes map[string]Node // by memberlist's name, without this node
	past  []string        // where nodes were heard, to look there again
}

// Open starts the gossip and the search for others; it does not wait for either.
func Open(cfg Config) (*Membership, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Membership{cfg: cfg, self: cfg.Self, nodes: make(map[string]Node), changed: make(chan struct{}, 1)}
	var err error
	if m.notes, err = cfg.Self.encode(); err != nil {
		return nil, err
	}
	ml, err := m.listConfig()
	if err != nil {
		return nil, err
	}
	if m.list, err = memberlist.Create(ml); err != nil {
		return nil, fmt.Errorf("gossip on %s: %w", cfg.Bind, err)
	}
	local := m.list.LocalNode()
	m.bind = net.JoinHostPort(local.Addr.String(), strconv.Itoa(int(local.Port)))
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.group.Go(m.search)
	return m, nil
}

func (m *Membership) listConfig() (*memberlist.Config, error) {
	host, port, err := splitAddress(m.cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	ml := memberlist.DefaultLANConfig()
	// The name takes the data folder in: a node that lost its disk is somebody else to the others,
	// and need not wait until they have forgotten the old one.
	ml.Name = m.cfg.Self.ID + "/" + m.cfg.Self.Store
	ml.Label = m.cfg.Cluster
	ml.BindAddr, ml.BindPort = host, port
	if host == "" {
		ml.BindAddr = "0.0.0.0"
	} else if ip := net.ParseIP(host); ip == nil {
		addresses, err := net.DefaultResolver.LookupIP(context.Background(), "ip", host)
		if err != nil || len(addresses) == 0 {
			return nil, fmt.Errorf("gossip address %s: %w", m.cfg.Bind, err)
		}
		ml.BindAddr = addresses[0].String()
	}
	ml.AdvertisePort = port
	if m.cfg.Advertise != "" {
		if ml.AdvertiseAddr, ml.AdvertisePort, err = m.advertised(); err != nil {
			return nil, err
		}
	}
	if len(m.cfg.Keys) > 0 {
		if ml.Keyring, err = memberlist.NewKeyring(m.cfg.Keys, m.cfg.Keys[0]); err != nil {
			return nil, fmt.Errorf("gossip keys: %w", err)
		}
		m.keys = ml.Keyring
	}
	// Noticed in two or three seconds; the lease decides who serves, so a wrong suspicion costs nothing.
	ml.ProbeInterval, ml.ProbeTimeout, ml.SuspicionMult = 500*time.Millisecond, 250*time.Millisecond, 3
	ml.SuspicionMaxTimeoutMult = 2 // where nobody is left who could confirm it
	ml.GossipInterval, ml.PushPullInterval = 200*time.Millisecond, 3*time.Second
	ml.TCPTimeout = 2 * time.Second
	ml.DeadNodeReclaimTime = time.Millisecond // the name is that of a locked folder: it may have moved at once
	ml.Delegate, ml.Events = notes{m}, events{m}
	ml.Logger = log.New(logWriter{m.cfg.Logger, new(atomic.Int64)}, "", 0)
	return ml, nil
}

func (m *Membership) advertised() (string, int, error) {
	host, port, err := splitAddress(m.cfg.Advertise)
	if err != nil {
		return "", 0, fmt.Errorf("advertised gossip address: %w", err)
	}
	if net.ParseIP(host) != nil {
		return host, port, nil
	}
	addresses, err := net.DefaultResolver.LookupIP(context.Background(), "ip", host)
	if err != nil || len(addresses) == 0 {
		return "", 0, fmt.Errorf("advertised gossip address %s: %w", m.cfg.Advertise, err)
	}
	return addresses[0].String(), port, nil
}

func splitAddress(address string) (string, int, error) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port of %q: %w", address, err)
	}
	return host, int(port), nil
}

// Address is where the gossip can be reached.
func (m *Membership) Address() string { return m.bind }

// Changed holds a token after a node came, went or changed its notes.
func (m *Membership) Changed() <-chan struct{} { return m.changed }

// Nodes are the other nodes that gossip takes for alive, by id.
func (m *Membership) Nodes() []Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Node, 0, len(m.nodes))
	for _, n := range m.nodes {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b Node) int {
		return strings.Compare(a.ID+"/"+a.Store, b.ID+"/"+b.Store)
	})
	return out
}

// Update changes what this node tells about itself.
func (m *Membership) Update(self Node) error {
	b, err := self.encode()
	if err != nil {
		return err
	}
	m.mu.Lock()
	if self == m.self {
		m.mu.Unlock()
		return nil
	}
	m.self, m.notes = self, b
	m.mu.Unlock()
	// The others hear of it by and by: that it was not sent yet is no error.
	if err := m.list.UpdateNode(updatePatience); err != nil {
		m.cfg.Logger.Debug("changed notes are on their way", "error", err)
	}
	return nil
}

// Close says farewell and ends the gossip.
func (m *Membership) Close() error {
	m.stop()
	m.group.Wait()
	// Nobody may be left who hears it: they find out by themselves.
	if err := m.list.Leave(leavePatience); err != nil {
		m.cfg.Logger.Debug("the farewell was not heard", "error", err)
	}
	return m.list.Shutdown()
}

// Abort ends the gossip without a word, as a crash would.
func (m *Membership) Abort() error {
	m.stop()
	m.group.Wait()
	return m.list.Shutdown()
}

// search joins whoever can be found, for ever.
func (m *Membership) search() {
	failing := false
	for m.ctx.Err() == nil {
		found := len(m.Nodes()) > 0
		if targets := m.targets(); len(targets) > 0 {
			n, err := m.list.Join(targets)
			if err != nil && n == 0 && !found && !failing {
				failing = true
				m.cfg.Logger.Info("no other node can be reached yet; the search goes on", "join", m.cfg.Join, "error", firstLine(err))
			}
			if n > 0 {
				failing = false
			}
			found = found || n > 0 && len(m.Nodes()) > 0
		}
		wait := joinAgain
		if found {
			wait = searchAgain
		}
		select {
		case <-m.ctx.Done():
		case <-time.After(wait):
		}
	}
}

// targets are where to look for nodes: names are looked up anew each time, all their addresses count.
func (m *Membership) targets() []string {
	m.mu.Lock()
	places := append(slices.Clone(m.cfg.Join), m.past...)
	known := make(map[string]bool)
	for _, n := range m.nodes {
		known[n.Gossip] = true
	}
	m.mu.Unlock()
	var out []string
	for _, place := range places {
		for _, address := range m.resolve(place) {
			if address != m.bind && !known[address] && !slices.Contains(out, address) {
				out = append(out, address)
			}
		}
	}
	return out
}

func (m *Membership) resolve(place string) []string {
	host, port, err := net.SplitHostPort(place)
	if err != nil {
		_, port, _ = net.SplitHostPort(m.bind)
		host = strings.Trim(place, "[]")
	}
	if net.ParseIP(host) != nil {
		return []string{net.JoinHostPort(host, port)}
	}
	ctx, cancel := context.WithTimeout(m.ctx, 2*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		m.cfg.Logger.Debug("a name to join is not known", "name", host, "error", err)
		return nil
	}
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = net.JoinHostPort(a, port)
	}
	return out
}

func firstLine(err error) string {
	s, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n\n")
	return s
}
