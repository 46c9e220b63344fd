package sim

import (
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// side is the node as its broker sees it: broker.Cluster.
type side struct{ n *Node }

func (s side) Propose(cmd *fsmpb.Command, done func(fsm.Result, error)) uint64 {
	if s.n.dead.Load() {
		done(fsm.Result{}, errEnded)
		return 0
	}
	sequence, ok := s.n.proposer.propose(cmd, done)
	if !ok {
		done(fsm.Result{}, errEnded)
	}
	return sequence
}

func (s side) Backlog() (commands, bytes int) { return s.n.proposer.backlog() }

func (s side) Barrier(index uint64, done func()) {
	n := s.n
	n.mu.Lock()
	if n.Self().Incarnation == 0 {
		n.mu.Unlock()
		return
	}
	if n.mark < index {
		n.barriers = append(n.barriers, barrier{index, done})
		n.mu.Unlock()
		return
	}
	n.mu.Unlock()
	done()
}

func (s side) Leased() bool      { return s.n.leased.Load() && !s.n.dead.Load() }
func (s side) Now() int64        { return max(time.Now().UnixMilli(), s.n.FSM.Now()) }
func (s side) Self() fsm.NodeRef { return s.n.Self() }

func (s side) Send(to fsm.NodeRef, f *clusterpb.Frame, done clusterpb.LinkDone) bool {
	return s.n.links.Send(to, f, done)
}

func (s side) LinkCongested(node string) bool { return s.n.links.Congested(node) }

// host is the node as its links see it: link.Host.
type host struct{ n *Node }

func (h host) Self() fsm.NodeRef { return h.n.Self() }
func (h host) Leased() bool      { return side(h).Leased() }

func (h host) Dial(node string) (clusterpb.PeerClient, error) {
	if h.n.dead.Load() {
		return nil, errDown
	}
	return peer{w: h.n.w, route: route{h.n.ID, node}}, nil
}

func (h host) Deliver(from fsm.NodeRef, f *clusterpb.Frame) clusterpb.LinkCode {
	return h.n.Broker.Deliver(from, f)
}

func (h host) Relay(cmd *fsmpb.Relay, done func(error)) {
	side(h).Propose(&fsmpb.Command{Op: &fsmpb.Command_Relay{Relay: cmd}}, func(_ fsm.Result, err error) { done(err) })
}
