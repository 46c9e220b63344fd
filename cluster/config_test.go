package cluster

import (
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	good := Config{NodeID: "node1", DataDir: t.TempDir(), PeerBind: "127.0.0.1:0", GossipBind: "127.0.0.1:0", BootstrapExpect: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		want   string
		change func(*Config)
	}{
		{"node id: is empty", func(c *Config) { c.NodeID = "" }},
		{"longer than 64", func(c *Config) { c.NodeID = strings.Repeat("x", 65) }},
		{"must not hold spaces, slashes", func(c *Config) { c.NodeID = "a/b" }},
		{"must not hold spaces, slashes", func(c *Config) { c.NodeID = "a b" }},
		{"data folder: is empty", func(c *Config) { c.DataDir = "" }},
		{"peer address: ", func(c *Config) { c.PeerBind = "127.0.0.1" }},
		{"gossip address: ", func(c *Config) { c.GossipBind = "x" }},
		{"advertised peer address: ", func(c *Config) { c.PeerAdvertise = "x" }},
		{"advertised gossip address: ", func(c *Config) { c.GossipAdvertise = "x" }},
		{"there are other nodes to find", func(c *Config) { c.GossipBind, c.BootstrapExpect = "", 3 }},
		{"is negative", func(c *Config) { c.BootstrapExpect = -1 }},
		{"would wait for ever", func(c *Config) { c.BootstrapExpect, c.DataDir = 0, c.DataDir+"/absent" }},
		{"grace period: 1ms is less", func(c *Config) { c.Grace = time.Millisecond }},
		{"less than the heartbeat timeout", func(c *Config) { c.ElectionTimeout = 100 * time.Millisecond }},
		{"more than the heartbeat timeout", func(c *Config) { c.LeaderLeaseTimeout = time.Second }},
	} {
		c := good
		test.change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("want %q, got %v", test.want, err)
		}
	}
}
