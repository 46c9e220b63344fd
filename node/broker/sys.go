package broker

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/topic"
)

// sysTopics are the $SYS topics as Mosquitto's users know them: of this node, and of the cluster
// under $SYS/broker/cluster. They are published on this node alone, to those who are connected here,
// and count as retained for new subscribers.
type sysTopics struct {
	mu     sync.Mutex
	values topic.NameTree[*fsm.Message]
}

func (b *Broker) runSys(ctx context.Context) {
	tick := time.NewTicker(b.cfg.SysInterval)
	defer tick.Stop()
	b.publishSys()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			b.publishSys()
		}
	}
}

func (b *Broker) sysValues() map[string]string {
	s := b.Stats()
	c := b.state.Counts()
	n := func(v uint64) string { return strconv.FormatUint(v, 10) }
	i := strconv.Itoa
	received := s.Received[0] + s.Received[1] + s.Received[2]
	sent := s.Sent[0] + s.Sent[1] + s.Sent[2]
	var dropped uint64
	values := map[string]string{}
	for r, v := range s.Dropped {
		dropped += v
		if r > 0 {
			values["publish/messages/dropped/"+fsm.Reason(r).String()] = n(v)
		}
	}
	for k, v := range map[string]string{
		"version": "skein version " + b.cfg.Version, "node": b.cfg.Node,
		"uptime":            i(int(time.Since(b.started).Seconds())) + " seconds",
		"clients/connected": i(s.Clients), "clients/total": i(s.Clients), "clients/maximum": n(s.Connects),
		"messages/received": n(s.PacketsIn), "bytes/received": n(s.BytesIn),
		"publish/messages/received": n(received), "publish/messages/sent": n(sent), "publish/messages/dropped": n(dropped),
		"subscriptions/count": i(s.Subscriptions), "retained messages/count": i(c.Retained), "store/messages/count": i(c.Queued),
		"store/messages/bytes": n(c.RetainedBytes),
		"cluster/nodes":        i(c.Members), "cluster/nodes/live": i(c.Live),
		"cluster/clients/connected": i(c.Connected + c.CleanClients), "cluster/sessions": i(c.Sessions),
		"cluster/clients/disconnected": i(c.Sessions - c.Connected), "cluster/subscriptions": i(c.Subscriptions),
		"cluster/messages/queued": i(c.Queued), "cluster/messages/retained": i(c.Retained),
	} {
		values[k] = v
	}
	return values
}

func (b *Broker) publishSys() {
	ba := getBatch()
	defer putBatch(ba)
	for k, v := range b.sysValues() {
		m := &fsm.Message{Topic: "$SYS/broker/" + k, Payload: []byte(v), Retain: true}
		b.sys.mu.Lock()
		old, had := b.sys.values.Set(m.Topic, m)
		b.sys.mu.Unlock()
		if had && string(old.Payload) == v && !strings.HasSuffix(k, "uptime") {
			continue
		}
		n := newMessage(m)
		n.retain = false
		_, targets := b.routes.lookup(m.Topic)
		b.deliver(n, targets, ba)
		n.free()
	}
	b.flusher.take(ba)
}

// sysRetained gives a new subscription the current values. Caller holds the lock.
func (c *client) sysRetained(s fsm.Subscription, existed bool, ba *conn.Batch) {
	if !strings.HasPrefix(s.Filter, "$") || s.Group != "" || s.RetainHandling == 2 || s.RetainHandling == 1 && existed {
		return
	}
	var ids []uint32
	if s.ID != 0 {
		ids = []uint32{s.ID}
	}
	sys := &c.b.sys
	sys.mu.Lock()
	sys.values.MatchFilter(s.Filter, func(_ string, m *fsm.Message) bool {
		c.zero.push(fsm.Entry{Message: m, Retain: true, IDs: ids})
		return true
	})
	sys.mu.Unlock()
	if c.phase == phaseOnline {
		c.pushZero(ba)
	}
}
