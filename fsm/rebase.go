package fsm

// Rebase makes a state that some cluster has left behind fit to be taken over by one that goes on at the time
// now, ms, of the log's clock: none of its nodes is live any more, so no batch of theirs is taken, and Reap
// cleans up behind them as behind nodes that died. The time that nobody kept does not count for sessions that
// wait for their client and for delayed wills; messages expire by the clock all the same.
//
// It is for a state machine that was filled by Restore and applies no log.
func (f *FSM) Rebase(now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	away := max(0, now-f.now)
	f.now = max(f.now, now)
	for _, m := range f.members.list { // by id
		f.endIncarnation(m, "of the cluster that the backup is of")
	}
	f.members.list = nil
	f.clients.order.Scan(func(c *client) bool { // by id
		f.touch(c)
		f.postpone(&c.willAt, away, timerWill, c)
		if c.sess != nil {
			f.postpone(&c.sess.expireAt, away, timerSession, c)
		}
		return true
	})
	clear(f.effects)
	f.effects = f.effects[:0]
}

func (f *FSM) postpone(k *timerKey, by int64, kind timerKind, c *client) {
	if k.set() && by > 0 {
		due := roundUp(k.due + by)
		f.timers.cancel(k)
		*k = f.timers.schedule(due, kind, c, "")
	}
}
