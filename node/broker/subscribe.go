package broker

import (
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/node/session"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
	"github.com/skein-mqtt/skein/proto/topic"
)

// operations keeps a client's SUBSCRIBEs and UNSUBSCRIBEs in order: the former run beside each
// other, an UNSUBSCRIBE waits for those before it.
type operations struct {
	running  int
	reserved int // subscriptions of a persistent session on their way to the log
	waiting  []func(ba *conn.Batch)
}

// maxOperations bounds those that a client may have under way.
const maxOperations = 1024

// subscribe handles SUBSCRIBE. Caller holds the lock.
func (c *client) subscribe(first byte, body []byte, ba *conn.Batch) error {
	var p mqtt.Subscribe
	if err := p.Decode(c.version, first, body); err != nil {
		return err
	}
	if err := c.answerable(len(p.Filters)); err != nil {
		return err
	}
	slot := c.sess.Open(session.Suback, p.PacketID)
	start := func(ba *conn.Batch) { c.startSubscribe(&p, slot, ba) }
	if len(c.ops.waiting) > 0 {
		c.ops.waiting = append(c.ops.waiting, start)
	} else {
		start(ba)
	}
	return c.limitOperations()
}

// answerable finds what asks for a SUBACK or UNSUBACK that the client does not take.
func (c *client) answerable(filters int) error {
	if c.version == mqtt.V5 && !c.fits(len((&mqtt.Suback{Codes: make([]byte, filters)}).Append(nil, mqtt.V5))) {
		return &mqtt.Error{Code: mqtt.PacketTooLarge, Msg: "the acknowledgement would exceed the client's Maximum Packet Size"}
	}
	return nil
}

func (c *client) limitOperations() error {
	if c.ops.running+len(c.ops.waiting) > maxOperations {
		return &mqtt.Error{Code: mqtt.QuotaExceeded, Msg: "too many SUBSCRIBE and UNSUBSCRIBE packets under way"}
	}
	return nil
}

// verdict is what becomes of one filter: the granted QoS, or why not.
func (c *client) verdict(f *mqtt.Subscription, id uint32) (s fsm.Subscription, code mqtt.ReasonCode) {
	cfg := &c.b.cfg
	group, filter, shared, err := topic.ParseShare(f.Filter)
	if err != nil || c.b.badTopic(cfg.topicLimits().ValidateFilter(f.Filter)) != nil {
		return s, mqtt.TopicFilterInvalid
	}
	outside := c.outside(filter)
	if filter, err = c.whole(filter); err != nil {
		return s, mqtt.TopicFilterInvalid
	}
	switch {
	case outside:
		return s, mqtt.NotAuthorized
	case shared && !cfg.SharedAvailable:
		c.b.reached(LimitShared)
		return s, mqtt.SharedSubscriptionsNotSupported
	case !cfg.WildcardAvailable && topic.HasWildcard(filter):
		c.b.reached(LimitWildcard)
		return s, mqtt.WildcardSubscriptionsNotSupported
	case cfg.denies(filter):
		c.b.reached(LimitDenySubscribe)
		return s, mqtt.NotAuthorized
	case !c.maySubscribe(filter):
		return s, mqtt.NotAuthorized
	}
	s = fsm.Subscription{
		Filter: filter, Group: group, QoS: f.QoS, NoLocal: f.NoLocal,
		RetainAsPublished: f.RetainAsPublished, RetainHandling: f.RetainHandling, ID: id,
	}
	return s, mqtt.ReasonCode(f.QoS)
}

// denies tells whether nobody may subscribe to a filter: one of mqtt.deny_subscribe is the same or
// covers it.
func (c *Config) denies(filter string) bool {
	for _, d := range c.DenySubscribe {
		if d == filter || topic.Covers(d, filter) {
			return true
		}
	}
	return false
}

// startSubscribe begins a SUBSCRIBE whose turn it is. Caller holds the lock.
func (c *client) startSubscribe(p *mqtt.Subscribe, slot uint64, ba *conn.Batch) {
	codes := make([]byte, len(p.Filters))
	var granted []fsm.Subscription
	fresh := make(map[subKey]bool)
	for i := range p.Filters {
		s, code := c.verdict(&p.Filters[i], p.SubscriptionID)
		if !code.Failed() && !c.room(subKey{s.Filter, s.Group}, fresh) {
			code = mqtt.QuotaExceeded
		}
		if code.Failed() && (c.b.cfg.LegacySuback || c.version != mqtt.V5) {
			code = mqtt.UnspecifiedError
		}
		codes[i] = byte(code)
		if !code.Failed() {
			granted = append(granted, s)
		}
	}
	c.tellSubscribed(p, codes)
	done := completion{kind: session.Suback, slot: slot, codes: codes}
	c.ops.running++
	switch {
	case len(granted) == 0:
		c.subscribed(done, ba)
	case c.sess.Clean():
		c.subscribeClean(granted, done, ba)
	default:
		c.subscribeStored(granted, len(fresh), done)
	}
}

