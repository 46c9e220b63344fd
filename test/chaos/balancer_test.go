package chaos

import (
	"os"
	"strings"
	"testing"
)

// TestLocalConfig: the shipped balancer's configuration, with this machine's addresses and nothing else changed.
func TestLocalConfig(t *testing.T) {
	shipped, err := os.ReadFile("../../" + balancerConfig)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []*node
	for _, id := range []string{"node1", "node2", "node3"} {
		nodes = append(nodes, &node{id: id, http: "127.0.0.1:81" + id[4:], proxied: "127.0.0.1:91" + id[4:]})
	}
	config, err := localConfig(string(shipped), "127.0.0.1:9000", nodes)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"bind 127.0.0.1:9000\n", "server node2 127.0.0.1:912 check port 812 send-proxy-v2\n", "balance hash var(txn.cid)\n", "http-check disable-on-404\n",
		"on-marked-down shutdown-sessions\n", "tune.bufsize",
	} {
		if !strings.Contains(config, want) {
			t.Errorf("it lacks %q:\n%s", want, config)
		}
	}
	for _, not := range []string{":8083", ":8404", "leastconn", "resolvers"} {
		if strings.Contains(config, not) {
			t.Errorf("it has %q:\n%s", not, config)
		}
	}
	if _, err := localConfig(string(shipped), "127.0.0.1:9000", append(nodes, &node{id: "node4", http: "127.0.0.1:814"})); err == nil {
		t.Error("a node that the balancer does not know is fine")
	}
}
