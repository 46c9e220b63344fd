package fsm

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// TestHistories drives whole random histories on three replicas, some of which go through a
// snapshot now and then, and checks after each entry that they agree and that the promises hold.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(rt)
		steps := rapid.IntRange(20, 120).Draw(rt, "steps")
		for range steps {
			h.step()
		}
		h.drain()
	})
}

type queuedEntry struct {
	session string // client id and creation
	client  string
	seq     uint64
}

type history struct {
	*testCluster
	rt       *rapid.T
	before   map[queuedEntry]Entry  // not settled
	bound    map[queuedEntry]uint64 // sequence to message, for ever
	once     map[string]bool        // session, message and group
	top      map[string]Epoch
	oldMarks map[string]uint64 // what could have been sent before the entry
	held     *Snapshot
	heldHash [32]byte
	routes   map[string]Route // as a broker keeps them
	routed   *FSM             // where they came from
	last     []byte
}

var (
	historyNodes   = []string{"n1", "n2", "n3"}
	historyClients = []string{"a", "b", "c", "d"}
	historyTopics  = []string{"t/1", "t/2", "u", "$s/1"}
	historyFilters = []string{"t/1", "t/+", "#", "u", "u/#", "+", "$s/#"}
)

func newHistory(rt *rapid.T) *history {
	h := &history{
		testCluster: newTestCluster(rt, historyNodes...), rt: rt,
		before: make(map[queuedEntry]Entry),
		bound:  make(map[queuedEntry]uint64), once: make(map[string]bool), top: make(map[string]Epoch), routes: make(map[string]Route),
	}
	for _, n := range historyNodes {
		h.up(n)
	}
	for i, c := range historyClients[:3] { // else most histories would be over before anything is queued
		node := historyNodes[i]
		h.batch(node, &fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: &fsmpb.Connect{
			ClientId: c, Persistent: true, Expiry: 30, Limits: &fsmpb.Limits{MaxQueue: 5, Span: 4},
		}}})
		h.batch(node, &fsmpb.Command{Op: &fsmpb.Command_Subscribe{Subscribe: &fsmpb.Subscribe{
			ClientId: c, Epoch: h.epoch(c),
			Subscriptions: []*fsmpb.Subscription{{Filter: h.pick(historyFilters, "filter"), Qos: uint32(h.n(1, 2, "qos"))}, {Filter: "t/1", Group: "g", Qos: 2}},
		}}})
	}
	return h
}

func (h *history) pick(list []string, label string) string {
	return rapid.SampledFrom(list).Draw(h.rt, label)
}

func (h *history) n(lo, hi int, label string) int { return rapid.IntRange(lo, hi).Draw(h.rt, label) }
func (h *history) yes(label string) bool          { return rapid.Bool().Draw(h.rt, label) }

func (h *history) one() *FSM { return h.replicas["n1"] }

func (h *history) step() {
	h.clock += int64(h.n(0, 1500, "ms"))
	h.hold()
	switch k := h.n(0, 99, "kind"); {
	case k < 2:
		h.observe(nil, func() { h.up(h.pick(historyNodes, "node")) })
	case k < 4:
		h.observe(nil, func() { h.down(h.pick(historyNodes, "node")) })
	case k < 12:
		if ref, ok := h.one().NeedsReap(); ok {
			h.observe(nil, func() { h.reap(ref.Node, ref.Incarnation, uint32(h.n(1, 3, "limit"))) })
		}
	case k < 15:
		h.observe(nil, h.tick)
	case k < 20: // a batch that comes twice
		if h.last != nil {
			h.observe(nil, func() { h.entry(h.last) })
			for _, list := range h.effects {
				for _, e := range list {
					if e.Kind == EffectResult || e.Kind == EffectPassed {
						h.rt.Fatalf("a repeated batch did %s", h.describe(e))
					}
				}
			}
		}
	case k < 22: // one that comes too early
		n := h.pick(historyNodes, "node")
		h.observe(nil, func() { h.entry(h.encode(n, h.next[n]+3, h.draw(n))) })
	default:
		n := h.pick(historyNodes, "node")
		var cmds []*fsmpb.Command
		for range h.n(1, 3, "commands") {
			cmds = append(cmds, h.draw(n))
		}
		h.last = h.encode(n, h.next[n], cmds...)
		var expected map[string]Entry
		if len(cmds) == 1 {
			expected = h.expect(n, cmds[0])
		}
		index := h.index
		h.observe(cmds, func() { h.batch(n, cmds...) })
		if expected != nil && h.index == index+1 {
			h.verify(expected)
		}
	}
}

