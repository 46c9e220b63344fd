package fsm

import "github.com/tidwall/btree"

// timerKey orders timers: by when they are due, then by when they were made. The zero key is none.
type timerKey struct {
	due    int64
	serial uint64
}

func (k timerKey) set() bool { return k != timerKey{} }

type timerKind uint8

const (
	timerSession  timerKind = iota + 1 // a session's expiry
	timerWill                          // an offline session's delayed will
	timerRetained                      // a retained message's expiry
	timerBan                           // the end of a ban
)

type timer struct {
	timerKey
	kind   timerKind
	client *client
	topic  string
}

// timers are derived from the keys that their records hold, but for the serial.
type timers struct {
	queue  *btree.BTreeG[timer]
	serial uint64
}

func newTimers() timers {
	return timers{queue: btree.NewBTreeGOptions(func(a, b timer) bool {
		if a.due != b.due {
			return a.due < b.due
		}
		return a.serial < b.serial
	}, btree.Options{NoLocks: true})}
}

// roundUp is the next whole second: timers of one second fire in one entry.
func roundUp(ms int64) int64 {
	if over := ms % 1000; over > 0 {
		return ms - over + 1000
	}
	return ms
}

// LevelPrecise is the feature level from which on wills and sessions are due on a quarter of a second, and
// Limits may say DropOldest.
const LevelPrecise = 2

// LevelAccess is the feature level of ChangeAccess.
const LevelAccess = 3

// after is when a will's delay or a session's expiry is over: never too early, and soon enough for a will to
// be published within a second. Both are rounded alike, so that a will that comes with the end of its
// session comes in the same step [MQTT-3.1.2-8].
func (f *FSM) after(at int64, seconds uint32) int64 {
	due := at + int64(seconds)*1000
	if f.members.level() < LevelPrecise {
		return roundUp(due)
	}
	const grain = 250
	return (due + grain - 1) / grain * grain
}

// schedule starts a timer.
func (t *timers) schedule(due int64, kind timerKind, c *client, topic string) timerKey {
	t.serial++
	k := timerKey{due, t.serial}
	t.queue.Set(timer{k, kind, c, topic})
	return k
}

// cancel stops a timer and clears its key.
func (t *timers) cancel(k *timerKey) {
	if k.set() {
		t.queue.Delete(timer{timerKey: *k})
		*k = timerKey{}
	}
}

// NextDue is when the next timer is due on the log's clock; a leader then appends a Tick.
func (f *FSM) NextDue() (int64, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	t, ok := f.timers.queue.Min()
	return t.due, ok
}

// fire does what is due.
func (f *FSM) fire() {
	for {
		t, ok := f.timers.queue.Min()
		if !ok || t.due > f.now {
			return
		}
		f.timers.queue.Delete(t)
		switch t.kind {
		case timerSession:
			f.touch(t.client)
			t.client.sess.expireAt = timerKey{}
			f.end(t.client)
		case timerWill:
			f.touch(t.client)
			t.client.willAt = timerKey{}
			f.willNow(t.client)
		case timerRetained:
			f.retained.remove(t.topic)
		case timerBan:
			f.banOver(t.topic)
		}
		f.publishWills()
	}
}