// room tells whether the client may have the subscription, and adds it to fresh if it is another one.
func (c *client) room(k subKey, fresh map[subKey]bool) bool {
	if _, has := c.subs[k]; has {
		return true
	}
	if most := c.b.cfg.MaxSubscriptions; most > 0 && !fresh[k] && len(c.subs)+c.ops.reserved+len(fresh) >= most {
		c.b.reached(LimitSubscriptions)
		return false
	}
	fresh[k] = true
	return true
}

// subscribed finishes a SUBSCRIBE, and starts what waited for it. Caller holds the lock.
func (c *client) subscribed(done completion, ba *conn.Batch) {
	if c.phase == phaseOver {
		return
	}
	c.complete(ba, done)
	c.ops.running--
	c.continueOperations(ba)
}

func (c *client) continueOperations(ba *conn.Batch) {
	for c.ops.running == 0 && len(c.ops.waiting) > 0 {
		start := c.ops.waiting[0]
		c.ops.waiting = c.ops.waiting[1:]
		start(ba)
	}
}

// subscribeStored puts subscriptions of a persistent session into the log, which delivers what is
// retained. SUBACK waits until every live node has them. fresh of them are new.
func (c *client) subscribeStored(granted []fsm.Subscription, fresh int, done completion) {
	c.ops.reserved += fresh
	cmd := &fsmpb.Subscribe{ClientId: c.info.id, Epoch: uint64(c.epoch)}
	for i := range granted {
		cmd.Subscriptions = append(cmd.Subscriptions, subscriptionPB(&granted[i]))
	}
	b := c.b
	b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_Subscribe{Subscribe: cmd}}, func(r fsm.Result, err error) {
		if err != nil || r.Code != fsm.OK {
			return // this connection has ended
		}
		c.conn.Lock()
		if c.phase != phaseOver {
			c.ops.reserved -= fresh
			for i, s := range granted {
				c.addSub(s)
				c.sysRetained(s, r.Existed[i], b.applying)
			}
		}
		c.conn.Unlock()
		b.cluster.Barrier(r.Index, func() { c.with(func(ba *conn.Batch) { c.subscribed(done, ba) }) })
	})
}

func subscriptionPB(s *fsm.Subscription) *fsmpb.Subscription {
	return &fsmpb.Subscription{
		Filter: s.Filter, Group: s.Group, Qos: uint32(s.QoS), NoLocal: s.NoLocal,
		RetainAsPublished: s.RetainAsPublished, RetainHandling: uint32(s.RetainHandling), Id: s.ID,
	}
}

// addSub makes a subscription active on this node. Caller holds the lock.
func (c *client) addSub(s fsm.Subscription) (n *sub, existed bool) {
	n = newSub(c, s)
	if c.subs == nil {
		c.subs = make(map[subKey]*sub)
	}
	_, existed = c.subs[n.key()]
	c.subs[n.key()] = n
	c.b.local.put(n)
	return n, existed
}

// subscribeClean makes subscriptions of a clean client active when every live node knows that this
// one has a subscriber. Caller holds the lock.
func (c *client) subscribeClean(granted []fsm.Subscription, done completion, ba *conn.Batch) {
	b := c.b
	ready := make([]bool, len(granted)) // its interest was this client's before
	for i, s := range granted {
		if c.subs == nil {
			c.subs = make(map[subKey]*sub)
		}
		k := subKey{s.Filter, s.Group}
		if _, ready[i] = c.subs[k]; !ready[i] {
			n := newSub(c, s)
			n.slot = done.slot
			c.subs[k] = n // reserved: not active yet
			if s.Group != "" {
				b.local.put(n) // but for a group's: the log may choose this node at once, and would choose again and again
			}
		}
	}
	activate := func(ba *conn.Batch) { // with the lock held
		if c.phase == phaseOver {
			return
		}
		for i, s := range granted {
			c.activate(s, done.slot, ready[i], ba)
		}
		c.push(ba)
		c.subscribed(done, ba)
	}
	var waiting []subKey
	for i, s := range granted {
		if !ready[i] {
			waiting = append(waiting, subKey{s.Filter, s.Group})
		}
	}
	if len(waiting) == 0 {
		activate(ba)
		return
	}
	var count counter
	count.left.Store(int32(len(waiting)) + 1)
	arrived := func() {
		if count.left.Add(-1) == 0 {
			b.spawn(func() { c.with(activate) }) // it may read much that is retained
		}
	}
	for _, k := range waiting {
		b.interests.acquire(k, arrived)
	}
	arrived()
}

