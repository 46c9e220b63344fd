package cluster

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/cluster/certs"
	"github.com/skein-mqtt/skein/cluster/peer"
	"github.com/skein-mqtt/skein/proto/certname"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// credentials issues a certificate for a node of the test's cluster.
func credentials(t *testing.T, a *certs.Authority, node string) *certs.Credentials {
	t.Helper()
	dir := t.TempDir()
	if err := a.Issue(dir, certname.Node(a.Cluster, node), nil, certs.Life); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	c, err := certs.Load(certs.Config{Cert: file(certs.CertFile), Key: file(certs.KeyFile), CA: file(certs.CAFile), Cluster: a.Cluster, Node: node})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSecured: nodes with certificates and keys of gossip form a cluster, and one goes on when a node comes back. Whoever
// lacks the one or the other is not let in, and one node can't speak in another's name.
func TestSecured(t *testing.T) {
	t.Parallel()
	a, err := certs.Create(t.TempDir(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	keys := [][]byte{[]byte("0123456789abcdef")}
	w := newWorld(t, 3)
	w.secure = func(n *node, cfg *Config) { cfg.Security, cfg.GossipKeys = credentials(t, a, n.id), keys }
	root := t.TempDir()
	for _, id := range []string{"node1", "node2", "node3"} {
		w.nodes[id] = &node{w: w, id: id, dir: filepath.Join(root, id)}
		w.nodes[id].start()
	}
	w.serving("node1", "node2", "node3")
	w.leader().barrier(w.follower().propose("a").Index)
	n := w.nodes["node2"]
	n.close()
	n.start()
	w.serving("node2")

	twin, err := certs.Create(t.TempDir(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	address := w.nodes["node1"].PeerAddress()
	for _, rogue := range []struct {
		what     string
		security peer.Security
		want     string
	}{
		{"no certificate", nil, "wants a certificate"},
		{"another authority", credentials(t, twin, "node9"), "certificate"},
	} {
		port := rogues(t, w, rogue.security)
		err := joins(t, port, address, "node9")
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), rogue.want) {
			t.Errorf("%s: %v", rogue.what, err)
		}
		if _, err := port.DialOrders(ctx(t), address); err == nil {
			t.Errorf("%s: orders are taken", rogue.what)
		}
		s := port.Raft(func(string) (string, string, bool) { return w.nodes["node1"].ServerID(), address, true })
		if _, err := s.Dial("x", patience); err == nil {
			t.Errorf("%s: a stream of raft's was taken", rogue.what)
		}
	}
	w.until("six refused", func() bool { return w.nodes["node1"].PeersRefused() >= 6 })
	// A node with a certificate that asks in its own name is heard, in another's it is not.
	port := rogues(t, w, credentials(t, a, "node4"))
	if err := joins(t, port, address, "node4"); err != nil {
		t.Errorf("in its own name: %v", err)
	}
	if err := joins(t, port, address, "node1"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("in another's name: %v", err)
	}
	client, err := port.Control(address)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := client.Lease(ctx(t))
	if err == nil {
		err = errors.Join(stream.Send(&clusterpb.LeaseRequest{Node: "node3", WantLease: true}))
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("a lease in another's name: %v", err)
	}
	// A stream of raft's leads to the node that has the certificate, or nowhere.
	s := port.Raft(func(string) (string, string, bool) { return "node2/x", address, true })
	if _, err := s.Dial("x", patience); !errors.Is(err, peer.ErrOtherServer) {
		t.Errorf("a stream to another node: %v", err)
	}
	// Gossip: the name alone opens nothing.
	w.secure = func(n *node, cfg *Config) { cfg.Security = credentials(t, a, n.id) }
	deaf := &node{w: w, id: "node5", dir: filepath.Join(root, "node5")}
	w.nodes["node5"] = deaf
	deaf.start()
	w.nodes["node6"] = &node{w: w, id: "node6", dir: filepath.Join(root, "node6")}
	w.secure = func(n *node, cfg *Config) { cfg.Security, cfg.GossipKeys = credentials(t, a, n.id), keys }
	w.nodes["node6"].start() // later than the other, and heard
	w.serving("node6")
	if got := deaf.others(); len(got) > 0 {
		t.Errorf("without the key it hears %v", got)
	}
}

// rogues is a port of somebody who knows the cluster's name.
func rogues(t *testing.T, w *world, security peer.Security) *peer.Port {
	t.Helper()
	p, err := peer.Open(peer.Config{Bind: "127.0.0.1:0", Cluster: w.t.Name(), Server: "node9/x", Identity: stranger{}, Security: security})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

type stranger struct{}

func (stranger) Get() string        { return "" }
func (stranger) Adopt(string) error { return nil }

func joins(t *testing.T, p *peer.Port, address, node string) error {
	t.Helper()
	client, err := p.Control(address)
	if err != nil {
		t.Fatal(err)
	}
	within, cancel := context.WithTimeout(ctx(t), 10*time.Second)
	defer cancel()
	_, err = client.Join(within, &clusterpb.JoinRequest{Node: node, Cluster: t.Name(), StoreId: "x", PeerAddr: p.Address()})
	return err
}