// hold takes a snapshot of a replica and writes it some entries later: it must be what it was.
func (h *history) hold() {
	f := h.replicas["n3"]
	switch {
	case h.held == nil && h.n(0, 4, "hold") == 0:
		h.heldHash, h.held = f.Hash(), f.Snapshot()
	case h.held != nil && h.n(0, 9, "let go") == 0:
		var b bytes.Buffer
		if _, err := h.held.WriteTo(&b); err != nil {
			h.rt.Fatal(err)
		}
		other := New("n3")
		if err := other.Restore(&b); err != nil {
			h.rt.Fatal(err)
		}
		if other.Hash() != h.heldHash {
			h.rt.Fatalf("the snapshot of index %d has changed", h.held.Index())
		}
		h.held.Release()
		h.held = nil
	}
}

// owned draws a client that the node has connected, or any.
func (h *history) owned(node string) (string, uint64) {
	c := h.pick(historyClients, "client")
	var mine []string // most commands come from the owner; the others are refused
	for _, id := range historyClients {
		if i, ok := h.one().Session(id); ok && i.Owner.Node == node {
			mine = append(mine, id)
		}
	}
	if len(mine) > 0 && h.n(0, 9, "mine") > 0 {
		c = h.pick(mine, "owned")
	}
	if e := h.epochs[c]; len(e) > 1 && h.n(0, 9, "old") == 0 {
		return c, uint64(e[len(e)-2])
	}
	return c, h.epoch(c)
}