// activate makes a clean client's subscription active, with the retained messages that it is to get:
// what is published later on comes live, after them. Caller holds the lock.
func (c *client) activate(s fsm.Subscription, slot uint64, existed bool, ba *conn.Batch) {
	n := newSub(c, s)
	n.slot = slot
	if old := c.subs[n.key()]; old != nil {
		if old.slot > slot { // of a later SUBSCRIBE, which had less to wait for
			return
		}
		n.since.Store(old.since.Load())
	}
	c.subs[n.key()] = n
	c.b.local.put(n)
	if s.Group != "" { // nothing retained for shared subscriptions [MQTT-3.3.1]
		return
	}
	if s.RetainHandling == 2 || s.RetainHandling == 1 && existed {
		return
	}
	c.sysRetained(s, existed, ba)
	index := c.b.state.Retained(s.Filter, func(m *fsm.Message) bool {
		if s.NoLocal && m.Publisher == c.info.id || !c.mayReceive(m.Topic) {
			return true
		}
		e := fsm.Entry{Message: m, QoS: min(m.QoS, s.QoS), Retain: true, IDs: n.ids}
		if e.QoS == 0 {
			c.zero.push(e)
		} else {
			c.sess.Enqueue(e)
		}
		return true
	})
	// What the log carries up to here is in what was read: the lock that is held keeps it waiting.
	n.since.Store(index)
}

// unsubscribe handles UNSUBSCRIBE. Caller holds the lock.
func (c *client) unsubscribe(first byte, body []byte, ba *conn.Batch) error {
	var p mqtt.Unsubscribe
	if err := p.Decode(c.version, first, body); err != nil {
		return err
	}
	if err := c.answerable(len(p.Filters)); err != nil {
		return err
	}
	slot := c.sess.Open(session.Unsuback, p.PacketID)
	start := func(ba *conn.Batch) { c.startUnsubscribe(&p, slot, ba) }
	if c.ops.running > 0 || len(c.ops.waiting) > 0 {
		c.ops.waiting = append(c.ops.waiting, start)
		return c.limitOperations()
	}
	start(ba)
	return nil
}

// startUnsubscribe takes subscriptions away; UNSUBACK leaves when the log has them removed. Caller
// holds the lock.
func (c *client) startUnsubscribe(p *mqtt.Unsubscribe, slot uint64, ba *conn.Batch) {
	b := c.b
	done := completion{kind: session.Unsuback, slot: slot, codes: make([]byte, len(p.Filters))}
	cmd := &fsmpb.Unsubscribe{ClientId: c.info.id, Epoch: uint64(c.epoch)}
	var gone []subKey
	for i, f := range p.Filters {
		group, filter, _, _ := topic.ParseShare(f) // the codec has checked it
		filter = c.mount + filter
		k := subKey{filter, group}
		if !c.mayUnsubscribe(filter) {
			done.codes[i] = byte(mqtt.NotAuthorized)
			continue
		}
		cmd.Subscriptions = append(cmd.Subscriptions, &fsmpb.Subscription{Filter: filter, Group: group})
		s, has := c.subs[k]
		if !has {
			done.codes[i] = byte(mqtt.NoSubscriptionExisted)
			continue
		}
		c.b.tellClient(c.info.id, event.Unsubscribed, "from "+f+c.below())
		gone = append(gone, k)
		b.local.remove(s)
		delete(c.subs, k)
	}
	if !c.sess.Clean() {
		b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_Unsubscribe{Unsubscribe: cmd}}, func(r fsm.Result, err error) {
			if err == nil && r.Code == fsm.OK {
				c.conn.Lock()
				defer c.conn.Unlock()
				c.complete(b.applying, done)
			}
		})
		return
	}
	var count counter
	count.left.Store(int32(len(gone)) + 1)
	arrived := func() {
		if count.left.Add(-1) == 0 {
			b.spawn(func() { c.with(func(ba *conn.Batch) { c.complete(ba, done) }) })
		}
	}
	for _, k := range gone {
		b.interests.release(k, arrived)
	}
	if count.left.Add(-1) == 0 {
		c.complete(ba, done)
	}
}
