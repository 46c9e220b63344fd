package broker

import (
	"context"
	"time"

	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// sweep advances the coarse clock and looks after what depends on it: keepalive, handshakes that
// take too long, what a lapse of the lease has left waiting, stale routes.
func (b *Broker) sweep(ctx context.Context) {
	tick := time.NewTicker(conn.TickLength)
	defer tick.Stop()
	var list []*client
	rules := b.accessVersion()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		conn.Advance()
		waits := b.leased() && (b.stalls.Swap(false) || n%4 == 0)
		now := conn.Tick()
		list = b.append(list[:0])
		if v := b.accessVersion(); v != rules {
			rules = v
			for _, c := range list {
				c.review()
			}
		}
		for _, c := range list {
			c.tick(now, waits)
		}
		clear(list)
		if n%40 == 0 {
			b.routes.sweep()
		}
	}
}

// tick looks after one client; waits: something may wait, and there is a lease.
func (c *client) tick(now int64, waits bool) {
	if p := c.patience.Load(); p > 0 && !c.held.Load() && c.conn.Idle() > p {
		c.with(func(ba *conn.Batch) {
			if c.phase != phaseOver { // it lingers, perhaps
				c.b.stats.timeouts.Add(1)
			}
			c.dismiss(mqtt.KeepAliveTimeout, ba)
		})
		return
	}
	if c.slowed.Load() {
		c.hasten()
	}
	if d := c.deadline.Load(); d > 0 && now > d {
		c.deadline.Store(0)
		c.with(func(ba *conn.Batch) {
			switch c.phase {
			case phaseFresh, phaseExchange: // nothing, or half a packet: nobody to answer
				c.phase, c.ended = phaseOver, true
				c.b.stats.timeouts.Add(1)
				c.b.reached(LimitConnectTimeout)
				c.finish(ba)
			case phaseProposed, phaseGated: // no quorum in time
				c.dismiss(mqtt.ServerUnavailable, ba)
			}
		})
		return
	}
	if u := c.until.Load(); u > 0 && now > u {
		c.until.Store(0)
		c.with(func(ba *conn.Batch) { c.dismiss(mqtt.MaximumConnectTime, ba) })
		return
	}
	if waits && c.stalled() {
		c.leaseBack()
	}
}
