package fsm

import (
	"github.com/tidwall/btree"
)

// client is the record of one client id: a clean client, which exists while it is connected, or a
// persistent session (sess is set). The pointer is stable: indexes and lists hold it. The fields
// of clientRow and sessionRow are replicated; before one changes, touch must have been called.
type client struct {
	id string
	clientRow
	sess *sessionRow
	subs []*subscription // of a persistent session

	round      uint64                   // the snapshot round in which it was last touched
	prev, next *client                  // in its owner's list
	byKey      map[subKey]*subscription // only when there are many
	hit        int                      // its place in FSM.hits, valid if serial is current
	serial     uint64
}

// clientRow is what clean clients and sessions share. Strings are never aliased to an entry.
type clientRow struct {
	epoch     Epoch
	owner     *incarnation // whose connection it is; nil: offline
	protocol  uint32
	keepalive uint32
	username  string
	address   string
	listener  string
	connected int64 // the log's clock when it connected
	offline   int64 // and when it went offline; 0 while connected
	will      *will
	willAt    timerKey // an offline session's will that waits for its delay
}

// sessionRow is what a persistent session has beyond that. The slices are append-only or replaced
// as a whole, so that a copy of the row stays what it was.
type sessionRow struct {
	created  int64
	born     Epoch  // of the connect that made it: tells sessions of one client id apart
	expiry   uint32 // seconds
	expireAt timerKey
	limits   Limits
	cursor   uint64
	last     uint64
	mark     uint64
	closed   bool // mark covers the last connection
	done     []Range
	received []Range
	queue    []Entry
	inbound  []uint16

	// Derived, see queue.go.
	bytes     uint64 // of all that is in queue
	trimmed   int    // entries cut off the front of queue's array
	counted   bool   // waiting and waitBytes hold
	waiting   int
	waitBytes uint64
	expires   int64 // no entry expires before; 0: none does
}

// online tells whether the client has a connection, as far as the log knows.
func (c *client) online() bool { return c.owner != nil && c.owner.live }

// stale tells whether its connection ended with its node, and nobody has finished it yet.
func (c *client) stale() bool { return c.owner != nil && !c.owner.live }

type clients struct {
	byID  map[string]*client
	order *btree.BTreeG[*client]
}

func newClients() clients {
	return clients{
		byID:  make(map[string]*client),
		order: btree.NewBTreeGOptions(func(a, b *client) bool { return a.id < b.id }, btree.Options{NoLocks: true}),
	}
}

// addClient makes a record; id must not alias an entry.
func (f *FSM) addClient(id string, persistent bool) *client {
	c := &client{id: id, round: f.round}
	if persistent {
		c.sess = &sessionRow{created: f.now}
		f.counts.sessions++
	}
	f.clients.byID[id] = c
	f.clients.order.Set(c)
	return c
}

// removeClient takes the record out of the tables; it must be detached and without subscriptions.
func (f *FSM) removeClient(c *client) {
	f.touch(c)
	delete(f.clients.byID, c.id)
	f.clients.order.Delete(c)
	f.bygone.add(c.id, c.epoch)
	if c.sess != nil {
		f.counts.sessions--
		f.counts.queued -= len(c.sess.queue)
	}
}

// attach makes inc the owner. Its list stays ordered by epoch, because epochs only grow.
func (f *FSM) attach(c *client, inc *incarnation) {
	c.owner = inc
	c.prev = inc.tail
	if inc.tail != nil {
		inc.tail.next = c
	} else {
		inc.head = c
	}
	inc.tail = c
	if c.sess == nil {
		inc.cleans++
		return
	}
	inc.sessions++
	for _, s := range c.subs {
		f.present(s, inc, 0, 1)
	}
}

// detach takes the client from its owner: it is offline.
func (f *FSM) detach(c *client) {
	inc := c.owner
	if inc == nil {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		inc.head = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		inc.tail = c.prev
	}
	c.prev, c.next, c.owner = nil, nil, nil
	if c.sess == nil {
		inc.cleans--
		return
	}
	inc.sessions--
	for _, s := range c.subs {
		f.present(s, inc, 0, -1)
	}
}

// current is the client if epoch is its connection and that belongs to the batch's origin: every
// command of a session is refused otherwise, which is what makes a takeover safe.
func (f *FSM) current(id string, epoch uint64) *client {
	c := f.clients.byID[id]
	if c == nil || c.epoch != Epoch(epoch) || c.owner == nil || c.owner != f.origin {
		return nil
	}
	return c
}
