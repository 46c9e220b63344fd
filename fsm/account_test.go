package fsm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// What TestHistories checks after each entry: every message is accounted for, and reads that use
// an index agree with a look at everything.

// checkRoutes compares routes with the slow way, also those kept from before while the generation
// says that they hold.
func (h *history) checkRoutes() {
	f := h.one()
	for _, topic := range historyTopics {
		want := h.slowRoute(f, topic)
		r := f.Route(topic)
		if got := describeRoute(r); got != want {
			h.rt.Fatalf("route of %s: %s, want %s", topic, got, want)
		}
		kept, ok := h.routes[topic]
		if ok && f == h.routed && kept.Generation == f.RouteGeneration() {
			if got := describeRoute(kept); got != want {
				h.rt.Fatalf("kept route of %s: %s, want %s", topic, got, want)
			}
		}
		h.routes[topic] = r
	}
	h.routed = f
}

func describeRoute(r Route) string {
	var b strings.Builder
	refs := func(list []NodeRef) {
		list = slices.Clone(list)
		slices.SortFunc(list, func(a, b NodeRef) int { return strings.Compare(a.Node, b.Node) })
		fmt.Fprint(&b, list)
	}
	fmt.Fprintf(&b, "%d %v ", r.Persistent, r.QueueQoS0)
	refs(r.Nodes)
	shared := slices.Clone(r.Shared)
	slices.SortFunc(shared, func(a, b SharedRoute) int { return strings.Compare(a.Filter, b.Filter) })
	for _, s := range shared {
		fmt.Fprintf(&b, " %s/%s %d ", s.Group, s.Filter, s.Persistent)
		refs(s.Nodes)
	}
	return b.String()
}

func (h *history) slowRoute(f *FSM, topic string) string {
	var r Route
	place := func(filter, group string) (*byte, *[]NodeRef) {
		if group == "" {
			return &r.Persistent, &r.Nodes
		}
		for i := range r.Shared {
			if s := &r.Shared[i]; s.Filter == filter && s.Group == group {
				return &s.Persistent, &s.Nodes
			}
		}
		r.Shared = append(r.Shared, SharedRoute{Filter: filter, Group: group})
		s := &r.Shared[len(r.Shared)-1]
		return &s.Persistent, &s.Nodes
	}
	add := func(list *[]NodeRef, ref NodeRef) {
		if !slices.Contains(*list, ref) {
			*list = append(*list, ref)
		}
	}
	for _, c := range f.clients.byID {
		for _, s := range c.subscriptions() {
			if !matches(s.Filter, topic) {
				continue
			}
			persistent, nodes := place(s.Filter, s.Group)
			*persistent = max(*persistent, s.QoS+1)
			r.Persistent = max(r.Persistent, s.QoS+1)
			r.QueueQoS0 = r.QueueQoS0 || c.sess.limits.QueueQoS0
			if c.online() {
				add(nodes, c.owner.ref())
			}
		}
	}
	f.interest.rows.Scan(func(row interestRow) bool {
		if matches(row.filter, topic) && row.owner.live {
			_, nodes := place(row.filter, row.group)
			add(nodes, row.owner.ref())
		}
		return true
	})
	return describeRoute(r)
}

