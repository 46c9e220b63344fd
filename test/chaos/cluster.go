package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/skein-mqtt/skein/proto/adminpb"
	"github.com/skein-mqtt/skein/test/chaos/disk"
)

// cluster is the nodes and the network between them. One goroutine, which does the faults, uses it.
type cluster struct {
	options *Options
	model   *Model
	net     *network
	nodes   []*node
	placed  int
	expect  int

	mu  sync.Mutex
	all []*node // for those who ask what a socket belongs to
}

func newCluster(o *Options, m *Model) *cluster {
	return &cluster{options: o, model: m, net: newNetwork(), expect: o.Nodes}
}

// place makes room for a node.
func (c *cluster) place() (*node, error) {
	c.placed++
	id := fmt.Sprintf("node%d", c.placed)
	n := &node{id: id, model: c.model, data: filepath.Join(c.options.Dir, id), log: filepath.Join(c.options.Dir, id+".log"), clock: filepath.Join(c.options.Dir, id+".clock")}
	if c.options.diskFaults() {
		var err error
		if n.disk, err = disk.Mount(n.data); err != nil {
			return nil, err
		}
		n.data = filepath.Join(n.data, "data")
	}
	for _, a := range []*string{&n.mqtt, &n.http, &n.admin, &n.peer, &n.gossip, &n.proxied} {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		*a = fmt.Sprintf("127.0.0.1:%d", port)
	}
	targets := []string{n.peer, n.gossip}
	if !relayed || c.options.plain {
		targets = nil
	}
	for i, target := range targets {
		r, err := newRelay(c.net, id, target, i == 1, c.owner)
		if err != nil {
			return nil, err
		}
		n.relays = append(n.relays, r)
	}
	if !c.options.plain {
		r, err := newRelay(c.net, id, n.mqtt, false, func(_, _ net.Addr) string { return clients })
		if err != nil {
			return nil, err
		}
		n.door = r
		n.relays = append(n.relays, r)
	}
	c.nodes = append(c.nodes, n)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, n)
	return n, nil
}

// owner is the node that the far end of a connection belongs to, "" for a stranger. Relays ask.
func (c *cluster) owner(near, far net.Addr) string {
	c.mu.Lock()
	all := slices.Clone(c.all)
	c.mu.Unlock()
	if far.Network() == "udp" { // datagrams leave from where they are awaited
		for _, n := range all {
			if n.gossip == far.String() {
				return n.id
			}
		}
		return ""
	}
	byPid := make(map[int]string)
	var pids []int
	for _, n := range all {
		if pid := n.pid(); pid != 0 {
			pids = append(pids, pid)
			byPid[pid] = n.id
		}
	}
	return byPid[socketOwner(near.(*net.TCPAddr), far.(*net.TCPAddr), pids)]
}

// clients is what the network calls all of them.
const clients = "clients"

// clientAddress is where clients reach the node.
func (n *node) clientAddress() string {
	if n.door == nil {
		return n.mqtt
	}
	return n.door.address()
}

// known is one of a node's addresses as the others know it.
func (n *node) known(relay int, address string) string {
	if len(n.relays) <= relay {
		return address
	}
	return n.relays[relay].address()
}

func (c *cluster) start(n *node) error {
	var joined []string
	for _, o := range c.nodes {
		if o != n {
			joined = append(joined, o.known(1, o.gossip))
		}
	}
	args := []string{
		"run", "--node-id", n.id, "--data", n.data, "--listen", "tcp://" + n.mqtt, "--http", n.http, "--admin", n.admin,
		"--peer", n.peer, "--gossip", n.gossip, "--bootstrap-expect", fmt.Sprint(c.expect), "--join", strings.Join(joined, ","),
		"--set", "peer.advertise=" + n.known(0, n.peer), "--set", "gossip.advertise=" + n.known(1, n.gossip),
	}
	if c.options.Balancer {
		args = append(args, "--listen", "tcp://"+n.proxied+"?proxy=v2&proxy_from=127.0.0.0/8", "--set", "drain.notice=1500ms")
	}
	if !c.options.plain {
		args = append(args, "--set", "mqtt.max_queued_messages=0", "--set", "mqtt.max_queued_bytes=0", "--set", "mqtt.sys_interval=0s",
			"--set", "cluster.snapshot_bytes=256KiB", "--set", "mqtt.max_buffered_bytes=48KiB")
	}
	c.model.Node("start %s", n.id)
	return n.start(c.options.Binary, append(args, c.options.Flags...))
}

// up starts all nodes and waits until they are ready.
func (c *cluster) up(ctx context.Context) error {
	for range c.options.Nodes {
		if _, err := c.place(); err != nil {
			return err
		}
	}
	for _, n := range c.nodes {
		if err := c.start(n); err != nil {
			return err
		}
	}
	return c.whole(ctx, time.Minute)
}

// down ends everything.
func (c *cluster) down() {
	for _, n := range c.nodes {
		_ = n.end(syscall.SIGKILL, 10*time.Second)
	}
	c.mu.Lock()
	all := c.all
	c.mu.Unlock()
	for _, n := range all {
		for _, r := range n.relays {
			r.close()
		}
		if err := n.unmount(); err != nil {
			c.model.Node("%v", err)
		}
	}
}

