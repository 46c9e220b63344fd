package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/skein-mqtt/skein/cluster/certs"
	"github.com/skein-mqtt/skein/node/operators"
)

// Loopback tells whether only this host can reach an address that is listened on.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// httpAnonymous are the values of http.anonymous.
var httpAnonymous = []string{"none", "metrics", "view"}

// checkPair wants both files of a port's certificate, or none.
func checkPair(bad func(key, format string, args ...any), section, cert, key, ca string) {
	switch {
	case (cert == "") != (key == ""):
		bad(section+".cert", "and %s.key belong together: one of them is missing", section)
	case cert == "" && ca != "":
		bad(section+".ca", "wants %s.cert and %[1]s.key beside it", section)
	}
}

// checkOperators refuses ports for operators that would be open to everybody, or to nobody.
func (c *Config) checkOperators(bad func(key, format string, args ...any)) {
	a := &c.Admin
	checkPair(bad, "admin", a.Cert, a.Key, a.CA)
	checkPair(bad, "http", c.HTTP.Cert, c.HTTP.Key, c.HTTP.CA)
	if _, err := operators.ParseRole(a.LocalRole); err != nil {
		bad("admin.local_role", "%w", err)
	}
	if !slices.Contains(httpAnonymous, c.HTTP.Anonymous) {
		bad("http.anonymous", "is %q: it can be none, metrics or view", c.HTTP.Anonymous)
	}
	if a.Listen == "" || Loopback(a.Listen) && a.Cert == "" {
		return
	}
	switch {
	case a.Cert == "":
		bad("admin.listen", "%q can be reached from other hosts: set admin.cert and admin.key (or cluster.certs), or listen on loopback or admin.socket", a.Listen)
	case a.CA == "" && a.Operators == "":
		bad("admin.listen", "%q lets nobody in: set admin.ca or admin.operators_file", a.Listen)
	}
}

// checkNodes refuses ports for other nodes that would be open to everybody.
func (c *Config) checkNodes(bad func(key, format string, args ...any)) {
	n := &c.Cluster
	if given := []bool{n.Cert != "", n.Key != "", n.CA != ""}; slices.Contains(given, true) && slices.Contains(given, false) {
		bad("cluster.cert", "cluster.key and cluster.ca belong together: one of them is missing")
	}
	if n.Insecure {
		return
	}
	const remedy = "make certificates with 'skein certs init' and name their folder with cluster.certs, or set cluster.insecure: true where nobody else is on the network"
	if n.Cert == "" && !Loopback(c.Peer.Listen) {
		bad("peer.listen", "%q can be reached from other hosts, which could pass for nodes: "+remedy, c.Peer.Listen)
	}
	if c.Gossip.KeyFile == "" && !Loopback(c.Gossip.Listen) {
		bad("gossip.listen", "%q can be reached from other hosts, which could pass for nodes: "+remedy, c.Gossip.Listen)
	}
}

// fill derives what was left empty from what was not.
func (c *Config) fill() {
	n, a := &c.Cluster, &c.Admin
	if n.Certs != "" {
		for _, f := range []struct {
			to   *string
			name string
		}{{&n.Cert, certs.CertFile}, {&n.Key, certs.KeyFile}, {&n.CA, certs.CAFile}, {&c.Gossip.KeyFile, certs.GossipFile}} {
			if *f.to == "" {
				*f.to = filepath.Join(n.Certs, f.name)
			}
		}
	}
	if a.Listen != "" && !Loopback(a.Listen) && a.Cert == "" && a.Key == "" && n.Cert != "" {
		a.Cert, a.Key = n.Cert, n.Key
		if a.CA == "" {
			a.CA = n.CA
		}
	}
}