func (h *history) account(cmds []*fsmpb.Command, before, after map[queuedEntry]Entry, replaced map[string]bool, counting bool) {
	explained := make(map[string]func(uint64) bool)
	for _, cmd := range cmds {
		var p *fsmpb.Progress
		id := ""
		switch op := cmd.Op.(type) {
		case *fsmpb.Command_Progress:
			p, id = op.Progress, op.Progress.ClientId
		case *fsmpb.Command_Disconnect:
			p, id = op.Disconnect.Progress, op.Disconnect.ClientId
		}
		if p == nil {
			continue
		}
		prev := explained[id]
		explained[id] = func(seq uint64) bool {
			if prev != nil && prev(seq) || seq <= p.Cursor {
				return true
			}
			for _, list := range [][]uint64{p.Done, p.Received} {
				for i := 0; i < len(list); i += 2 {
					if seq >= list[i] && seq <= list[i+1] {
						return true
					}
				}
			}
			for _, d := range p.Drops {
				if d.Seq == seq {
					return true
				}
			}
			return false
		}
	}
	drops := make(map[string]int)
	for _, list := range h.effects {
		for _, e := range list {
			if e.Kind == EffectDropped && (e.Reason == ReasonExpired || e.Reason == ReasonSessionEnded || e.Reason == ReasonNoMember || e.Reason == ReasonQueueFull) {
				drops[e.Client] += e.N
			}
		}
	}
	missing, handed := make(map[string]int), make(map[string]int)
	for k, e := range before {
		if _, still := after[k]; still && !replaced[k.client] {
			continue
		}
		if ex := explained[k.client]; ex != nil && ex(k.seq) {
			continue
		}
		if replaced[k.client] && e.Group != "" && e.QoS > 0 {
			handed[k.client]++
		}
		missing[k.client]++
	}
	if !counting || h.one().members.first() == "" {
		return // no living node was there to count
	}
	for id, n := range missing {
		if n > drops[id]+handed[id] {
			for k, e := range before {
				if _, still := after[k]; k.client == id && !still {
					h.rt.Logf("gone: %v %+v of %+v", k, e, e.Message)
				}
			}
			for node, list := range h.effects {
				for _, e := range list {
					h.rt.Logf("%s: %s", node, h.describe(e))
				}
			}
			h.rt.Fatalf("entry %d: %d entries of %s are gone, %d counted, %d for other members, replaced %v, commands %v",
				h.index, n, id, drops[id], handed[id], replaced[id], cmds)
		}
	}
}

// assigned are the messages that wait for clean members, by id.
func (h *history) assigned() map[uint64]assignment {
	out := make(map[uint64]assignment)
	h.one().assigned.rows.Scan(func(a assignment) bool {
		out[a.id] = a
		return true
	})
	return out
}

// accountShared checks that what one member of a group has not delivered went to another, or was
// counted.
func (h *history) accountShared(cmds []*fsmpb.Command, before, after map[queuedEntry]Entry, assigned map[uint64]assignment, replaced map[string]bool, counting bool) {
	now := h.assigned()
	excused := !counting || h.one().members.first() == ""
	ended := false // counted with the session of the member that had claimed it
	delivered := make(map[uint64]bool)
	for _, list := range h.effects {
		for _, e := range list {
			excused = excused || e.Kind == EffectDropped && (e.Reason == ReasonNoMember || e.Reason == ReasonQueueFull || e.Reason == ReasonExpired)
			ended = ended || e.Kind == EffectDropped && e.Reason == ReasonSessionEnded
			if e.Kind == EffectDeliver0 {
				delivered[e.Entry.Message.ID] = true
			}
		}
	}
	confirmed := make(map[uint64]bool)
	connects := make(map[string]int)
	for _, cmd := range cmds {
		switch op := cmd.Op.(type) {
		case *fsmpb.Command_SharedDone:
			for _, id := range op.SharedDone.Confirmed {
				confirmed[id] = true
			}
		case *fsmpb.Command_Connect:
			connects[op.Connect.ClientId]++
		case *fsmpb.Command_Progress, *fsmpb.Command_Disconnect: // may have settled it in the same batch
			excused = true
		}
	}
	if excused {
		return
	}
	placed := func(m *Message, group, not string) bool {
		for k, e := range after {
			if e.Message.ID == m.ID && e.Group == group && (k.client != not || replaced[not]) {
				return true
			}
		}
		for _, a := range now {
			if a.message.ID == m.ID && a.group == group {
				return true
			}
		}
		return delivered[m.ID]
	}
	for id, a := range assigned {
		if _, still := now[id]; !still && !confirmed[id] && !(a.claimed && ended) && !placed(a.message, a.group, "") {
			h.rt.Fatalf("entry %d: message %d of group %s is gone", h.index, a.message.ID, a.group)
		}
	}
	for k, e := range before {
		// A connection that came and went in this entry may have sent more than the marks tell.
		if connects[k.client] > 1 {
			continue
		}
		if !replaced[k.client] || e.Group == "" || e.QoS == 0 || e.QoS == 2 && e.Seq <= h.oldMarks[k.client] || e.Message.expired(h.one().Now()) {
			continue
		}
		if !placed(e.Message, e.Group, k.client) {
			h.rt.Logf("%+v\ncommands %v", e, cmds)
			for node, list := range h.effects {
				for _, e := range list {
					h.rt.Logf("%s: %s", node, h.describe(e))
				}
			}
			h.rt.Fatalf("entry %d: message %d of %s, group %s, has no other member", h.index, e.Message.ID, k.client, e.Group)
		}
	}
}

