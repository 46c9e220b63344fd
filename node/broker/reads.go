package broker

import (
	"slices"

	"github.com/skein-mqtt/skein/fsm"
)

// ClientInfo is what only this node knows of a client that is connected to it.
type ClientInfo struct {
	ID            string
	Epoch         fsm.Epoch
	Username      string
	Address       string
	Listener      string
	Protocol      byte
	Keepalive     uint16
	Persistent    bool
	Connected     int64 // ms since 1970
	Subscriptions int
	Inflight      int
	Queued        int
	Dropped       [fsm.ReasonCount]uint64
	MessagesIn    uint64 // PUBLISHes
	MessagesOut   uint64
	BytesIn       uint64
	BytesOut      uint64
}

// Clients calls fn for each client that is connected here, in any order, until it says false.
func (b *Broker) Clients(fn func(ClientInfo) bool) {
	for _, c := range b.all() {
		if i, ok := c.describe(); ok && !fn(i) {
			return
		}
	}
}

// Count is how many clients Clients shows.
func (b *Broker) Count() (n int) {
	for _, c := range b.all() {
		c.conn.Lock()
		if c.online() {
			n++
		}
		c.conn.Unlock()
	}
	return n
}

// online tells whether the client counts as connected. Called with the connection locked.
func (c *client) online() bool { return c.phase == phaseOnline || c.phase == phaseGated }

func (c *client) describe() (i ClientInfo, ok bool) {
	c.conn.Lock()
	defer c.conn.Unlock()
	if !c.online() {
		return i, false
	}
	i = ClientInfo{
		ID: c.info.id, Epoch: c.epoch, Username: c.info.username, Address: c.conn.RemoteAddr().String(), Listener: c.listener,
		Protocol: byte(c.version), Keepalive: c.info.keepalive, Persistent: !c.sess.Clean(), Connected: c.opened.UnixMilli(), Subscriptions: len(c.subs),
		Inflight: c.sess.Inflight(), Queued: c.sess.Queued() + c.zero.len(),
		MessagesIn: c.seen.messagesIn, MessagesOut: c.seen.messagesOut, BytesIn: c.seen.bytesIn, BytesOut: c.conn.Sent(),
	}
	if d := c.drops.Load(); d != nil {
		for r := range d {
			i.Dropped[r] = d[r].Load()
		}
	}
	return i, true
}

// CleanSubscriptions calls fn for the subscriptions of the clean clients that are connected here, in
// any order, until it says false.
func (b *Broker) CleanSubscriptions(fn func(client string, s fsm.Subscription) bool) {
	for _, c := range b.all() {
		c.conn.Lock()
		var list []fsm.Subscription
		if c.sess != nil && c.sess.Clean() && c.phase != phaseOver {
			for _, s := range c.subs {
				list = append(list, s.Subscription)
			}
		}
		id := c.info.id
		c.conn.Unlock()
		if !slices.ContainsFunc(list, func(s fsm.Subscription) bool { return !fn(id, s) }) {
			continue
		}
		return
	}
}
