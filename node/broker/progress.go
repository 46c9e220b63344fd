package broker

import (
	"context"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/session"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// pairs writes ranges as the log does.
func pairs(rs []fsm.Range) []uint64 {
	if len(rs) == 0 {
		return nil
	}
	out := make([]uint64, 0, 2*len(rs))
	for _, r := range rs {
		out = append(out, r.Lo, r.Hi)
	}
	return out
}

// progress describes what the session has done since it was last asked; received comes apart, for
// the PUBRELs that follow. Caller holds the lock.
func (c *client) progress() (p *fsmpb.Progress, received []fsm.Range) {
	done := c.sess.TakeProgress()
	received = c.sess.TakeReceived()
	p = &fsmpb.Progress{Cursor: done.Cursor, Done: pairs(done.Done), Received: pairs(received)}
	for _, d := range c.sess.TakeDrops() { // counted when the log has them
		p.Drops = append(p.Drops, &fsmpb.Drop{Seq: d.Seq, Reason: uint32(d.Reason)})
	}
	return p, received
}

// proposeProgress puts into the log what the client has acknowledged. Caller holds the lock.
func (c *client) proposeProgress() {
	p, received := c.progress()
	p.ClientId, p.Epoch = c.info.id, uint64(c.epoch)
	cursor := p.Cursor
	c.b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_Progress{Progress: p}}, func(r fsm.Result, err error) {
		if err == nil && r.Code == fsm.OK {
			c.progressed(cursor, received)
		}
	})
}

// progressed hears that an acknowledgement is in the log: PUBRELs may leave, and more may be sent.
// On the applying goroutine.
func (c *client) progressed(cursor uint64, received []fsm.Range) {
	ba := c.b.applying
	c.conn.Lock()
	defer c.conn.Unlock()
	if c.phase == phaseOver {
		return
	}
	c.sess.Committed(cursor)
	if len(received) > 0 {
		if c.phase == phaseOnline && c.b.leased() {
			c.conn.SetOut(c.sess.Received(received, c.conn.Out()), ba)
		} else { // the PUBRELs wait, as every answer does
			c.intake.releases = c.sess.Received(received, c.intake.releases)
		}
	}
	c.push(ba)
}

// proposeRelease takes a packet id out of the inbound set before PUBCOMP. Caller holds the lock.
func (c *client) proposeRelease(id uint16, slot uint64) {
	const size = 64 // about what a release takes on its way to the log
	c.pending += size
	cmd := &fsmpb.Release{ClientId: c.info.id, Epoch: uint64(c.epoch), PacketId: uint32(id)}
	c.b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_Release{Release: cmd}}, func(r fsm.Result, err error) {
		if err != nil || r.Code == fsm.Stale {
			return
		}
		d := completion{kind: session.Pubcomp, slot: slot}
		if r.Code == fsm.NotFound {
			d.code = mqtt.PacketIdentifierNotFound
		}
		c.conn.Lock()
		defer c.conn.Unlock()
		c.pending -= size
		c.complete(c.b.applying, d)
		c.relent(c.b.applying)
	})
}

// proposeDisconnect ends the connection in the log, once. A superseded connection's settles the fate
// of its will. Caller holds the lock.
func (c *client) proposeDisconnect() { c.proposeEnd(func() {}) }

// proposeEnd is proposeDisconnect; done runs once, when this node has applied it or gives up, and at
// once where it was proposed before. It must not block. Caller holds the lock.
func (c *client) proposeEnd(done func()) {
	if c.ended {
		done()
		return
	}
	c.ended = true
	if g := c.intake.goodbye; g != nil { // the client has left, though not all that it published before is taken
		c.intake.goodbye = nil
		if first, body, _, err := mqtt.Split(g, 0); err == nil {
			_ = c.farewell(first, body) // malformed: as if it had not said it
		}
	}
	if p := c.intake.held; p != nil && p.qos == 0 && c.linked[0] > 0 { // it waits for a fence: state may be lost else
		c.intake.held = nil
		c.publishLog(p)
	}
	cmd := &fsmpb.Disconnect{ClientId: c.info.id, Epoch: uint64(c.epoch), Clean: c.clean || !c.mayWill()}
	if c.expiry != nil {
		cmd.HasExpiry, cmd.Expiry = true, *c.expiry
	}
	if s := c.sess; s != nil && !s.Clean() {
		cmd.Progress, _ = c.progress()
		cmd.Sent = s.Sent()
	}
	c.b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_Disconnect{Disconnect: cmd}}, func(fsm.Result, error) { done() })
	c.forget()
}

// unsubscribeAll takes the client's subscriptions off this node; released, also from what the other
// nodes know. Caller holds the lock.
func (c *client) unsubscribeAll(released bool) {
	for _, s := range c.subs {
		c.b.local.remove(s)
		if released && c.sess.Clean() {
			c.b.interests.release(s.key(), func() {})
		}
	}
	c.subs = nil
	c.ops = operations{}
	c.drop(fsm.ReasonSlowReader, c.zero.clear())
}

// forget gives up what the client has on this node beside its connection. Caller holds the lock.
func (c *client) forget() {
	b := c.b
	c.unsubscribeAll(true)
	c.abandonIntake()
	if c.sess == nil || !c.sess.Clean() {
		return
	}
	reassign, lost := c.sess.Leftover()
	c.drop(fsm.ReasonSessionEnded, lost)
	b.lazy.confirm(c.sess.TakeSettled())
	b.orphans.leftBy(reassign)
	var returned []uint64
	for _, e := range reassign {
		if e.Pick != 0 {
			returned = append(returned, e.Pick)
		}
	}
	if len(returned) > 0 {
		b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_SharedDone{SharedDone: &fsmpb.SharedDone{Returned: returned}}}, func(fsm.Result, error) {})
	}
}

// lazy gathers what may reach the log later: cursors, and assignments of shared groups that are
// settled.
type lazy struct {
	mu       sync.Mutex
	sessions []*client
	picks    []uint64
	wake     chan struct{}
}

// lazyAfter bounds how long a cursor stays uncommitted.
const lazyAfter = 150 * time.Millisecond

func (l *lazy) init() { l.wake = make(chan struct{}, 1) }

func (l *lazy) cursor(c *client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions = append(l.sessions, c)
	l.signal()
}

func (l *lazy) confirm(picks []uint64) {
	if len(picks) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.picks = append(l.picks, picks...)
	l.signal()
}

func (l *lazy) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lazy) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions, l.picks = nil, nil
}

func (l *lazy) take() (sessions []*client, picks []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sessions, picks = l.sessions, l.picks
	l.sessions, l.picks = nil, nil
	return sessions, picks
}

// runLazy proposes what has gathered, a while after the first of it came.
func (b *Broker) runLazy(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.lazy.wake:
		}
		timer.Reset(lazyAfter)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		sessions, picks := b.lazy.take()
		for _, c := range sessions {
			c.commitCursor()
		}
		if len(picks) > 0 {
			b.cluster.Propose(&fsmpb.Command{Op: &fsmpb.Command_SharedDone{SharedDone: &fsmpb.SharedDone{Confirmed: picks}}}, func(fsm.Result, error) {})
		}
	}
}

func (c *client) commitCursor() {
	c.conn.Lock()
	defer c.conn.Unlock()
	c.queued = false
	if c.phase != phaseOnline {
		return
	}
	if dirty, _ := c.sess.Dirty(); dirty || c.sess.Drops() > 0 {
		c.proposeProgress()
	}
}
