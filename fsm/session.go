package fsm

import (
	"slices"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// neverExpires is a session expiry interval that is none [MQTT 3.1.2.11.2].
const neverExpires = 0xFFFFFFFF

// wait makes a session that has just been detached wait for its client, from the time at on, or
// ends it if it has no expiry.
func (f *FSM) wait(c *client, at int64) {
	s := c.sess
	c.offline = at
	if s.expiry == 0 {
		f.end(c)
		return
	}
	if c.will != nil {
		if delay := min(c.will.delay, s.expiry); delay > 0 {
			c.willAt = f.timers.schedule(f.after(at, delay), timerWill, c, "")
		} else {
			f.willNow(c)
		}
	}
	if s.expiry != neverExpires {
		s.expireAt = f.timers.schedule(f.after(at, s.expiry), timerSession, c, "")
	}
}

// finish does for a client of a dead node what its Disconnect would have done when the node ended.
func (f *FSM) finish(c *client) {
	f.touch(c)
	if c.sess == nil {
		f.end(c)
		return
	}
	at := c.owner.endedAt
	c.closeWindow()
	f.detach(c)
	f.wait(c, at)
	if c.willAt.set() && c.willAt.due <= f.now {
		f.willNow(c)
	}
	if c.sess.expireAt.set() && c.sess.expireAt.due <= f.now {
		f.end(c)
	}
}

// end removes a client or session with all that it has. Its will, if it still has one, is
// published; messages that a shared group gave it go to another member [MQTT-4.8.2-5].
func (f *FSM) end(c *client) {
	f.touch(c)
	f.willNow(c)
	if c.sess == nil {
		f.detach(c)
		f.removeClient(c)
		return
	}
	s := c.sess
	f.timers.cancel(&s.expireAt)
	c.closeWindow()
	for len(c.subs) > 0 {
		f.unlink(c.subs[len(c.subs)-1])
	}
	f.detach(c)
	f.removeClient(c)
	var handed []Entry
	ended, expired := 0, 0
	for i := range s.queue {
		e := &s.queue[i]
		switch {
		case s.settled(e.Seq):
		case e.Message.expired(f.now):
			expired++
		case e.Group != "" && (e.QoS == 1 || e.QoS == 2 && e.Seq > s.mark):
			handed = append(handed, *e)
		default:
			ended++
		}
	}
	f.dropped(c.id, ReasonExpired, expired)
	f.dropped(c.id, ReasonSessionEnded, ended)
	for _, e := range handed {
		f.assign(c.id, e.Message, e.Filter, e.Group, nil)
	}
}

// view is the session for its owner. What it points to is never written again.
func (c *client) view() *SessionView {
	s := c.sess
	return &SessionView{
		ClientID: c.id, Epoch: c.epoch, Expiry: s.expiry, Limits: s.limits,
		Cursor: s.cursor, Last: s.last, Mark: s.mark,
		Done: slices.Clip(s.done), Received: slices.Clip(s.received),
		Queue: slices.Clip(s.queue), Inbound: slices.Clip(s.inbound),
		Subscriptions: c.subscriptions(),
	}
}

// release forgets an inbound QoS 2 packet id: its PUBREL came.
func (f *FSM) release(cmd *fsmpb.Release, r *Result) {
	c := f.current(cmd.ClientId, cmd.Epoch)
	if c == nil || c.sess == nil {
		r.Code = Stale
		return
	}
	s := c.sess
	i := -1
	if cmd.PacketId <= 0xFFFF {
		i = slices.Index(s.inbound, uint16(cmd.PacketId))
	}
	if i < 0 {
		r.Code = NotFound
		return
	}
	f.touch(c)
	if i == 0 { // the usual case: they complete in order
		if s.inbound = s.inbound[1:]; len(s.inbound) == 0 {
			s.inbound = nil
		}
		return
	}
	rest := make([]uint16, 0, len(s.inbound)-1)
	s.inbound = append(append(rest, s.inbound[:i]...), s.inbound[i+1:]...)
}

func (f *FSM) progressCommand(cmd *fsmpb.Progress, r *Result) {
	c := f.current(cmd.ClientId, cmd.Epoch)
	if c == nil || c.sess == nil {
		r.Code = Stale
		return
	}
	r.Code = f.progress(c, cmd)
}

// progress takes what the owner of a session says about its queue. Anything in it may come twice.
func (f *FSM) progress(c *client, p *fsmpb.Progress) Code {
	s := c.sess
	done, ok1 := pairs(p.Done, s.cursor, s.last)
	received, ok2 := pairs(p.Received, s.cursor, s.last)
	if !ok1 || !ok2 || p.Cursor > s.last {
		return Invalid
	}
	f.touch(c)
	s.counted = false
	f.takeOut(c, p.Drops) // first: to the owner what it dropped is done
	s.done = union(s.done, done)
	s.received = subtract(union(s.received, received), s.done)
	s.cursor = max(s.cursor, p.Cursor)
	f.trim(s)
	f.advance(s)
	return OK
}

// takeOut removes entries that the owner will not deliver.
func (f *FSM) takeOut(c *client, drops []*fsmpb.Drop) {
	if len(drops) == 0 {
		return
	}
	s := c.sess
	var gone, tombs []Range
	for _, d := range drops {
		e := s.entry(d.Seq)
		if e == nil || s.settled(d.Seq) || contains(gone, d.Seq) {
			continue
		}
		gone = union(gone, []Range{{d.Seq, d.Seq}})
		if e.QoS == 2 && d.Seq <= s.mark {
			tombs = append(tombs, Range{d.Seq, d.Seq})
		}
		reason := Reason(d.Reason)
		if reason == ReasonNone || reason >= ReasonCount {
			reason = ReasonNotAllowed
		}
		f.dropped(c.id, reason, 1)
	}
	f.removeEntries(s, gone, tombs)
}
