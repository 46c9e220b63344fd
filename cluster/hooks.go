package cluster

import (
	"sync"

	"github.com/skein-mqtt/skein/fsm"
)

// What the replica calls. All but leaderChanged and fatal come from the goroutine that applies the log.

// effects hands on what an entry asks of this node, in order. The links learn of a verdict after the
// handler: what they then release concerns clients that the handler knows to be gone.
func (c *Cluster) effects(effects []fsm.Effect) {
	begin := 0
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case fsm.EffectNodeUp, fsm.EffectNodeDown, fsm.EffectRefused:
			if e.Kind != fsm.EffectNodeUp {
				c.life.over(c, e.Node) // before the handler: from here on nothing is leased
			}
			c.apply(effects[begin : i+1])
			begin = i + 1
			c.noteNode(e)
		case fsm.EffectRelay:
			c.apply(effects[begin:i])
			begin = i + 1
			c.links.Relayed(e.Node, e.Sequence, e.Frame)
		}
	}
	c.apply(effects[begin:])
}

func (c *Cluster) apply(effects []fsm.Effect) {
	if len(effects) > 0 {
		c.handler.Apply(effects)
	}
}

func (c *Cluster) noteNode(e *fsm.Effect) {
	own := e.Node.Node == c.cfg.NodeID
	switch {
	case e.Kind == fsm.EffectNodeUp && own:
		c.life.up(c, e.Node)
	case e.Kind == fsm.EffectNodeUp:
		c.links.PeerUp(e.Node)
		c.cfg.Logger.Info("node is up", "node", e.Node.Node, "incarnation", e.Node.Incarnation)
	case e.Kind == fsm.EffectNodeDown && !own:
		c.links.PeerDown(e.Node)
		c.cfg.Logger.Warn("node is down", "node", e.Node.Node, "incarnation", e.Node.Incarnation)
	}
}

// appliedTo hears how far the log is applied. An entry that changed routes or subscribed somebody is reported at
// once: a SUBACK somewhere may wait for it.
func (c *Cluster) appliedTo(index uint64) {
	c.holder.Applied(index)
	if g := c.fsm.AwaitedGeneration(); g != c.generation {
		c.generation = g
		c.leader.Changed(index)
		c.holder.Report()
	}
	c.check(index)
}

// restored hears that the state came from a snapshot: entries were skipped, so this node's sessions
// missed what they carried, and links may lead to the dead.
func (c *Cluster) restored() {
	c.checks.slot = 0
	c.holder.Applied(c.fsm.Applied())
	c.holder.Report()
	c.life.restored(c)
}

// early keeps what the replica says before it is at hand, which the leases need at once.
type early struct {
	mu      sync.Mutex
	over    bool // the log is at hand
	changed bool
	leads   bool
	term    uint64
}

func (c *Cluster) leaderChanged(leads bool, term uint64) {
	c.early.mu.Lock()
	defer c.early.mu.Unlock()
	if !c.early.over {
		c.early.changed, c.early.leads, c.early.term = true, leads, term
		return
	}
	if leads && c.Quarantined() != "" { // it must not judge others by its state
		leaderLog{c}.HandOver()
		leads = false
	}
	c.leader.Change(leads, term)
}

// led is called when another node leads.
func (c *Cluster) led() {
	select {
	case c.ledBy <- struct{}{}:
	default:
	}
}

// logReady is called when the log is at hand.
func (c *Cluster) logReady() {
	c.early.mu.Lock()
	defer c.early.mu.Unlock()
	c.early.over = true
	if c.early.changed {
		c.leader.Change(c.early.leads, c.early.term)
	}
}

func (c *Cluster) hasLog() bool {
	c.early.mu.Lock()
	defer c.early.mu.Unlock()
	return c.early.over
}
