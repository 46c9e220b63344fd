package fsm

import (
	"slices"
	"strings"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// publication is a message on its way into the state: a Publish or a will.
type publication struct {
	publisher string
	epoch     Epoch
	topic     string
	payload   []byte
	props     []byte
	qos       byte
	retain    bool
	hasExpiry bool
	expiry    uint32
	owned     bool // strings and slices may be kept; else they alias the entry
	id        uint64
	message   *Message
}

// hit is a persistent session that a publish matched, with all of its matching subscriptions.
type hit struct {
	client    *client
	qos       byte // highest granted
	asIs      bool // retain as published
	ids       []uint32
	unordered bool
}

func validTopic(topic string, qos uint32) bool {
	return topic != "" && qos <= 2 && !strings.ContainsAny(topic, "+#")
}

func (f *FSM) publishCommand(cmd *fsmpb.Publish, r *Result) {
	if !validTopic(cmd.Topic, cmd.Qos) {
		r.Code = Invalid
		return
	}
	// A node proposes what a connection publishes before the end of the connection. What comes
	// without its record comes from one that was taken over, by one that has ended in the meantime.
	if c := f.clients.byID[cmd.ClientId]; cmd.Epoch != 0 && (c == nil || Epoch(cmd.Epoch) < c.epoch) {
		r.Code = Stale
		return
	}
	if cmd.PacketId != 0 {
		if r.Code = f.accept(cmd); r.Code != OK {
			return
		}
	}
	p := publication{
		publisher: cmd.ClientId, epoch: Epoch(cmd.Epoch), topic: cmd.Topic, payload: cmd.Payload, props: cmd.Props,
		qos: byte(cmd.Qos), retain: cmd.Retain, hasExpiry: cmd.HasExpiry, expiry: cmd.Expiry,
	}
	if !f.publish(&p) {
		r.Code = NoMatch
	}
}

// accept puts the packet id of a QoS 2 publish into its session's inbound set. The log judges what
// is a repeat: the first one may have gone in through another node [MQTT-4.3.3-10].
func (f *FSM) accept(cmd *fsmpb.Publish) Code {
	c := f.current(cmd.ClientId, cmd.Epoch)
	if c == nil || c.sess == nil {
		return Stale
	}
	if cmd.Qos != 2 || cmd.PacketId > 0xFFFF {
		return Invalid
	}
	id := uint16(cmd.PacketId)
	if slices.Contains(c.sess.inbound, id) {
		return Duplicate
	}
	f.touch(c)
	c.sess.inbound = append(c.sess.inbound, id)
	return OK
}

// message is the message, copied out of the entry the first time that somebody wants it. That may
// be on one node only, so nothing replicated changes here.
func (f *FSM) message(p *publication) *Message {
	if p.message != nil {
		return p.message
	}
	m := &Message{
		ID: p.id, Topic: p.topic, Publisher: p.publisher, Epoch: p.epoch,
		QoS: p.qos, Retain: p.retain, Stored: f.now,
	}
	if len(p.payload) > 0 {
		m.Payload = p.payload
	}
	if len(p.props) > 0 {
		m.Props = p.props
	}
	if !p.owned {
		m.Topic = strings.Clone(p.topic)
		if c := f.clients.byID[p.publisher]; c != nil {
			m.Publisher = c.id
		} else {
			m.Publisher = strings.Clone(p.publisher)
		}
		m.Payload, m.Props = slices.Clone(m.Payload), slices.Clone(m.Props)
	}
	if p.hasExpiry {
		m.Expires = max(f.now+int64(p.expiry)*1000, 1)
	}
	p.message = m
	return m
}

// publish retains and routes a message. It reports whether anybody subscribes to it.
func (f *FSM) publish(p *publication) bool {
	p.id = f.nextID()
	if p.retain {
		f.retain(p)
	}
	f.matched = f.topics.match(f.matched[:0], p.topic)
	f.gather(p)
	matched := len(f.hits) > 0
	here := false // this node has clean subscribers
	for _, fl := range f.matched {
		for i := range fl.nodes {
			if n := &fl.nodes[i]; n.clean > 0 && n.inc.live {
				matched = true
				here = here || n.inc.node == f.node
			}
		}
	}
	for i := range f.hits {
		f.deliver(&f.hits[i], p)
	}
	clear(f.hits)
	f.hits = f.hits[:0]
	var picks []Pick
	for _, fl := range f.matched {
		for _, g := range fl.groups {
			matched = matched || len(g.members) > 0 || g.connected()
			if pick, ok := f.share(g, f.message(p), nil); ok {
				picks = append(picks, pick)
			}
		}
	}
	clear(f.matched)
	if here || len(picks) > 0 {
		f.emit(Effect{Kind: EffectPublished, Message: f.message(p), Picks: picks})
	}
	return matched
}

// gather fills f.hits: one for each session, however many of its subscriptions match.
func (f *FSM) gather(p *publication) {
	f.serial++
	for _, fl := range f.matched {
		for _, s := range fl.subs {
			c := s.client
			if s.noLocal && c.id == p.publisher {
				continue
			}
			if c.serial != f.serial {
				c.serial, c.hit = f.serial, len(f.hits)
				f.hits = append(f.hits, hit{client: c, qos: s.qos, asIs: s.retainAsPublished, ids: s.ids})
				continue
			}
			h := &f.hits[c.hit]
			h.qos = max(h.qos, s.qos)
			h.asIs = h.asIs || s.retainAsPublished
			if len(s.ids) > 0 {
				h.unordered = h.unordered || len(h.ids) > 0
				h.ids = append(slices.Clip(h.ids), s.ids...)
			}
		}
	}
}

func (f *FSM) deliver(h *hit, p *publication) {
	qos := min(p.qos, h.qos)
	if !f.wants(h.client, qos) {
		return
	}
	if h.unordered {
		slices.Sort(h.ids)
	}
	f.give(h.client, Entry{Message: f.message(p), QoS: qos, Retain: p.retain && h.asIs, IDs: h.ids})
}

// wants tells whether give would do anything here.
func (f *FSM) wants(c *client, qos byte) bool {
	if qos > 0 {
		return true
	}
	if c.online() {
		return c.owner.node == f.node
	}
	return c.sess.limits.QueueQoS0
}

// give hands a session what it is owed: a queued entry at QoS 1 and 2; at QoS 0 a delivery if it
// is connected, and an entry if it is not but queues QoS 0.
func (f *FSM) give(c *client, e Entry) {
	switch {
	case !f.wants(c, e.QoS):
	case e.QoS == 0 && c.online():
		f.emit(Effect{Kind: EffectDeliver0, Client: c.id, Epoch: c.epoch, Entry: e})
	default:
		f.enqueue(c, e)
	}
}
