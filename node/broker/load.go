package broker

// Load is what waits at this node's clients.
type Load struct {
	Inflight  int // QoS 1 and 2 sent and not completed
	Queued    int // waiting to be sent
	Unwritten int // bytes that the sockets have no room for yet
	SentBytes uint64
	Listeners map[string]int // connections
}

// Load sums it up: it looks at every connection.
func (b *Broker) Load() Load {
	l := Load{Listeners: make(map[string]int), SentBytes: b.stats.bytesOut.Load()}
	for _, c := range b.all() {
		c.conn.Lock()
		l.Listeners[c.listener]++
		l.Unwritten += c.conn.OutLen()
		l.SentBytes += c.conn.Sent()
		if c.sess != nil && c.phase != phaseOver {
			l.Inflight += c.sess.Inflight()
			l.Queued += c.sess.Queued() + c.zero.len()
		}
		c.conn.Unlock()
	}
	return l
}
