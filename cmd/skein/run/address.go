package run

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/node/listener"
)

// advertised is what the other nodes are told: the configured address (a HOST alone takes the
// port of the bound one), else the bound one, with a host that can be reached from elsewhere in
// place of a wildcard.
func advertised(key, configured, bound string) (string, error) {
	host, port, err := net.SplitHostPort(bound)
	if err != nil {
		return "", fmt.Errorf("%s.listen: %w", key, err)
	}
	if configured != "" {
		if _, _, err := net.SplitHostPort(configured); err == nil {
			return configured, nil
		}
		return net.JoinHostPort(configured, port), nil
	}
	if host != "" {
		ip, err := netip.ParseAddr(host)
		if err != nil || !ip.IsUnspecified() {
			return bound, nil
		}
	}
	ip, err := ownAddress()
	if err != nil {
		return "", fmt.Errorf("%s.advertise: %s is bound to every address, and %w: set it to the one that the other nodes can reach", key, bound, err)
	}
	return net.JoinHostPort(ip.String(), port), nil
}

// ownAddress is an address of this host that others can reach: a private one if there is any,
// IPv4 before IPv6.
func ownAddress() (netip.Addr, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	var best netip.Addr
	score := 0
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		ip := p.Addr().Unmap()
		if ip.IsLoopback() || ip.IsLinkLocalUnicast() || !ip.IsValid() {
			continue
		}
		s := 1
		if ip.IsPrivate() {
			s += 2
		}
		if ip.Is4() {
			s++
		}
		if s > score {
			best, score = ip, s
		}
	}
	if score == 0 {
		return netip.Addr{}, fmt.Errorf("this host has no address but loopback")
	}
	return best, nil
}

// beyondLoopback are the listeners that others than this host can reach without a certificate, a key or a user name.
// anonymous is what holds where a listener says nothing.
func beyondLoopback(listeners []string, anonymous bool) []string {
	var out []string
	for _, l := range listeners {
		s, err := listener.Parse(l)
		if err != nil || s.Network == "unix" || s.Authenticates() || config.Loopback(s.Address) {
			continue
		}
		if s.Anonymous != nil && *s.Anonymous || s.Anonymous == nil && anonymous {
			out = append(out, l)
		}
	}
	return out
}
