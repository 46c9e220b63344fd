package fsm

import (
	"github.com/tidwall/btree"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// assignment is a message at QoS 1 or 2 that was given to the clean members of a group on a node.
// The log keeps it until the node has delivered it, hands it back or ends.
type assignment struct {
	inc     uint64
	id      uint64
	message *Message
	filter  string
	group   string
	claimed bool // a member may have it: it is nobody else's, unless the node hands it back
}

type assignments struct {
	rows *btree.BTreeG[assignment]
}

func newAssignments() assignments {
	return assignments{btree.NewBTreeGOptions(func(a, b assignment) bool {
		if a.inc != b.inc {
			return a.inc < b.inc
		}
		return a.id < b.id
	}, btree.Options{NoLocks: true})}
}

func (t *assignments) first(inc uint64) (a assignment, ok bool) {
	t.rows.Ascend(assignment{inc: inc}, func(row assignment) bool {
		a, ok = row, row.inc == inc
		return false
	})
	return a, ok
}

func (t *assignments) remove(a assignment) { t.rows.Delete(a) }

// turn picks the member whose turn it is: a connected persistent one, or a node for one of its
// clean members, each with the weight of one subscriber; if none is connected, an offline session
// that would queue the message. avoid is a node that has just handed it back: it comes last.
func (f *FSM) turn(g *group, m *Message, avoid *incarnation) (*subscription, *incarnation) {
	total := 0
	var back *incarnation
	for i := range g.nodes {
		p := &g.nodes[i]
		switch {
		case !p.inc.live:
		case p.inc == avoid:
			total += p.online
			if p.clean > 0 {
				back = p.inc
			}
		default:
			total += p.online + p.clean
		}
	}
	if total == 0 {
		if back != nil {
			return nil, back
		}
		return f.turnOffline(g, m), nil
	}
	n := f.nextTurn(g, total)
	for i := range g.nodes {
		p := &g.nodes[i]
		if !p.inc.live {
			continue
		}
		if n < p.online {
			return g.onlineMember(p.inc, n), nil
		}
		n -= p.online
		if p.inc != avoid {
			if n < p.clean {
				return nil, p.inc
			}
			n -= p.clean
		}
	}
	panic("fsm: a group's presence does not add up")
}

func (f *FSM) nextTurn(g *group, of int) int {
	f.touchGroup(g)
	n := int(g.turn % uint64(of))
	g.turn++
	return n
}

func (g *group) onlineMember(inc *incarnation, n int) *subscription {
	for _, s := range g.members {
		if s.client.owner == inc {
			if n == 0 {
				return s
			}
			n--
		}
	}
	panic("fsm: a group's members do not add up")
}

func (f *FSM) turnOffline(g *group, m *Message) *subscription {
	takes := func(s *subscription) bool {
		return min(s.qos, m.QoS) > 0 || s.client.sess.limits.QueueQoS0
	}
	n := 0
	for _, s := range g.members {
		if takes(s) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	n = f.nextTurn(g, n)
	for _, s := range g.members {
		if takes(s) {
			if n == 0 {
				return s
			}
			n--
		}
	}
	return nil
}

// share gives a message to one member of a group. ok is true when that is a clean member of this
// very node, which must then act on pick.
func (f *FSM) share(g *group, m *Message, avoid *incarnation) (pick Pick, ok bool) {
	s, inc := f.turn(g, m, avoid)
	if s != nil {
		f.give(s.client, Entry{
			Message: m, QoS: min(m.QoS, s.qos), Retain: m.Retain && s.retainAsPublished, IDs: s.ids,
			Filter: g.filter.name, Group: g.name,
		})
	}
	if inc == nil {
		return Pick{}, false
	}
	pick = Pick{Filter: g.filter.name, Group: g.name}
	if m.QoS > 0 { // QoS 0 is not owed to anyone
		pick.ID = f.nextID()
		f.assigned.rows.Set(assignment{inc: inc.number, id: pick.ID, message: m, filter: pick.Filter, group: pick.Group})
	}
	return pick, inc.node == f.node
}

// assign finds another member for a message that one has not delivered: client, if that is known.
func (f *FSM) assign(client string, m *Message, filterName, groupName string, avoid *incarnation) {
	if m.expired(f.now) {
		f.dropped(client, ReasonExpired, 1)
		return
	}
	var g *group
	if fl := f.topics.get(filterName); fl != nil {
		g = fl.group(groupName)
	}
	if g == nil || !g.takes(m) {
		f.dropped(client, ReasonNoMember, 1)
		return
	}
	if pick, ok := f.share(g, m, avoid); ok {
		f.emit(Effect{Kind: EffectPicked, Message: m, Picks: []Pick{pick}})
	}
}

// takes tells whether any member, here or to come, can have the message.
func (g *group) takes(m *Message) bool {
	if g.connected() {
		return true
	}
	for _, s := range g.members {
		if min(s.qos, m.QoS) > 0 || s.client.sess.limits.QueueQoS0 {
			return true
		}
	}
	return false
}

// connected tells whether any member is connected.
func (g *group) connected() bool {
	for i := range g.nodes {
		if g.nodes[i].inc.live {
			return true
		}
	}
	return false
}

// sharedDone settles assignments of the batch's origin. Ids that are settled already are ignored.
func (f *FSM) sharedDone(cmd *fsmpb.SharedDone, r *Result) {
	for _, id := range cmd.Confirmed {
		f.assigned.remove(assignment{inc: f.origin.number, id: id})
	}
	for _, id := range cmd.Claimed {
		if a, ok := f.assigned.rows.Get(assignment{inc: f.origin.number, id: id}); ok {
			a.claimed = true
			f.assigned.rows.Set(a)
		}
	}
	for _, id := range cmd.Returned {
		a, ok := f.assigned.rows.Delete(assignment{inc: f.origin.number, id: id})
		if ok {
			f.assign("", a.message, a.filter, a.group, f.origin)
		}
	}
}