func (h *history) draw(node string) *fsmpb.Command {
	c, epoch := h.owned(node)
	switch k := h.n(0, 99, "command"); {
	case k < 8:
		cmd := &fsmpb.Connect{
			ClientId: c, CleanStart: h.n(0, 3, "clean") == 0, Persistent: h.n(0, 3, "persistent") > 0, Expiry: uint32(h.n(1, 20, "expiry")),
			Limits: &fsmpb.Limits{MaxQueue: uint32(h.n(0, 6, "max")), Span: uint32(h.n(1, 5, "span")), QueueQos0: h.yes("q0"), DropOldest: h.yes("oldest")},
		}
		if h.yes("will") {
			cmd.Will = &fsmpb.Will{Topic: h.pick(historyTopics, "will topic"), Payload: []byte("w"), Qos: uint32(h.n(0, 2, "wqos")), Delay: uint32(h.n(0, 10, "delay")), Retain: h.yes("wretain")}
		}
		if h.n(0, 9, "late") == 0 {
			cmd.NotAfter = uint64(h.clock) - 1
		}
		return &fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: cmd}}
	case k < 12:
		d := &fsmpb.Disconnect{ClientId: c, Epoch: epoch, Clean: h.yes("clean"), Sent: uint64(h.n(0, 20, "sent")), EndSession: h.n(0, 9, "end") == 0}
		if h.yes("progress") {
			d.Progress = h.progress(c)
		}
		if h.n(0, 3, "override") == 0 {
			d.HasExpiry, d.Expiry = true, uint32(h.n(0, 10, "new expiry"))
		}
		return &fsmpb.Command{Op: &fsmpb.Command_Disconnect{Disconnect: d}}
	case k < 22:
		s := &fsmpb.Subscription{
			Filter: h.pick(historyFilters, "filter"), Qos: uint32(h.n(0, 2, "qos")), NoLocal: h.n(0, 3, "nl") == 0,
			RetainAsPublished: h.yes("rap"), RetainHandling: uint32(h.n(0, 2, "rh")), Id: uint32(h.n(0, 3, "id")),
		}
		if h.n(0, 2, "shared") == 0 {
			s.Group, s.NoLocal = "g", false
		}
		return &fsmpb.Command{Op: &fsmpb.Command_Subscribe{Subscribe: &fsmpb.Subscribe{ClientId: c, Epoch: epoch, Subscriptions: []*fsmpb.Subscription{s}}}}
	case k < 25:
		s := &fsmpb.Subscription{Filter: h.pick(historyFilters, "filter")}
		if h.yes("shared") {
			s.Group = "g"
		}
		return &fsmpb.Command{Op: &fsmpb.Command_Unsubscribe{Unsubscribe: &fsmpb.Unsubscribe{ClientId: c, Epoch: epoch, Subscriptions: []*fsmpb.Subscription{s}}}}
	case k < 31:
		i := &fsmpb.Interest{Filter: h.pick(historyFilters, "filter"), Count: uint32(h.n(0, 2, "count"))}
		if h.yes("shared") {
			i.Group = "g"
		}
		return &fsmpb.Command{Op: &fsmpb.Command_Interest{Interest: i}}
	case k < 70:
		p := &fsmpb.Publish{
			ClientId: c, Epoch: epoch, Topic: h.pick(historyTopics, "topic"), Payload: []byte{byte('a' + h.n(0, 25, "payload"))},
			Qos: uint32(h.n(0, 2, "qos")), Retain: h.n(0, 4, "retain") == 0, HasExpiry: h.n(0, 4, "has expiry") == 0, Expiry: uint32(h.n(0, 5, "expiry")),
		}
		if p.Qos == 2 && h.yes("pid") {
			p.PacketId = uint32(h.n(1, 3, "pid"))
		}
		if h.n(0, 9, "empty") == 0 {
			p.Payload = nil
		}
		return &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: p}}
	case k < 75:
		return &fsmpb.Command{Op: &fsmpb.Command_Release{Release: &fsmpb.Release{ClientId: c, Epoch: epoch, PacketId: uint32(h.n(1, 3, "pid"))}}}
	case k < 92:
		p := h.progress(c)
		p.ClientId, p.Epoch = c, epoch
		return &fsmpb.Command{Op: &fsmpb.Command_Progress{Progress: p}}
	case k < 94:
		to := h.pick(historyNodes, "target")
		return &fsmpb.Command{Op: &fsmpb.Command_Relay{Relay: &fsmpb.Relay{Target: to, TargetIncarnation: h.inc[to], LinkSeq: uint64(h.n(1, 5, "link")), Frame: []byte("f")}}}
	case k < 98:
		d := &fsmpb.SharedDone{}
		h.one().assigned.rows.Scan(func(a assignment) bool {
			switch h.n(0, 3, "settle") {
			case 2:
				d.Claimed = append(d.Claimed, a.id)
			case 0:
				d.Confirmed = append(d.Confirmed, a.id)
			case 1:
				d.Returned = append(d.Returned, a.id)
			}
			return true
		})
		return &fsmpb.Command{Op: &fsmpb.Command_SharedDone{SharedDone: d}}
	default:
		return &fsmpb.Command{Op: &fsmpb.Command_DeleteSession{DeleteSession: &fsmpb.DeleteSession{ClientId: c, Epoch: epoch}}}
	}
}