// expect works out what a publish owes each session, the slow way.
func (h *history) expect(node string, cmd *fsmpb.Command) map[string]Entry {
	op, ok := cmd.Op.(*fsmpb.Command_Publish)
	if !ok || op.Publish.PacketId != 0 {
		return nil
	}
	p := op.Publish
	if ref, ok := h.one().Live(node); !ok || ref.Incarnation != h.inc[node] {
		return nil
	}
	if due, ok := h.one().NextDue(); ok && due <= h.clock {
		return nil // timers go first and change the picture
	}
	if i, ok := h.one().Session(p.ClientId); p.Epoch != 0 && (!ok || Epoch(p.Epoch) < i.Epoch) {
		return map[string]Entry{}
	}
	out := make(map[string]Entry)
	h.one().Sessions("", func(i SessionInfo) bool {
		found, qos, rap := false, byte(0), false
		var ids []uint32
		h.one().Subscriptions(i.ClientID, func(id string, s Subscription) bool {
			if id != i.ClientID {
				return false
			}
			if s.Group == "" && matches(s.Filter, p.Topic) && !(s.NoLocal && id == p.ClientId) {
				found, qos, rap = true, max(qos, s.QoS), rap || s.RetainAsPublished
				if s.ID != 0 {
					ids = append(ids, s.ID)
				}
			}
			return true
		})
		if found {
			out[i.ClientID] = Entry{QoS: min(qos, byte(p.Qos)), Retain: rap && p.Retain, IDs: ids}
		}
		return true
	})
	return out
}

// verify compares it with what the last entry put into the queues.
func (h *history) verify(want map[string]Entry) {
	for id, c := range h.one().clients.byID {
		if c.sess == nil {
			continue
		}
		var got []Entry
		for _, e := range c.sess.queue {
			if e.Message.ID >= uint64(EpochAt(h.index, 0)) && e.Group == "" {
				got = append(got, e)
			}
		}
		w, ok := want[id]
		if !ok || w.QoS == 0 && (c.online() || !c.sess.limits.QueueQoS0) {
			if len(got) != 0 {
				h.rt.Fatalf("%s got %v", id, got)
			}
			continue
		}
		full := false
		for _, e := range h.effects[h.counted()] {
			full = full || e.Kind == EffectDropped && e.Client == id && (e.Reason == ReasonQueueFull || e.Reason == ReasonExpired)
		}
		if full {
			continue
		}
		if len(got) != 1 || got[0].QoS != w.QoS || got[0].Retain != w.Retain || len(got[0].IDs) != len(w.IDs) {
			for node, list := range h.effects {
				for _, e := range list {
					h.rt.Logf("%s: %s", node, h.describe(e))
				}
			}
			h.rt.Fatalf("%s got %v, want %v", id, got, w)
		}
		for i := 1; i < len(got[0].IDs); i++ {
			if got[0].IDs[i] < got[0].IDs[i-1] {
				h.rt.Fatalf("identifiers %v", got[0].IDs)
			}
		}
	}
}

// counted is the node that made the effects of the last entry.
func (h *history) counted() string {
	for n, list := range h.effects {
		for _, e := range list {
			if e.Kind == EffectResult || e.Kind == EffectDropped {
				return n
			}
		}
	}
	return ""
}

// drain ends all nodes and lets everything run out: nothing may be left.
func (h *history) drain() {
	for _, n := range historyNodes {
		h.observe(nil, func() { h.down(n) })
	}
	for {
		ref, ok := h.one().NeedsReap()
		if !ok {
			break
		}
		h.observe(nil, func() { h.reap(ref.Node, ref.Incarnation, 2) })
	}
	h.clock += 1_000_000
	h.observe(nil, h.tick)
	c := h.one().Counts()
	c.Members, c.Retained, c.RetainedBytes = 0, 0, 0
	if c != (Counts{}) {
		h.rt.Fatalf("left over: %+v", c)
	}
	if h.one().topics.root.filter != nil || !h.one().topics.root.empty() {
		h.rt.Fatalf("the tree of filters is not empty")
	}
}

// matches is the definition of [MQTT-4.7], level by level.
func matches(filter, name string) bool {
	if strings.HasPrefix(name, "$") && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	fs, ns := strings.Split(filter, "/"), strings.Split(name, "/")
	for i, f := range fs {
		if f == "#" {
			return true
		}
		if i >= len(ns) || f != "+" && f != ns[i] {
			return false
		}
	}
	return len(fs) == len(ns)
}
