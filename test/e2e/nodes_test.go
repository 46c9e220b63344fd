package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// must runs a skein command that must succeed.
func must(t *testing.T, args ...string) {
	t.Helper()
	if code, out, errs := skein(t, nil, args...); code != 0 {
		t.Fatalf("skein %s: %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
}

// openssl says hello to a port; with -ign_eof it also waits for what the port says, for three seconds at most.
func openssl(t *testing.T, port string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", append([]string{"s_client", "-connect", port, "-alpn", "skein-peer/1"}, args...)...)
	cmd.Stdin = strings.NewReader("SKN\x01g\x05skein\x00\x00" + strings.Repeat("x", 100))
	cmd.WaitDelay = time.Second
	out, _ := cmd.CombinedOutput() // that it fails is what is looked for in the output
	return string(out)
}

// Nodes prove themselves with certificates, and gossip is encrypted: whoever has none of this cluster's can neither
// join nor listen nor read. Certificates and keys are replaced while the cluster runs.
func TestNodesProveThemselves(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	beside(t)
	dir := t.TempDir()
	in := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	all := []string{"--node", "node1", "--node", "node2", "--node", "node3", "--operator", "ann"}
	must(t, append([]string{"certs", "init", "--dir", in("ca"), "--out", in("certs")}, all...)...)
	must(t, append([]string{"certs", "init", "--dir", in("twin"), "--out", in("forged")}, all...)...)
	c := h.Start(t, 3, append(flags[:len(flags):len(flags)], "--certs", in("certs", h.NodeName))...)
	traffic := func(from, to int) {
		t.Helper()
		sub := h.NewSession(t, "sub", h.V5)
		sub.Clean = true
		sub.Connect(c.Node(to))
		sub.Subscribe(1, "news")
		pub := h.NewSession(t, "pub", h.V5)
		pub.Clean = true
		pub.Connect(c.Node(from))
		publishAll(t, pub, "news", 1, []string{"1", "2", "3"})
		sub.Receive(3)
		same(t, "what came over the links", sub.Got, []string{"1", "2", "3"})
	}
	traffic(1, 3)

	port := c.Node(1).Peer
	pem := func(folder, who string) []string {
		return []string{"-cert", in(folder, who, "cert.pem"), "-key", in(folder, who, "key.pem")}
	}
	for what, args := range map[string][]string{
		"no certificate": nil, "another authority's": pem("forged", "node2"), "an operator's": pem("certs", "ann"),
	} {
		out := openssl(t, port, append(args, "-ign_eof")...)
		if !strings.Contains(out, "alert") || strings.Contains(out, "no peer certificate available") {
			t.Errorf("%s: it was not refused in the handshake, or was not heard:\n%s", what, out)
		}
		if strings.Contains(out, "\x00\x05skein") {
			t.Errorf("%s: the port has answered", what)
		}
	}
	if out := openssl(t, port, append(pem("certs", "node2"), "-ign_eof")...); strings.Contains(out, "alert") || !strings.Contains(out, "\x00\x00") {
		t.Errorf("a node's certificate: it was refused:\n%s", out)
	}
	if out := openssl(t, port, append(pem("certs", "node2"), "-tls1_2")...); !strings.Contains(out, "alert protocol version") {
		t.Errorf("TLS 1.2:\n%s", out)
	}

	// Rogue nodes that know all names and addresses.
	members := func() string {
		var ids []string
		for _, m := range c.Members() {
			ids = append(ids, m.Id)
		}
		return strings.Join(ids, " ")
	}
	rogues := map[string][]string{
		"without anything":             nil,
		"of another authority":         {"--certs", in("forged", "node3")},
		"with the right certificate":   {"--certs", in("certs", "node3"), "--set", "gossip.key_file=" + in("forged", "node3", "gossip.keys")},
		"with the right key of gossip": {"--certs", in("forged", "node3"), "--set", "gossip.key_file=" + in("certs", "node3", "gossip.keys")},
	}
	said := make(map[string]string)
	var mu sync.Mutex
	var group sync.WaitGroup
	for what, args := range rogues {
		data := filepath.Join(t.TempDir(), "data")
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, h.Binary(t), append([]string{
				"run", "--node-id", "node3", "--data", data, "--listen", "tcp://127.0.0.1:0", "--http", "", "--admin", "",
				"--peer", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--join", c.Node(1).Gossip + "," + c.Node(2).Gossip, "--bootstrap-expect", "3",
			}, args...)...)
			cmd.Env = h.Environment()
			out, _ := cmd.CombinedOutput() // it ends by the time limit
			mu.Lock()
			defer mu.Unlock()
			said[what] = string(out)
		})
	}
	group.Wait()
	for what, text := range said {
		if what == "with the right key of gossip" { // it finds the nodes, and that is all
			if !strings.Contains(text, "node found") {
				t.Errorf("%s: it finds nobody:\n%s", what, text)
			}
		} else if strings.Contains(text, "node found") {
			t.Errorf("%s: it hears gossip:\n%s", what, text)
		}
		if !strings.Contains(text, "node starts") || strings.Contains(text, "node is in service") || members() != "node1 node2 node3" {
			t.Errorf("%s: the members are %s, and it says\n%s", what, members(), text)
		}
	}
	traffic(2, 1)

	// A certificate is replaced: new connections see it.
	before := serial(openssl(t, port, pem("certs", "node2")...))
	must(t, "certs", "issue", "node1", "--dir", in("ca"), "--out", in("certs"))
	h.Await(t, "the new certificate", func() bool {
		now := serial(openssl(t, port, pem("certs", "node2")...))
		return now != "" && now != before
	})
	// The keys of gossip are replaced, step by step on all nodes.
	read := func() (counts [3]int) {
		for i := range counts {
			log, err := os.ReadFile(c.Node(i + 1).Log)
			if err != nil {
				t.Fatal(err)
			}
			counts[i] = strings.Count(string(log), "the keys of gossip were read again")
		}
		return counts
	}
	for _, step := range []string{"add", "use", "prune"} {
		must(t, "keyring", step, in("ca", "gossip.keys"))
		data, err := os.ReadFile(in("ca", "gossip.keys"))
		if err != nil {
			t.Fatal(err)
		}
		before := read()
		for i := 1; i <= 3; i++ {
			if err := os.WriteFile(in("certs", c.Node(i).ID, "gossip.keys"), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		h.Await(t, "all nodes have the keys of step "+step, func() bool {
			now := read()
			return now[0] > before[0] && now[1] > before[1] && now[2] > before[2]
		})
	}
	traffic(3, 2)
	// A node that comes back with the new keys is found; one with the old would not be.
	c.Node(3).Stop()
	c.Node(3).Start()
	c.Node(3).WaitReady()
	traffic(3, 1)
	for i := 1; i <= 3; i++ {
		log, err := os.ReadFile(c.Node(i).Log)
		if err != nil || strings.Contains(string(log), "level=ERROR") {
			t.Errorf("node%d: %v\n%s", i, err, log)
		}
	}
}

// serial is a line of the certificate that openssl has seen.
func serial(out string) string {
	_, tail, _ := strings.Cut(out, "-----BEGIN CERTIFICATE-----")
	cert, _, _ := strings.Cut(tail, "-----END")
	return cert
}
