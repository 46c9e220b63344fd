package fsm

import "slices"

// The reads that operators and the cluster's own loops use. Callbacks run under the read lock:
// they must be short and must not call back.

// SessionInfo describes a client or session.
type SessionInfo struct {
	ClientID      string
	Epoch         Epoch
	Clean         bool // a clean client; else a persistent session
	Connected     bool
	Owner         NodeRef // of the connection, if there is one
	ConnectedAt   int64   // the log's clock in ms, of the last connect
	OfflineAt     int64   // 0 while connected
	CreatedAt     int64
	Born          Epoch // of the connect that made the session
	Protocol      uint32
	Keepalive     uint32
	Username      string
	Address       string
	Listener      string
	Expiry        uint32 // seconds
	ExpiresAt     int64  // 0: not scheduled
	HasWill       bool
	WillAt        int64 // a delayed will is published then; 0: none waits
	Limits        Limits
	Cursor        uint64
	Last          uint64
	Mark          uint64
	Queue         int // entries
	QueueBytes    uint64
	Received      []Range
	Inbound       int
	Subscriptions int
}

func (c *client) info() SessionInfo {
	i := SessionInfo{
		ClientID: c.id, Epoch: c.epoch, Clean: c.sess == nil, Connected: c.online(),
		ConnectedAt: c.connected, OfflineAt: c.offline, CreatedAt: c.connected,
		Protocol: c.protocol, Keepalive: c.keepalive, Username: c.username, Address: c.address, Listener: c.listener,
		HasWill: c.will != nil, WillAt: c.willAt.due,
	}
	if i.Connected {
		i.Owner = c.owner.ref()
	} else if c.owner != nil {
		i.OfflineAt = c.owner.endedAt
	}
	if s := c.sess; s != nil {
		i.CreatedAt, i.Born = s.created, s.born
		i.Expiry, i.ExpiresAt, i.Limits = s.expiry, s.expireAt.due, s.limits
		i.Cursor, i.Last, i.Mark = s.cursor, s.last, s.mark
		i.Queue, i.QueueBytes, i.Received, i.Inbound = len(s.queue), s.bytes, s.received, len(s.inbound)
		i.Subscriptions = len(c.subs)
	}
	return i
}

// Live is the live incarnation of a node.
func (f *FSM) Live(node string) (NodeRef, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if m := f.members.get(node); m != nil && m.Live {
		return NodeRef{m.ID, m.Incarnation}, true
	}
	return NodeRef{}, false
}

// Members are all nodes, by id.
func (f *FSM) Members() []Member {
	f.mu.RLock()
	list := f.members.list
	f.mu.RUnlock()
	out := make([]Member, len(list))
	for i, m := range list {
		out[i] = *m
	}
	return out
}

// Incarnation is the live incarnation that a NodeUp with that nonce began.
func (f *FSM) Incarnation(node string, nonce uint64) (uint64, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if m := f.members.get(node); m != nil && m.Live && m.Nonce == nonce {
		return m.Incarnation, true
	}
	return 0, false
}

// NextSequence is the sequence that the next command of an incarnation must have; 0 if it is not
// live.
func (f *FSM) NextSequence(ref NodeRef) uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if inc := f.members.incarnation(ref.Incarnation); inc != nil && inc.live && inc.node == ref.Node {
		return inc.next
	}
	return 0
}

// NeedsReap is an ended incarnation with records left: a leader then appends a Reap.
func (f *FSM) NeedsReap() (NodeRef, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if len(f.members.ended) == 0 {
		return NodeRef{}, false
	}
	return f.members.ended[0].ref(), true
}

// FeatureLevel is the highest feature level that every member knows: commands of a higher one must
// not be used yet.
func (f *FSM) FeatureLevel() uint32 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.members.level()
}

// ClientEpoch is the newest epoch of a client id that is known, connected or not; for a while also
// that of one whose record is gone.
func (f *FSM) ClientEpoch(clientID string) (Epoch, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if c := f.clients.byID[clientID]; c != nil {
		return c.epoch, true
	}
	epoch, ok := f.bygone.epochs[clientID]
	return epoch, ok
}

// Session describes a client id, clean or persistent.
func (f *FSM) Session(clientID string) (SessionInfo, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	c := f.clients.byID[clientID]
	if c == nil {
		return SessionInfo{}, false
	}
	return c.info(), true
}

// turn is how many records a list reads at a time: nobody waits for longer than that takes, however long the list
// and however few of it are wanted.
const turn = 256

// Sessions calls fn for the persistent sessions by client id, from the given one on, until fn says
// false. It is read in turns, between which the log goes on.
func (f *FSM) Sessions(from string, fn func(SessionInfo) bool) { f.list(from, false, fn) }

