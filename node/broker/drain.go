package broker

import (
	"context"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// Drain lets every client go: it gets nothing new, may acknowledge what it has, and is then asked to
// move. At most rate of them a second begin, which is asked before each, 0 for no limit; one may take
// clientTimeout to finish. New connections should have been turned away before.
func (b *Broker) Drain(ctx context.Context, rate func() int, clientTimeout time.Duration) error {
	b.closing.Store(true)
	b.letGo(ctx, b.all(), rate, clientTimeout)
	patience, cancel := context.WithTimeout(ctx, partPatience)
	defer cancel()
	b.orphans.wait(patience)
	return ctx.Err()
}

// letGo lets clients go, as Drain does.
func (b *Broker) letGo(ctx context.Context, list []*client, rate func() int, clientTimeout time.Duration) {
	var group sync.WaitGroup
	defer group.Wait()
	due := time.Now()
	for i, c := range list {
		if r := rate(); r > 0 && i > 0 {
			due = due.Add(time.Second / time.Duration(r))
			if d := time.Until(due); d > 0 {
				select {
				case <-ctx.Done():
				case <-time.After(d):
				}
			}
		}
		group.Go(func() { c.drain(ctx, clientTimeout) })
	}
}

// Shed lets n clients go, as Drain does, while the node goes on with the others: those first that can be told
// where to go. It blocks until they have gone; when ctx ends it lets no more go.
func (b *Broker) Shed(ctx context.Context, n, rate int, clientTimeout time.Duration, progress func(total, left int)) {
	var list, old []*client
	for _, c := range b.all() {
		c.conn.Lock()
		switch {
		case c.phase != phaseOnline:
		case c.version == mqtt.V5:
			list = append(list, c)
		default:
			old = append(old, c)
		}
		c.conn.Unlock()
	}
	list = append(list, old...)
	list = list[:min(n, len(list))]
	rate = max(1, rate)
	for i := range list {
		progress(len(list), len(list)-i)
		begin := time.Now()
		list[i].drain(context.WithoutCancel(ctx), clientTimeout)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second/time.Duration(rate) - time.Since(begin)):
		}
	}
	progress(len(list), 0)
}

// Cordon keeps new clients away, or lets them in again; those that are connected stay.
func (b *Broker) Cordon(on bool) {
	b.cordon.Store(on)
	text := "new clients are let in again"
	if on {
		text = "it is cordoned: new clients are asked to go elsewhere"
	}
	b.tell(event.Event{Message: text})
}

// Cordoned tells whether new clients are kept away.
func (b *Broker) Cordoned() bool { return b.cordon.Load() }

// drainStep is how often a draining client is looked at.
const drainStep = 5 * time.Millisecond

// partPatience is how long the log may take to hear how far a client came, and the client to leave.
const partPatience = 2 * time.Second

// drain lets one client go. It blocks, and gives up waiting until nothing is under way when ctx or the
// time-out ends.
func (c *client) drain(ctx context.Context, timeout time.Duration) {
	still, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c.conn.Lock()
	c.intake.blocks |= blockDrain // no new PUBLISH either way
	c.conn.Unlock()
	tick := time.NewTicker(drainStep)
	defer tick.Stop()
	for !c.quiet() {
		select {
		case <-tick.C:
			continue
		case <-still.Done():
		}
		break
	}
	ctx, cancel = context.WithTimeout(ctx, partPatience)
	defer cancel()
	c.part(ctx)
	for {
		c.b.mu.Lock()
		there := c.at != gone
		c.b.mu.Unlock()
		if !there {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.conn.Abort()
			return
		}
	}
}

// part asks the client to move. A session that outlives its connection is told so only when the log
// knows how far it came: the client may be on another node before this one's goodbye is, and would
// then be sent again what it has acknowledged.
func (c *client) part(ctx context.Context) {
	var applied chan struct{}
	c.with(func(ba *conn.Batch) {
		switch {
		case c.phase == phaseFresh:
			c.phase, c.ended = phaseOver, true
			c.finish(ba)
		case c.phase == phaseOnline && !c.sess.Clean():
			c.phase = phaseOver
			c.why = mqtt.UseAnotherServer.String()
			applied = make(chan struct{})
			c.proposeEnd(func() { close(applied) })
		default:
			c.dismiss(mqtt.UseAnotherServer, ba)
		}
	})
	if applied == nil {
		return
	}
	select {
	case <-applied:
	case <-ctx.Done():
	}
	c.with(func(ba *conn.Batch) {
		c.sayDisconnect(mqtt.UseAnotherServer, ba)
		c.finish(ba)
	})
}

// quiet tells whether nothing is under way any more, either way.
func (c *client) quiet() bool {
	c.conn.Lock()
	defer c.conn.Unlock()
	switch c.phase {
	case phaseOver, phaseFresh, phaseExchange:
		return true
	case phaseOnline:
		return c.intake.goodbye != nil || // it is not read any more
			c.sess.Inflight() == 0 && !c.sess.Unanswered() && c.conn.OutLen() == 0
	}
	return false
}
