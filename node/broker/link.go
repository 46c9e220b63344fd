package broker

import (
	"sync"
	"sync/atomic"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// onLinks is a publish at QoS 1 or 2 on the link road until every node that it went to has taken it.
type onLinks struct {
	c       *client
	left    atomic.Int32
	refused atomic.Bool // by a node that knows a newer connection of the publisher
	qos     byte
	slot    uint64
	size    int
	again   *fsm.Message // for another member of a shared group
	follow  *following   // nil: nobody traces it
}

var onLinksPool = sync.Pool{New: func() any { return new(onLinks) }}

// publishLink gives a publish to the nodes with matching subscribers, this one included. Caller
// holds the lock, which is let go meanwhile.
func (c *client) publishLink(p *publish, r *fsm.Route, targets []target, ba *conn.Batch) {
	b := c.b
	b.stats.published[roadLink].Add(1)
	self := b.cluster.Self()
	m := messages.Get().(*message)
	m.topic, m.payload, m.props, m.publisher, m.epoch = p.topic, p.payload, p.props, c.info.id, uint64(c.epoch)
	m.qos, m.retain, m.leased = p.qos, p.retain, p.qos > 0
	if p.hasExpiry {
		m.now = b.cluster.Now()
		m.expires = max(1, m.now+int64(p.expiry)*1000)
	}
	after := c.last[p.qos] // for the other nodes, which may be further behind than this one
	ahead := after != 0 && !b.holds.passed(self, after)
	matched := len(targets) > 0 || len(r.Nodes) > 0 || len(r.Shared) > 0
	plan := b.plan(r, self)
	var waits *onLinks
	if p.qos > 0 && len(plan.remote) > 0 {
		waits = onLinksPool.Get().(*onLinks)
		waits.c, waits.qos, waits.slot, waits.size = c, p.qos, p.slot, p.size()
		waits.left.Store(int32(len(plan.remote)) + 1)
		waits.follow = c.traceCommit(p)
		c.linked[p.qos]++
		c.pending += waits.size
		if plan.shares {
			waits.again = m.keep()
		}
	}
	if p.qos == 0 {
		for i := range plan.remote {
			c.sentLoose(plan.remote[i].to)
		}
	}
	c.traceLegs(p, plan, ahead)
	if ahead {
		c.ahead += p.size()
	}
	if c.pending > maxPending || ahead && c.ahead > maxAhead {
		c.intake.blocks |= blockLog
		b.stalls.Store(true)
	}
	c.conn.Unlock()

	if len(targets) > 0 || len(plan.here) > 0 {
		if ahead {
			b.holds.local(self, after, m, plan.here)
		} else {
			b.deliverHere(m, targets, plan.here, ba)
		}
	}
	congested := b.sendRemote(m, plan, after, waits)
	m.free()
	c.conn.Lock()
	switch {
	case c.phase == phaseOver:
	case waits == nil:
		code := mqtt.Success
		if !matched {
			code = mqtt.NoMatchingSubscribers
		}
		c.settled(p, code, true, ba)
	}
	if congested {
		c.intake.blocks |= blockLink
	}
	if c.phase != phaseOver && c.sess.Busy() {
		c.intake.blocks |= blockBusy
	}
	if waits != nil {
		c.conn.Unlock()
		waits.arrived(ba)
		c.conn.Lock()
	}
	if congested { // it may have been relieved before the flag stood
		still := false
		for i := range plan.remote {
			still = still || b.cluster.LinkCongested(plan.remote[i].to.Node)
		}
		if !still {
			c.allow(blockLink, ba)
		}
	}
	planPool.Put(plan)
}

// sentLoose notes a node for the next fence, in the incarnation that was sent something last: what was for an
// earlier one is lost. Caller holds the lock.
func (c *client) sentLoose(to fsm.NodeRef) {
	for i := range c.loose {
		if c.loose[i].Node == to.Node {
			c.loose[i] = to
			return
		}
	}
	c.loose = append(c.loose, to)
}

// fence holds the log road back at QoS 0 until the links have brought what the client sent on them:
// nobody acknowledges that, so an empty frame that is acknowledged goes after it. Caller holds the lock.
func (c *client) fence() {
	nodes := c.loose
	c.loose = nil
	c.linked[0]++
	waits := onLinksPool.Get().(*onLinks)
	waits.c, waits.qos, waits.slot, waits.size = c, 0, 0, 0
	waits.left.Store(int32(len(nodes)) + 1)
	f := clusterpb.Frame{Topic: "fence", ClientID: c.info.id, QoS: 1} // it asks for nobody, so nobody gets it
	c.b.spawn(func() {                                                // a link may answer at once, and arrived takes the lock
		for _, n := range nodes {
			c.b.cluster.Send(n, &f, waits)
		}
		waits.later()
	})
}

// deliverHere is a message's delivery on this node.
func (b *Broker) deliverHere(m *message, targets []target, picks []clusterpb.SharedPick, ba *conn.Batch) {
	b.deliver(m, targets, ba)
	for _, s := range picks {
		if !b.pick(m, s.Filter, s.Group, 0, false, ba) {
			b.repick(m.keep(), s.Filter, s.Group, b.cluster.Self(), ba, func(*conn.Batch) {})
		}
	}
}

// plan says which nodes get a frame, and for which shared groups.
type plan struct {
	here   []clusterpb.SharedPick
	remote []leg
	shares bool            // some leg has picks
	frame  clusterpb.Frame // what the legs get, while it is being sent
}

type leg struct {
	to    fsm.NodeRef
	plain bool
	picks []clusterpb.SharedPick
}

var planPool = sync.Pool{New: func() any { return new(plan) }}

// plan chooses a node for each shared group, by how many members are there, and gathers the frames.
// A frame asks for one group at most, so that "no member" is never ambiguous.
func (b *Broker) plan(r *fsm.Route, self fsm.NodeRef) *plan {
	p := planPool.Get().(*plan)
	p.here, p.remote, p.shares = p.here[:0], p.remote[:0], false
	for _, n := range r.Nodes {
		if n != self {
			p.remote = append(p.remote, leg{to: n, plain: true})
		}
	}
	for i := range r.Shared {
		g := &r.Shared[i]
		to, ok := b.choose(g, fsm.NodeRef{})
		if !ok {
			continue
		}
		s := clusterpb.SharedPick{Filter: g.Filter, Group: g.Group}
		if to == self {
			p.here = append(p.here, s)
			continue
		}
		p.shares = true
		p.remote = append(p.remote, leg{to: to, picks: []clusterpb.SharedPick{s}})
	}
	return p
}

// choose picks one of a group's nodes, not avoid if there is another.
func (b *Broker) choose(g *fsm.SharedRoute, avoid fsm.NodeRef) (fsm.NodeRef, bool) {
	total := 0
	for i, n := range g.Nodes {
		if n != avoid {
			total += g.Weights[i]
		}
	}
	if total == 0 {
		return fsm.NodeRef{}, false
	}
	k := b.cfg.Choose(total)
	for i, n := range g.Nodes {
		if n == avoid {
			continue
		}
		if k -= g.Weights[i]; k < 0 {
			return n, true
		}
	}
	return fsm.NodeRef{}, false
}

// sendRemote sends the frames. It tells whether a link is congested.
func (b *Broker) sendRemote(m *message, p *plan, after uint64, waits *onLinks) (congested bool) {
	if len(p.remote) == 0 {
		return false
	}
	f := &p.frame
	m.frame(f, m.now)
	f.After = after
	for i := range p.remote {
		l := &p.remote[i]
		f.Plain, f.Shared = l.plain, l.picks
		var done clusterpb.LinkDone
		switch {
		case waits == nil:
		case len(l.picks) > 0:
			done = &shareDone{waits, l.to, l.picks[0]}
		default:
			done = waits
		}
		if !b.cluster.Send(l.to, f, done) {
			b.stats.drop(m.publisher, fsm.ReasonLink, 1)
		}
		congested = congested || b.cluster.LinkCongested(l.to.Node)
	}
	*f = clusterpb.Frame{} // it aliases what the reader has read
	return congested
}

// LinkDone implements clusterpb.LinkDone for a frame outside of shared groups.
func (w *onLinks) LinkDone(_ string, code clusterpb.LinkCode) {
	if code == clusterpb.LinkNoMember {
		w.refused.Store(true)
	}
	w.later()
}

// shareDone hears what became of a frame for a shared group.
type shareDone struct {
	w    *onLinks
	to   fsm.NodeRef
	pick clusterpb.SharedPick
}

// LinkDone implements clusterpb.LinkDone.
func (d *shareDone) LinkDone(_ string, code clusterpb.LinkCode) {
	b := d.w.c.b
	if code == clusterpb.LinkTaken || !b.serving.Load() {
		d.w.later()
		return
	}
	ba := getBatch()
	b.repick(d.w.again, d.pick.Filter, d.pick.Group, d.to, ba, d.w.arrived)
	b.flusher.take(ba)
	putBatch(ba)
}

// later is arrived from a goroutine that must not write to sockets.
func (w *onLinks) later() {
	b := w.c.b
	ba := getBatch()
	w.arrived(ba)
	b.flusher.take(ba)
	putBatch(ba)
}

// arrived counts a leg. The last one settles the publish.
func (w *onLinks) arrived(ba *conn.Batch) {
	if w.left.Add(-1) > 0 {
		return
	}
	c := w.c
	c.conn.Lock()
	c.linked[w.qos]--
	c.pending -= w.size
	if !w.refused.Load() {
		w.follow.taken()
		c.answer(&publish{qos: w.qos, slot: w.slot}, mqtt.Success, ba)
	}
	if c.linked[w.qos] == 0 {
		c.allow(blockOrder, ba)
	}
	c.relent(ba)
	c.conn.Unlock()
	w.c, w.again, w.follow = nil, nil, nil
	w.refused.Store(false)
	onLinksPool.Put(w)
}

// repick finds another member of a shared group for a message that one has not delivered: here or on
// another node, not at avoid if there is a choice. done runs once it has arrived, or is given up and
// counted; perhaps before repick returns, and with the batch of whoever calls it. No lock may be held.
func (b *Broker) repick(m *fsm.Message, filter, group string, avoid fsm.NodeRef, ba *conn.Batch, done func(*conn.Batch)) {
	s := &search{b: b, m: m, pick: clusterpb.SharedPick{Filter: filter, Group: group}, done: done}
	s.next(avoid, ba)
}

// inService tells whether there is an incarnation for which links can carry anything.
func (b *Broker) inService() bool { return b.serving.Load() && b.cluster.Self().Incarnation != 0 }

// search is one for a member of a shared group.
type search struct {
	b     *Broker
	m     *fsm.Message
	pick  clusterpb.SharedPick
	done  func(*conn.Batch)
	to    fsm.NodeRef // the node that was asked last
	tries int
	again func() // instead of done where this node's incarnation has ended meanwhile; nil: done
}

// maxTries bounds a search. There may be nobody left: a member can't be had in time, or all that are
// connected are persistent, which have messages at QoS 1 and 2 from the log alone.
const maxTries = 8

// next tries one node after the other until one of them has to be asked by its link.
func (s *search) next(avoid fsm.NodeRef, ba *conn.Batch) {
	b := s.b
	self := b.cluster.Self()
	for {
		ok := s.choose(avoid)
		if s.tries++; !ok || s.tries > maxTries {
			b.stats.drop("", fsm.ReasonNoMember, 1)
			s.done(ba)
			return
		}
		n := newMessage(s.m)
		if s.to != self {
			s.ask(n, ba)
			n.free()
			return
		}
		ok = b.pick(n, s.pick.Filter, s.pick.Group, 0, false, ba)
		n.free()
		if ok {
			s.done(ba)
			return
		}
		avoid = self
	}
}

// choose finds a node to try: avoid only to begin with, when it is the only one.
func (s *search) choose(avoid fsm.NodeRef) (ok bool) {
	r := s.b.state.Route(s.m.Topic)
	for i := range r.Shared {
		if g := &r.Shared[i]; g.Filter == s.pick.Filter && g.Group == s.pick.Group {
			s.to, ok = s.b.choose(g, avoid)
			if !ok && s.tries == 0 {
				s.to, ok = s.b.choose(g, fsm.NodeRef{})
			}
		}
	}
	return ok
}

// ask sends the message to a node for one of its members. LinkDone goes on if it has none.
func (s *search) ask(n *message, ba *conn.Batch) {
	b := s.b
	f := clusterpb.Frame{}
	n.frame(&f, b.cluster.Now())
	f.Epoch = 0 // whoever published it since has nothing to do with it
	f.Shared = []clusterpb.SharedPick{s.pick}
	if f.QoS > 0 {
		b.cluster.Send(s.to, &f, s)
		return
	}
	if !b.cluster.Send(s.to, &f, nil) {
		b.stats.drop("", fsm.ReasonLink, 1)
	}
	s.done(ba)
}

// LinkDone implements clusterpb.LinkDone.
func (s *search) LinkDone(_ string, code clusterpb.LinkCode) {
	ba := getBatch()
	switch {
	case code == clusterpb.LinkTaken:
		s.done(ba)
	case s.b.inService():
		s.next(s.to, ba)
	case s.again != nil:
		s.again()
	default:
		s.done(ba)
	}
	s.b.flusher.take(ba)
	putBatch(ba)
}