// CleanClients is Sessions for the clean clients.
func (f *FSM) CleanClients(from string, fn func(SessionInfo) bool) { f.list(from, true, fn) }

func (f *FSM) list(from string, clean bool, fn func(SessionInfo) bool) {
	page := make([]SessionInfo, 0, turn)
	for more := true; more; {
		page = page[:0]
		from, more = f.inTurn(from, func(c *client) int {
			if (c.sess == nil) == clean {
				page = append(page, c.info())
			}
			return 0
		})
		for i := range page {
			if !fn(page[i]) {
				return
			}
		}
	}
}

// Subscriptions calls fn for the persistent sessions' subscriptions by client id, from the given
// one on, until fn says false. It is read in turns, as Sessions is.
func (f *FSM) Subscriptions(from string, fn func(clientID string, s Subscription) bool) {
	type row struct {
		client string
		sub    Subscription
	}
	page := make([]row, 0, turn)
	for more := true; more; {
		page = page[:0]
		from, more = f.inTurn(from, func(c *client) int {
			for _, s := range c.subs {
				page = append(page, row{c.id, s.public()})
			}
			return len(c.subs)
		})
		for i := range page {
			if !fn(page[i].client, page[i].sub) {
				return
			}
		}
	}
}

// inTurn shows the clients of one turn, from the given id on. fn tells how much more than one record a client was. It
// returns where the next turn begins, and whether there is any.
func (f *FSM) inTurn(from string, fn func(*client) int) (next string, more bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	n := 0
	f.clients.order.Ascend(&client{id: from}, func(c *client) bool {
		if more = n >= turn; more {
			next = c.id
			return false
		}
		n += 1 + fn(c)
		return true
	})
	return next, more
}

// View is a session as its owner sees it when it connects.
func (f *FSM) View(clientID string) (*SessionView, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	c := f.clients.byID[clientID]
	if c == nil || c.sess == nil {
		return nil, false
	}
	return c.view(), true
}

// RetainedCount is how many topics have a retained message.
func (f *FSM) RetainedCount() int { return f.Counts().Retained }

// RetainedBytes is how large they are.
func (f *FSM) RetainedBytes() uint64 { return f.Counts().RetainedBytes }

// Counts are the sizes of the state.
type Counts struct {
	Members       int
	Live          int
	Sessions      int // persistent
	Connected     int // persistent sessions with a connection
	CleanClients  int // connected
	Subscriptions int // of persistent sessions
	Interests     int // filters and groups that nodes have clean subscribers for
	Retained      int
	RetainedBytes uint64
	Queued        int // entries of all queues
	Assigned      int // messages that wait for clean members of shared groups
	ParkedWills   int
	Timers        int
}

// Counts reads them all at one index.
func (f *FSM) Counts() Counts {
	f.mu.RLock()
	defer f.mu.RUnlock()
	c := Counts{
		Members: len(f.members.list), Sessions: f.counts.sessions, Subscriptions: f.counts.subscriptions,
		Interests: f.interest.rows.Len(), Retained: f.retained.rows.Len(), RetainedBytes: f.retained.bytes,
		Queued: f.counts.queued, Assigned: f.assigned.rows.Len(), ParkedWills: f.parked.rows.Len(),
		Timers: f.timers.queue.Len(),
	}
	for _, m := range f.members.list {
		if m.Live {
			inc := f.members.incarnation(m.Incarnation)
			c.Live++
			c.Connected += inc.sessions
			c.CleanClients += inc.cleans
		}
	}
	return c
}

// Away tells what became, for persistent sessions that are not connected, of a publish to a topic that the entry
// at index made, outside of shared groups: who keeps it, and who had no room for it; at most limit of each.
func (f *FSM) Away(topic string, qos byte, index uint64, limit int) (kept, lost []string) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var scratch [16]*filter
	for _, fl := range f.topics.match(scratch[:0], topic) {
		for _, s := range fl.subs {
			c := s.client
			if c.online() || min(qos, s.qos) == 0 && !c.sess.limits.QueueQoS0 {
				continue
			}
			list := &lost
			if c.sess.keeps(topic, index) {
				list = &kept
			}
			if len(*list) < limit && !slices.Contains(*list, c.id) {
				*list = append(*list, c.id)
			}
		}
	}
	return kept, lost
}

// keeps tells whether a message of the entry at index is in the queue.
func (s *sessionRow) keeps(topic string, index uint64) bool {
	for i := len(s.queue) - 1; i >= 0; i-- {
		m := s.queue[i].Message
		switch at := Epoch(m.ID).Index(); {
		case at < index:
			return false
		case at == index && m.Topic == topic:
			return true
		}
	}
	return false
}
