package cluster

import (
	"github.com/skein-mqtt/skein/cluster/link"
	"github.com/skein-mqtt/skein/cluster/replica"
)

// Stats is what metrics tell of the log.
type Stats = replica.Stats

// LinkStats is what metrics tell of the link to one node.
type LinkStats = link.Stats

// Timing is how long something took.
type Timing = replica.Timing

// Stats reads them. It is cheap.
func (c *Cluster) Stats() Stats { return c.log.Stats() }

// LinkStats are those of the links to the other nodes, by node.
func (c *Cluster) LinkStats() []LinkStats { return c.links.Stats() }
