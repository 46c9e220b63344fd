package auth

import (
	"net/netip"

	"github.com/skein-mqtt/skein/fsm"
)

// banTable are the cluster's bans at one version. It is immutable.
type banTable struct {
	version  uint64
	clients  map[string]*fsm.Ban
	users    map[string]*fsm.Ban
	networks map[netip.Prefix]*fsm.Ban
	lengths  []int // of the networks' prefixes; IPv6 ones plus 256
}

// bans are those in force.
func (r *Rules) bans() *banTable {
	t := r.banned.Load()
	if v := r.Version(); t == nil || t.version != v {
		t = r.readBans(v)
		r.banned.Store(t)
	}
	return t
}

func (r *Rules) readBans(version uint64) *banTable {
	t := &banTable{version: version}
	if r.cfg.State == nil {
		return t
	}
	seen := make(map[int]bool)
	put := func(to *map[string]*fsm.Ban, b *fsm.Ban) {
		if *to == nil {
			*to = make(map[string]*fsm.Ban)
		}
		(*to)[b.Value] = b
	}
	r.cfg.State.Bans(0, "", func(b *fsm.Ban) bool {
		switch b.Kind {
		case fsm.BanClient:
			put(&t.clients, b)
		case fsm.BanUser:
			put(&t.users, b)
		case fsm.BanNetwork:
			p, err := netip.ParsePrefix(b.Value)
			if err != nil {
				break // an operator's node has checked it
			}
			if t.networks == nil {
				t.networks = make(map[netip.Prefix]*fsm.Ban)
			}
			t.networks[p.Masked()] = b
			if n := lengthOf(p); !seen[n] {
				seen[n] = true
				t.lengths = append(t.lengths, n)
			}
		}
		return true
	})
	return t
}

func lengthOf(p netip.Prefix) int {
	if p.Addr().Is6() {
		return p.Bits() + 256
	}
	return p.Bits()
}

// has is the ban that keeps a client out; nil: none. A user name may be empty, an address invalid.
func (t *banTable) has(username, clientID string, remote netip.Addr) *fsm.Ban {
	if b := t.clients[clientID]; b != nil {
		return b
	}
	if username != "" {
		if b := t.users[username]; b != nil {
			return b
		}
	}
	if !remote.IsValid() {
		return nil
	}
	remote = remote.Unmap().WithZone("")
	for _, n := range t.lengths {
		if n >= 256 != remote.Is6() {
			continue
		}
		p, err := remote.Prefix(n & 255)
		if err != nil {
			continue
		}
		if b := t.networks[p]; b != nil {
			return b
		}
	}
	return nil
}