func (h *history) progress(client string) *fsmpb.Progress {
	p := &fsmpb.Progress{}
	v, ok := h.one().View(client)
	if !ok {
		return p
	}
	last := int(v.Last)
	if h.yes("move") {
		p.Cursor = uint64(h.n(int(v.Cursor), min(last, int(v.Cursor)+2), "cursor"))
	}
	span := func(label string) []uint64 {
		if last == 0 {
			return nil
		}
		lo := h.n(1, last, label)
		return []uint64{uint64(lo), uint64(h.n(lo, min(last, lo+1), label))}
	}
	if h.yes("done") {
		p.Done = span("done")
	}
	if h.yes("received") {
		p.Received = span("received")
	}
	if h.yes("drop") && last > 0 {
		p.Drops = append(p.Drops, &fsmpb.Drop{Seq: uint64(h.n(1, last, "drop")), Reason: uint32(ReasonTooLarge)})
	}
	return p
}

// open are the entries that sessions still owe their clients.
func (h *history) open() map[queuedEntry]Entry {
	out := make(map[queuedEntry]Entry)
	for _, c := range h.one().clients.byID {
		if c.sess == nil {
			continue
		}
		for _, e := range c.sess.queue {
			if !c.sess.settled(e.Seq) {
				out[h.key(c, e.Seq)] = e
			}
		}
	}
	return out
}

func (h *history) key(c *client, seq uint64) queuedEntry {
	return queuedEntry{fmt.Sprintf("%s/%d", c.id, c.sess.born), c.id, seq}
}

// observe runs one entry and accounts for every entry that is gone after it.
func (h *history) observe(cmds []*fsmpb.Command, run func()) {
	old := make(map[string]*sessionRow)
	for id, c := range h.one().clients.byID {
		if c.sess != nil {
			s := *c.sess
			old[id] = &s
		}
	}
	oldEpoch := make(map[string]Epoch)
	for id, c := range h.one().clients.byID {
		oldEpoch[id] = c.epoch
	}
	h.oldMarks = make(map[string]uint64)
	for id, s := range old {
		h.oldMarks[id] = max(s.mark, min(s.last, s.cursor+uint64(s.limits.Span)))
	}
	before, assigned := h.open(), h.assigned()
	counting := h.one().members.first() != ""
	run()
	f := h.one()
	for id, c := range f.clients.byID {
		if c.epoch < h.top[id] {
			h.rt.Fatalf("epoch of %s fell", id)
		}
		h.top[id] = c.epoch
	}
	for _, list := range h.epochs {
		for i := 1; i < len(list); i++ {
			if list[i] <= list[i-1] {
				h.rt.Fatalf("epochs %v", list)
			}
		}
	}
	replaced := make(map[string]bool) // sessions that ended, perhaps with another in their place
	for id, s := range old {
		c := f.clients.byID[id]
		if c == nil || c.sess == nil || c.sess.born != s.born {
			replaced[id] = true
			continue
		}
		if c.sess.cursor < s.cursor || c.sess.mark < s.mark {
			h.rt.Fatalf("%s: cursor or mark fell", id)
		}
	}
	after := h.open()
	h.account(cmds, before, after, replaced, counting)
	h.accountShared(cmds, before, after, assigned, replaced, counting)
	h.checkRoutes()
	// What is queued has one message for each sequence, and each message once.
	for _, c := range f.clients.byID {
		if c.sess == nil {
			continue
		}
		for _, e := range c.sess.queue {
			k := h.key(c, e.Seq)
			if was, ok := h.bound[k]; ok {
				if was != e.Message.ID {
					h.rt.Fatalf("%v was message %d, is %d", k, was, e.Message.ID)
				}
				continue
			}
			h.bound[k] = e.Message.ID
			if e.Retain {
				continue // a retained message comes with each subscription
			}
			name := fmt.Sprintf("%s %d %s %s", k.session, e.Message.ID, e.Filter, e.Group)
			if h.once[name] && e.Group == "" {
				h.rt.Fatalf("%s twice", name)
			}
			h.once[name] = true
		}
	}
}
