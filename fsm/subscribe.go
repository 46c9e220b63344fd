package fsm

import (
	"slices"
	"strings"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// subscription is one subscription of a persistent session.
type subscription struct {
	client *client
	filter *filter
	group  *group   // nil: not shared
	ids    []uint32 // the identifier as entries carry it; never written
	at     int      // its place in client.subs
	place  int      // its place in filter.subs, if not shared

	qos               byte
	noLocal           bool
	retainAsPublished bool
	retainHandling    byte
}

type subKey struct{ filter, group string }

func (s *subscription) key() subKey {
	k := subKey{filter: s.filter.name}
	if s.group != nil {
		k.group = s.group.name
	}
	return k
}

// public is the subscription as a view or a snapshot holds it.
func (s *subscription) public() Subscription {
	k := s.key()
	p := Subscription{
		Filter: k.filter, Group: k.group, QoS: s.qos, NoLocal: s.noLocal,
		RetainAsPublished: s.retainAsPublished, RetainHandling: s.retainHandling,
	}
	if len(s.ids) > 0 {
		p.ID = s.ids[0]
	}
	return p
}

func (c *client) subscriptions() []Subscription {
	if len(c.subs) == 0 {
		return nil
	}
	list := make([]Subscription, len(c.subs))
	for i, s := range c.subs {
		list[i] = s.public()
	}
	return list
}

// manySubs is from where on a client finds its subscriptions by a map.
const manySubs = 16

func (c *client) find(filter, group string) *subscription {
	if c.byKey != nil {
		return c.byKey[subKey{filter, group}]
	}
	for _, s := range c.subs {
		if s.filter.name == filter && (s.group == nil && group == "" || s.group != nil && s.group.name == group) {
			return s
		}
	}
	return nil
}

// put adds or replaces a subscription. Strings of p must not alias an entry if it is new.
func (f *FSM) put(c *client, p Subscription) (s *subscription, existed bool) {
	s = c.find(p.Filter, p.Group)
	existed = s != nil
	if existed {
		f.grant(s, -1)
	} else {
		s = f.link(c, p)
	}
	s.qos, s.noLocal, s.retainAsPublished, s.retainHandling = p.QoS, p.NoLocal, p.RetainAsPublished, p.RetainHandling
	s.ids = nil
	if p.ID != 0 {
		s.ids = []uint32{p.ID}
	}
	f.grant(s, 1)
	if !existed && c.owner != nil {
		f.present(s, c.owner, 0, 1)
	}
	return s, existed
}

// link puts a new subscription into the client and the index.
func (f *FSM) link(c *client, p Subscription) *subscription {
	fl := f.topics.obtain(p.Filter)
	s := &subscription{client: c, filter: fl, at: len(c.subs)}
	if p.Group != "" {
		s.group = f.obtainGroup(fl, p.Group)
		i, _ := s.group.find(c.id)
		s.group.members = slices.Insert(s.group.members, i, s)
	} else {
		s.place = len(fl.subs)
		fl.subs = append(fl.subs, s)
	}
	c.subs = append(c.subs, s)
	if c.byKey != nil {
		c.byKey[s.key()] = s
	} else if len(c.subs) > manySubs {
		c.byKey = make(map[subKey]*subscription, 2*manySubs)
		for _, s := range c.subs {
			c.byKey[s.key()] = s
		}
	}
	f.counts.subscriptions++
	return s
}

// unlink takes a subscription out of the index and the client.
func (f *FSM) unlink(s *subscription) {
	c, fl := s.client, s.filter
	if c.owner != nil {
		f.present(s, c.owner, 0, -1)
	}
	f.grant(s, -1)
	if s.group != nil {
		if i, ok := s.group.find(c.id); ok {
			s.group.members = slices.Delete(s.group.members, i, i+1)
		}
		f.discardGroup(s.group)
	} else {
		last := fl.subs[len(fl.subs)-1]
		fl.subs[s.place], last.place = last, s.place
		fl.subs[len(fl.subs)-1] = nil
		fl.subs = fl.subs[:len(fl.subs)-1]
	}
	f.topics.discard(fl)
	if c.byKey != nil {
		delete(c.byKey, s.key())
	}
	last := c.subs[len(c.subs)-1]
	c.subs[s.at], last.at = last, s.at
	c.subs[len(c.subs)-1] = nil
	c.subs = c.subs[:len(c.subs)-1]
	f.counts.subscriptions--
}

// grant counts the subscription's QoS in its filter or group.
func (f *FSM) grant(s *subscription, n int) {
	g := &s.filter.stats
	if s.group != nil {
		g = &s.group.stats
	}
	before, queued := g.highest(), g.queue0 > 0
	g.qos[s.qos] += n
	if s.client.sess.limits.QueueQoS0 {
		g.queue0 += n
	}
	if g.highest() != before || (g.queue0 > 0) != queued {
		f.rerouted()
	}
}

// setLimits changes a session's limits, with what the index knows of them.
func (f *FSM) setLimits(c *client, l Limits) {
	if c.sess.limits.QueueQoS0 == l.QueueQoS0 {
		c.sess.limits = l
		return
	}
	for _, s := range c.subs {
		f.grant(s, -1)
	}
	c.sess.limits = l
	for _, s := range c.subs {
		f.grant(s, 1)
	}
}

func (g *group) find(client string) (int, bool) {
	return slices.BinarySearchFunc(g.members, client, func(s *subscription, id string) int {
		return strings.Compare(s.client.id, id)
	})
}

func (f *FSM) subscribe(cmd *fsmpb.Subscribe, r *Result) {
	c := f.current(cmd.ClientId, cmd.Epoch)
	if c == nil || c.sess == nil {
		r.Code = Stale
		return
	}
	for _, p := range cmd.Subscriptions {
		if p.Filter == "" || p.Qos > 2 || p.RetainHandling > 2 {
			r.Code = Invalid
			return
		}
	}
	f.touch(c)
	f.awaited.Add(1)
	r.Existed = make([]bool, len(cmd.Subscriptions))
	for i, p := range cmd.Subscriptions {
		want := Subscription{
			Filter: p.Filter, Group: p.Group, QoS: byte(p.Qos), NoLocal: p.NoLocal,
			RetainAsPublished: p.RetainAsPublished, RetainHandling: byte(p.RetainHandling), ID: p.Id,
		}
		if c.find(p.Filter, p.Group) == nil {
			want.Filter, want.Group = strings.Clone(p.Filter), strings.Clone(p.Group)
		}
		s, existed := f.put(c, want)
		r.Existed[i] = existed
		if s.group == nil && (s.retainHandling == 0 || s.retainHandling == 1 && !existed) {
			f.reads = append(f.reads, retainedRead{s})
		}
	}
}

func (f *FSM) unsubscribe(cmd *fsmpb.Unsubscribe, r *Result) {
	c := f.current(cmd.ClientId, cmd.Epoch)
	if c == nil || c.sess == nil {
		r.Code = Stale
		return
	}
	f.touch(c)
	r.Existed = make([]bool, len(cmd.Subscriptions))
	for i, p := range cmd.Subscriptions {
		if s := c.find(p.Filter, p.Group); s != nil {
			f.unlink(s)
			r.Existed[i] = true
		}
	}
}