// heal undoes all faults and waits until the cluster is whole.
func (c *cluster) heal(ctx context.Context, patience time.Duration) error {
	c.net.Heal()
	for _, n := range c.nodes {
		if err := n.rightClock(); err != nil {
			return err
		}
		switch {
		case !n.running():
			if n.damaged && n.endedItself() {
				if err := c.replace(n); err != nil {
					return err
				}
			}
			if err := c.start(n); err != nil {
				return err
			}
		case n.paused:
			c.resume(n)
		}
	}
	return c.whole(ctx, patience)
}

// whole waits until every node is ready and a voter, and they agree on it.
func (c *cluster) whole(ctx context.Context, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		why := c.ailing(ctx)
		if why == "" {
			return nil
		}
		for _, n := range c.nodes {
			if n.damaged && n.endedItself() {
				if err := errors.Join(c.replace(n), c.start(n)); err != nil {
					return err
				}
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the cluster is not whole after %v: %s", patience, why)
		}
		wait(ctx, 50*time.Millisecond)
	}
}

func (c *cluster) ailing(ctx context.Context) string {
	for _, n := range c.nodes {
		if !n.running() {
			return n.id + " is not running"
		}
		if code := n.ready(ctx); code != 200 {
			return fmt.Sprintf("%s says %d on /readyz", n.id, code)
		}
	}
	leaders := 0
	list, err := c.nodes[0].members(ctx)
	if err != nil {
		return err.Error()
	}
	for _, n := range c.nodes {
		i := slices.IndexFunc(list, func(m *adminpb.Node) bool { return m.GetId() == n.id })
		if i < 0 {
			return n.id + " is not a member"
		}
		switch role := list[i].GetRole(); role {
		case "leader":
			leaders++
		case "follower":
		default:
			return n.id + " is " + role
		}
		if s := list[i].GetState(); s != "ready" {
			return n.id + " is " + s
		}
	}
	if leaders != 1 {
		return fmt.Sprintf("%d leaders", leaders)
	}
	return ""
}

// leader is the node that leads, as soon as one that can be asked says so.
func (c *cluster) leader(ctx context.Context) (*node, error) {
	for deadline := time.Now().Add(20 * time.Second); ctx.Err() == nil && time.Now().Before(deadline); wait(ctx, 30*time.Millisecond) {
		for _, asked := range c.nodes {
			if !asked.running() || asked.paused {
				continue
			}
			list, err := asked.members(ctx)
			if err != nil {
				continue
			}
			for _, m := range list {
				for _, n := range c.nodes {
					if m.GetRole() == "leader" && n.id == m.GetId() && n.running() && !n.paused {
						return n, nil
					}
				}
			}
		}
	}
	return nil, errNoNode
}

// lastWords is how long a node may take to tell its counts before it is killed.
const lastWords = 200 * time.Millisecond

func (c *cluster) kill(n *node) error {
	if n.running() && !n.paused && !c.options.plain {
		_ = n.tally(context.Background(), lastWords) // best effort: what is not told is lost with the process
	}
	c.model.Node("SIGKILL %s", n.id)
	return n.end(syscall.SIGKILL, 10*time.Second)
}

func (c *cluster) stop(n *node) error {
	if !c.options.plain {
		_ = n.tally(context.Background(), lastWords)
	}
	c.model.Node("SIGTERM %s", n.id)
	began := time.Now()
	err := n.end(syscall.SIGTERM, time.Minute)
	c.model.Node("%s ended after %v", n.id, time.Since(began).Round(time.Millisecond))
	return err
}

func (c *cluster) pause(n *node) {
	c.model.Node("SIGSTOP %s", n.id)
	n.signal(syscall.SIGSTOP)
	n.paused = true
}

func (c *cluster) resume(n *node) {
	c.model.Node("SIGCONT %s", n.id)
	n.signal(syscall.SIGCONT)
	n.paused = false
}

func (c *cluster) wipe(n *node) error {
	c.model.Node("wipe %s", n.id)
	n.damaged = false
	if n.disk != nil {
		return n.disk.Wipe()
	}
	return os.RemoveAll(n.data)
}

// others are the ids of all nodes but one.
func (c *cluster) others(n *node) (out []string) {
	for _, o := range c.nodes {
		if o != n {
			out = append(out, o.id)
		}
	}
	return out
}

// freePort is a loopback port that nobody listens on, below those that the kernel hands out for
// outgoing connections: a node's port must still be free when it starts again.
func freePort() (int, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for range 5000 {
		if ports.next == 0 {
			ports.next = 20000 + os.Getpid()*61%8000 // two that start together are far apart
		}
		ports.next++
		if ports.next > 32000 {
			ports.next = 20000
		}
		address := fmt.Sprintf("127.0.0.1:%d", ports.next)
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		_ = l.Close()
		p, err := net.ListenPacket("udp", address)
		if err != nil {
			continue
		}
		_ = p.Close()
		return ports.next, nil
	}
	return 0, fmt.Errorf("no free port between 20000 and 32000")
}

var ports struct {
	mu   sync.Mutex
	next int
}
