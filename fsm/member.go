package fsm

import (
	"cmp"
	"slices"
	"strings"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// Member is one node of the cluster, as the log knows it.
type Member struct {
	ID          string
	Live        bool
	Incarnation uint64 // the live one, or the last
	Nonce       uint64
	StoreID     string
	PeerAddr    string
	MQTTAddr    string
	AdminAddr   string
	HTTPAddr    string
	Version     string
	Features    uint32
	Since       int64  // the log's clock in ms: up since, or down since
	DownReason  string // of the last NodeDown
}

// incarnation is one life of a node. Whether the connections, interest and assignments that point
// to it are online is read through live, so that its end costs nothing; Reap cleans up behind it.
type incarnation struct {
	node    string
	number  uint64
	next    uint64 // the next sequence of its batches
	live    bool
	endedAt int64
	relays  []relayMark // by target

	// Derived: the clients that it owns, by epoch.
	head, tail *client
	sessions   int
	cleans     int
}

// relayMark is how far the links of an incarnation went through the log.
type relayMark struct {
	target uint64 // incarnation
	seq    uint64
}

func (i *incarnation) ref() NodeRef { return NodeRef{i.node, i.number} }

// before is an order of incarnations that every replica shares.
func (i *incarnation) before(other *incarnation) bool {
	if i.node != other.node {
		return i.node < other.node
	}
	return i.number < other.number
}

type members struct {
	list  []*Member // by id; replaced, never written, so that readers may keep it
	incs  map[uint64]*incarnation
	ended []*incarnation // not cleaned up yet, by number
}

func newMembers() members { return members{incs: make(map[uint64]*incarnation)} }

func (m *members) incarnation(number uint64) *incarnation { return m.incs[number] }

func (m *members) find(id string) (int, bool) {
	return slices.BinarySearchFunc(m.list, id, func(a *Member, id string) int { return strings.Compare(a.ID, id) })
}

func (m *members) get(id string) *Member {
	if i, ok := m.find(id); ok {
		return m.list[i]
	}
	return nil
}

// incarnations are those that are live or not cleaned up yet, by number.
func (m *members) incarnations() []*incarnation {
	list := slices.Clone(m.ended)
	for _, member := range m.list {
		if member.Live {
			list = append(list, m.incs[member.Incarnation])
		}
	}
	slices.SortFunc(list, func(a, b *incarnation) int { return cmp.Compare(a.number, b.number) })
	return list
}

// put adds or replaces a member.
func (m *members) put(member *Member) {
	i, ok := m.find(member.ID)
	m.list = slices.Clone(m.list)
	if ok {
		m.list[i] = member
	} else {
		m.list = slices.Insert(m.list, i, member)
	}
}

// level is FeatureLevel.
func (t *members) level() (level uint32) {
	for i, m := range t.list {
		if i == 0 || m.Features < level {
			level = m.Features
		}
	}
	return level
}

// first is the live member with the lowest id: where drops that no node's command caused are
// counted.
func (m *members) first() string {
	for _, member := range m.list {
		if member.Live {
			return member.ID
		}
	}
	return ""
}

// end notes that an incarnation is over.
func (m *members) end(inc *incarnation) {
	i, _ := slices.BinarySearchFunc(m.ended, inc.number, func(a *incarnation, n uint64) int {
		return cmp.Compare(a.number, n)
	})
	m.ended = slices.Insert(m.ended, i, inc)
}

func (f *FSM) nodeUp(up *fsmpb.NodeUp) {
	if up.Node == "" {
		return
	}
	id := strings.Clone(up.Node)
	if old := f.members.get(id); old != nil {
		if old.Live && old.Nonce == up.Nonce {
			return
		}
		id = old.ID
		f.endIncarnation(old, "restarted")
	}
	f.members.put(&Member{
		ID: id, Live: true, Incarnation: f.index, Nonce: up.Nonce,
		StoreID:  strings.Clone(up.StoreId),
		PeerAddr: strings.Clone(up.PeerAddr), MQTTAddr: strings.Clone(up.MqttAddr),
		AdminAddr: strings.Clone(up.AdminAddr), HTTPAddr: strings.Clone(up.HttpAddr),
		Version: strings.Clone(up.Version), Features: up.Features, Since: f.now,
	})
	f.members.incs[f.index] = &incarnation{node: id, number: f.index, next: 1, live: true}
	f.rerouted()
	f.emit(Effect{Kind: EffectNodeUp, Node: NodeRef{id, f.index}})
}

// nodeDown is a leader's verdict, or a drained node's own. In an entry of another term the leader
// that gave it had been deposed: the node may hold a lease of the next one.
func (f *FSM) nodeDown(down *fsmpb.NodeDown, term uint64) {
	m := f.members.get(down.Node)
	if m == nil || !m.Live || m.Incarnation != down.Incarnation || down.Term != term {
		return
	}
	f.endIncarnation(m, strings.Clone(down.Reason))
}

func (f *FSM) endIncarnation(m *Member, reason string) {
	if !m.Live {
		return
	}
	inc := f.members.incarnation(m.Incarnation)
	inc.live, inc.endedAt = false, f.now
	f.members.end(inc)
	changed := *m
	changed.Live, changed.Since, changed.DownReason = false, f.now, reason
	f.members.put(&changed)
	f.counter = f.members.first()
	f.rerouted()
	f.emit(Effect{Kind: EffectNodeDown, Node: inc.ref()})
}

func (f *FSM) nodeRemoved(removed *fsmpb.NodeRemoved) {
	i, ok := f.members.find(removed.Node)
	if !ok || f.members.list[i].Live {
		return
	}
	f.members.list = slices.Delete(slices.Clone(f.members.list), i, i+1)
}

// reapDefault bounds a Reap that names no limit.
const reapDefault = 1024

// reap finishes records of an ended incarnation: at most limit of them, so that the log's other
// work goes on in between.
func (f *FSM) reap(r *fsmpb.Reap) {
	inc := f.members.incarnation(r.Incarnation)
	if inc == nil || inc.live || inc.node != r.Node {
		return
	}
	limit := int(r.Limit)
	if limit <= 0 {
		limit = reapDefault
	}
	for ; limit > 0; limit-- {
		if !f.reapOne(inc) {
			f.forget(inc)
			return
		}
		f.publishWills()
	}
}

func (f *FSM) reapOne(inc *incarnation) bool {
	if p, ok := f.parked.first(inc.number); ok {
		f.parked.remove(p)
		f.willPending(p.client, p.epoch, p.will)
		return true
	}
	if inc.head != nil {
		f.finish(inc.head)
		return true
	}
	if row, ok := f.interest.first(inc.number); ok {
		f.dropInterest(row)
		return true
	}
	if a, ok := f.assigned.first(inc.number); ok {
		f.assigned.remove(a)
		if a.claimed { // the member's session has ended with its node [MQTT-4.8.2-5]
			f.dropped("", ReasonSessionEnded, 1)
			return true
		}
		f.assign("", a.message, a.filter, a.group, nil)
		return true
	}
	return false
}

// forget drops an incarnation of which nothing is left.
func (f *FSM) forget(inc *incarnation) {
	delete(f.members.incs, inc.number)
	f.members.ended = slices.DeleteFunc(f.members.ended, func(e *incarnation) bool { return e == inc })
	for _, m := range f.members.list {
		if other := f.members.incarnation(m.Incarnation); other != nil {
			other.relays = slices.DeleteFunc(other.relays, func(r relayMark) bool { return r.target == inc.number })
		}
	}
}

// relay hands a link's frame to its target through the log, once.
func (f *FSM) relay(r *fsmpb.Relay, res *Result) {
	target := f.members.incarnation(r.TargetIncarnation)
	if target == nil || !target.live || target.node != r.Target {
		res.Code = Stale
		return
	}
	origin := f.origin
	i, ok := slices.BinarySearchFunc(origin.relays, target.number, func(a relayMark, n uint64) int {
		return cmp.Compare(a.target, n)
	})
	if !ok {
		origin.relays = slices.Insert(origin.relays, i, relayMark{target: target.number})
	}
	if r.LinkSeq <= origin.relays[i].seq {
		res.Code = Duplicate
		return
	}
	origin.relays[i].seq = r.LinkSeq
	if target.node == f.node {
		f.emit(Effect{Kind: EffectRelay, Node: origin.ref(), Sequence: r.LinkSeq, Frame: slices.Clone(r.Frame)})
	}
}
