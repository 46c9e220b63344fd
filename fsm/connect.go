package fsm

import (
	"strings"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// maxSpan is how far the packet ids reach: two sequence numbers in flight never share one.
const maxSpan = 65535

// connect opens a connection. It is the whole takeover protocol: from here on the commands of any
// earlier epoch of the client id are refused, and its owner, which applies this too, closes it.
func (f *FSM) connect(cmd *fsmpb.Connect, r *Result) {
	if cmd.ClientId == "" || cmd.Will != nil && !validTopic(cmd.Will.Topic, cmd.Will.Qos) {
		r.Code = Invalid
		return
	}
	// The client gave up long ago, or the node did: a newer connection may be there.
	if cmd.NotAfter != 0 && f.stamp > 0 && uint64(f.stamp) > cmd.NotAfter {
		r.Code = TooLate
		return
	}
	c := f.clients.byID[cmd.ClientId]
	if c != nil && c.stale() { // its node died and Reap has not come by yet
		f.finish(c)
		c = f.clients.byID[cmd.ClientId]
	}
	var id string
	resumed := false
	if c != nil {
		id = c.id
		if c.online() && c.owner.node == f.node {
			f.emit(Effect{Kind: EffectSuperseded, Client: c.id, Epoch: c.epoch, Node: c.owner.ref()})
		}
		if c.sess != nil && !cmd.CleanStart {
			f.resume(c)
			resumed = true
		} else {
			f.replace(c)
		}
	} else {
		id = strings.Clone(cmd.ClientId)
	}
	if !resumed {
		c = f.addClient(id, cmd.Persistent)
		if c.sess != nil {
			c.sess.born = EpochAt(f.index, f.offset)
		}
	}
	f.open(c, cmd)
	r.Epoch, r.Present = c.epoch, resumed
	if c.sess != nil && f.origin.node == f.node {
		r.Session = c.view()
	}
}

// open makes c the client of the new connection.
func (f *FSM) open(c *client, cmd *fsmpb.Connect) {
	c.epoch = EpochAt(f.index, f.offset)
	c.protocol, c.keepalive = cmd.Protocol, cmd.Keepalive
	c.username, c.address, c.listener = strings.Clone(cmd.Username), strings.Clone(cmd.Address), strings.Clone(cmd.Listener)
	c.connected, c.offline = f.now, 0
	c.will = newWill(cmd.Will)
	if s := c.sess; s != nil {
		s.closed, s.counted = false, false
		s.expiry = 0 // a session that is resumed without an expiry ends with this connection
		if cmd.Persistent {
			s.expiry = cmd.Expiry
		}
		f.setLimits(c, limitsOf(cmd.Limits))
	}
	f.attach(c, f.origin)
}

func limitsOf(l *fsmpb.Limits) Limits {
	out := Limits{Span: maxSpan}
	if l != nil {
		out.MaxQueue, out.MaxQueueBytes, out.QueueQoS0, out.DropOldest = l.MaxQueue, l.MaxQueueBytes, l.QueueQos0, l.DropOldest
		if l.Span > 0 && l.Span < maxSpan {
			out.Span = l.Span
		}
	}
	return out
}

// resume takes a session from its connection, or out of its wait, so that another can have it.
func (f *FSM) resume(c *client) {
	f.touch(c)
	if c.owner != nil {
		c.closeWindow()
		if c.will != nil && c.will.delay > 0 { // the session goes on before the delay is over [MQTT-3.1.3-9]
			c.will = nil
		}
		f.park(c)
		f.detach(c)
	} else {
		f.timers.cancel(&c.sess.expireAt)
		f.timers.cancel(&c.willAt)
		c.will = nil
	}
	f.purge(c)
}

// replace ends what the client id had: a clean start, or a clean client that another follows.
func (f *FSM) replace(c *client) {
	f.touch(c)
	if c.owner != nil {
		f.park(c)
	}
	f.end(c)
}

// disconnect ends the current connection, or settles the will of a superseded one.
func (f *FSM) disconnect(cmd *fsmpb.Disconnect, r *Result) {
	c := f.current(cmd.ClientId, cmd.Epoch)
	if c == nil {
		if !f.unpark(cmd.ClientId, Epoch(cmd.Epoch), cmd.Clean) {
			r.Code = Stale
		}
		return
	}
	f.touch(c)
	if cmd.Clean {
		c.will = nil
	}
	s := c.sess
	if s == nil {
		f.end(c)
		return
	}
	if cmd.Progress != nil {
		r.Code = f.progress(c, cmd.Progress)
	}
	s.mark = max(s.mark, min(cmd.Sent, s.last))
	s.closed = true
	if cmd.HasExpiry && s.expiry != 0 { // zero can't be raised [MQTT-3.14.2-2]
		s.expiry = cmd.Expiry
	}
	if cmd.EndSession {
		s.expiry = 0
	}
	f.detach(c)
	f.wait(c, f.now)
}

// deleteSession ends a session or closes a clean client, whoever has it.
func (f *FSM) deleteSession(cmd *fsmpb.DeleteSession, r *Result) {
	c := f.clients.byID[cmd.ClientId]
	switch {
	case c == nil:
		r.Code = NotFound
	case cmd.Epoch != 0 && c.epoch != Epoch(cmd.Epoch):
		r.Code = Stale
	default:
		if c.online() && c.owner.node == f.node {
			f.emit(Effect{Kind: EffectEnded, Client: c.id, Epoch: c.epoch, Node: c.owner.ref()})
		}
		f.end(c)
	}
}
