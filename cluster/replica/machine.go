package replica

import (
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skein-mqtt/skein/fsm"
)

// machine is the state machine as raft sees it: raft.BatchingFSM. Raft calls it from one goroutine, and
// before that one starts, from Open's.
type machine struct {
	r     *Replica
	nudge func(index, term uint64)
	dead  error // after it nothing is applied

	applies timing // of entries that came together
}

// ApplyBatch implements raft.BatchingFSM. The answer to an entry is nil when it was applied.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	defer func(begin time.Time) { m.applies.add(time.Since(begin)) }(time.Now())
	answers := make([]any, len(logs))
	for i, l := range logs {
		if err := m.apply(l); err != nil {
			answers[i] = err
		}
	}
	if last := logs[len(logs)-1]; m.dead == nil {
		m.nudge(last.Index, last.Term)
	}
	return answers
}

// Apply implements raft.FSM, which does not call it because there is ApplyBatch.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

func (m *machine) apply(l *raft.Log) error {
	if m.dead != nil {
		// Raft must not believe that the entry was applied: a snapshot would then claim to hold it.
		<-m.r.closing
		return m.dead
	}
	if l.Type != raft.LogCommand {
		m.r.cfg.FSM.Advance(l.Index)
	} else {
		effects, err := m.r.cfg.FSM.Apply(l.Index, l.Term, l.Data)
		if err != nil {
			m.die(fmt.Errorf("replica: the log can't be applied: %w; to skip the entry would let this node diverge: "+
				"run the newest version of skein, or, if the entry is corrupt here alone, remove the data folder and let the node join as a new server", err))
			return m.apply(l)
		}
		m.dispatch(effects)
	}
	m.r.keeper.applied(len(l.Data))
	m.r.cfg.Hooks.Applied(l.Index)
	return nil
}

// dispatch hands out the effects of an entry, in order: results to those who proposed, the rest to the
// hook.
func (m *machine) dispatch(effects []fsm.Effect) {
	begin := 0
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case fsm.EffectResult:
			m.effects(effects[begin:i])
			begin = i + 1
			m.r.proposer.result(e)
		case fsm.EffectGap:
			m.effects(effects[begin:i])
			begin = i + 1
			m.r.proposer.gap(e.Node, e.Sequence)
		case fsm.EffectPassed:
			m.r.proposer.passed(e.Node, e.Sequence)
		}
	}
	m.effects(effects[begin:])
}

func (m *machine) effects(effects []fsm.Effect) {
	if len(effects) > 0 {
		m.r.cfg.Hooks.Effects(effects)
	}
}

func (m *machine) die(err error) {
	m.dead = err
	m.r.fatal(err)
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if m.dead != nil {
		return nil, m.dead
	}
	return &snapshot{Snapshot: m.r.cfg.FSM.Snapshot(), r: m.r}, nil
}

// Restore implements raft.FSM.
func (m *machine) Restore(from io.ReadCloser) error {
	if m.dead != nil {
		return m.dead
	}
	if err := m.r.cfg.FSM.Restore(from); err != nil { // the old state is gone
		m.die(fmt.Errorf("replica: a snapshot can't be read: %w", err))
		return m.dead
	}
	m.r.snapshotIndex.Store(m.r.cfg.FSM.Applied())
	m.r.keeper.restored()
	m.r.cfg.Hooks.Restored()
	return nil
}
