package cluster

import (
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
)

// Handler is what the cluster asks of the node that it is a part of.
type Handler interface {
	// Apply does what the log asks of this node. It is called on the goroutine that applies the log, in
	// log order, so it must not block; effects belong to the caller again when it returns. An
	// EffectResult is not among them: it goes to the done of its Propose, in the same order.
	Apply(effects []fsm.Effect)
	// Deliver hands a link frame of a live incarnation to this node's clients, in the order in which
	// they were sent. It must not block nor keep what the frame aliases.
	Deliver(from fsm.NodeRef, f *clusterpb.Frame) clusterpb.LinkCode

	// The calls below come one at a time, from one goroutine.

	// Serving begins an incarnation: it is in the log and has its first lease; clients may come.
	Serving(self fsm.NodeRef)
	// Ended ends an incarnation that served. When it returns, nothing is acknowledged to any of its
	// clients any more; the next incarnation waits for that.
	Ended(self fsm.NodeRef)
	// LeaseLost tells that the lease ran out, once at once and once, beyondGrace, when it has been
	// gone for longer than the grace period. Not called any more once the incarnation has ended.
	LeaseLost(beyondGrace bool)
	// LeaseBack tells that there is a lease again in the same incarnation.
	LeaseBack()
}
