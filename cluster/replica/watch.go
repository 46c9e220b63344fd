package replica

import "github.com/hashicorp/raft"

// stir is called by raft whenever something about its state may have changed. It never blocks.
func (r *Replica) stir() {
	select {
	case r.stirred <- struct{}{}:
	default:
	}
}

// watch follows who leads until raft has shut down: for the batches, and for the hook.
func (r *Replica) watch() {
	var leads bool
	var term uint64
	last := ""
	for {
		over := false
		select {
		case <-r.stirred:
		case <-r.raft.LeaderCh():
		case <-r.halt:
			over = true
		}
		id, address := r.Leader()
		r.route.set(id, address)
		if id != "" && id != last {
			last = id
			r.leaders.Add(1)
			r.cfg.Hooks.Led()
		}
		nowLeads, nowTerm := r.standing()
		nowLeads = nowLeads && !over
		if leads && (!nowLeads || nowTerm != term) { // also when it leads again, in a later term
			leads = false
			r.cfg.Hooks.LeaderChanged(false, nowTerm)
		}
		if nowLeads && !leads {
			leads, term = true, nowTerm
			r.cfg.Hooks.LeaderChanged(true, term)
		}
		if over {
			return
		}
	}
}

// standing is whether this node leads, and in which term: read together, for raft changes them one after
// the other.
func (r *Replica) standing() (leads bool, term uint64) {
	for {
		before := r.raft.CurrentTerm()
		leads = r.raft.State() == raft.Leader
		if term = r.raft.CurrentTerm(); term == before {
			return leads, term
		}
	}
}
