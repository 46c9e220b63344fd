package fsm

import (
	"fmt"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// Apply applies one entry of the log. The effects are in order and valid until the next Apply; what
// they point to may be kept. An error means that this binary must not go on: the state is as it
// was before the entry.
//
// An entry at or below the applied index has been applied already and does nothing.
func (f *FSM) Apply(index, term uint64, entry []byte) ([]Effect, error) {
	kind, stamp, payload, err := open(entry)
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.effects)
	f.effects = f.effects[:0]
	if index <= f.applied {
		return nil, nil
	}
	if kind == kindBatch {
		f.batch.Reset()
		if err := decodeBatch(&f.batch, payload); err != nil {
			return nil, fmt.Errorf("entry %d: %w", index, err)
		}
		f.begin(index, stamp)
		f.applyBatch(&f.batch)
		f.batch.Reset() // it aliases the entry
	} else {
		var s fsmpb.System
		if err := decodeSystem(&s, payload); err != nil {
			return nil, fmt.Errorf("entry %d: %w", index, err)
		}
		f.begin(index, stamp)
		f.applySystem(&s, term)
	}
	f.origin = nil
	return f.effects, nil
}

// begin moves the clock and fires what is due before the entry itself is looked at.
func (f *FSM) begin(index uint64, stamp int64) {
	f.index, f.offset, f.stamp = index, 0, stamp
	f.applied = index
	f.now = max(f.now, stamp)
	f.origin = nil
	f.counter = f.members.first()
	f.fire()
}

func (f *FSM) applyBatch(b *fsmpb.Batch) {
	inc := f.members.incarnation(b.Incarnation)
	if inc == nil || inc.node != b.Origin || !inc.live {
		if b.Origin == f.node {
			f.emit(Effect{Kind: EffectRefused, Node: NodeRef{f.node, b.Incarnation}})
		}
		return
	}
	n := uint64(len(b.Commands))
	if b.First > inc.next || b.First == 0 {
		if inc.node == f.node {
			f.emit(Effect{Kind: EffectGap, Node: inc.ref(), Sequence: inc.next})
		}
		return
	}
	if b.First+n <= inc.next {
		return // all of it has been applied
	}
	f.origin, f.counter = inc, inc.node
	var results []Result
	if inc.node == f.node {
		results = make([]Result, n)
	}
	var scratch Result
	for i := inc.next - b.First; i < n; i++ {
		f.offset, f.sequence = int(i), b.First+i
		r := &scratch
		if results != nil {
			r = &results[i]
		}
		*r = Result{Index: f.index}
		f.command(b.Commands[i], r)
		if results != nil {
			f.emit(Effect{Kind: EffectResult, Node: inc.ref(), Sequence: b.First + i, Result: r})
		}
		f.finishReads()
		f.publishWills()
	}
	inc.next = b.First + n
	f.emit(Effect{Kind: EffectPassed, Node: inc.ref(), Sequence: inc.next - 1})
}

// command applies one command of a batch of f.origin.
func (f *FSM) command(cmd *fsmpb.Command, r *Result) {
	if f.offset >= 1<<offsetBits {
		r.Code = Invalid // there is no epoch and no id for it
		return
	}
	switch op := cmd.Op.(type) {
	case *fsmpb.Command_Connect:
		f.connect(op.Connect, r)
	case *fsmpb.Command_Disconnect:
		f.disconnect(op.Disconnect, r)
	case *fsmpb.Command_Subscribe:
		f.subscribe(op.Subscribe, r)
	case *fsmpb.Command_Unsubscribe:
		f.unsubscribe(op.Unsubscribe, r)
	case *fsmpb.Command_Interest:
		f.setInterest(op.Interest, r)
	case *fsmpb.Command_Publish:
		f.publishCommand(op.Publish, r)
	case *fsmpb.Command_Release:
		f.release(op.Release, r)
	case *fsmpb.Command_Progress:
		f.progressCommand(op.Progress, r)
	case *fsmpb.Command_Relay:
		f.relay(op.Relay, r)
	case *fsmpb.Command_SharedDone:
		f.sharedDone(op.SharedDone, r)
	case *fsmpb.Command_DeleteSession:
		f.deleteSession(op.DeleteSession, r)
	case *fsmpb.Command_ChangeAccess:
		f.changeAccess(op.ChangeAccess, r)
	default: // decodeBatch let it pass
		panic(fmt.Sprintf("fsm: entry %d: command %T", f.index, cmd.Op))
	}
}

func (f *FSM) applySystem(s *fsmpb.System, term uint64) {
	switch op := s.Op.(type) {
	case *fsmpb.System_NodeUp:
		f.nodeUp(op.NodeUp)
	case *fsmpb.System_NodeDown:
		f.nodeDown(op.NodeDown, term)
	case *fsmpb.System_Reap:
		f.reap(op.Reap)
	case *fsmpb.System_NodeRemoved:
		f.nodeRemoved(op.NodeRemoved)
	case *fsmpb.System_Tick: // the clock has moved
	default: // decodeSystem let it pass
		panic(fmt.Sprintf("fsm: entry %d: system command %T", f.index, s.Op))
	}
	f.publishWills()
}

func (f *FSM) emit(e Effect) {
	e.Index = f.index
	if f.origin != nil && (e.Kind == EffectPublished || e.Kind == EffectDeliver0) {
		e.Node, e.Sequence = f.origin.ref(), f.sequence
	}
	f.effects = append(f.effects, e)
}

// dropped counts messages that will not be delivered, on one node only.
func (f *FSM) dropped(client string, reason Reason, n int) {
	if n == 0 || f.counter != f.node {
		return
	}
	if last := len(f.effects) - 1; last >= 0 {
		e := &f.effects[last]
		if e.Kind == EffectDropped && e.Client == client && e.Reason == reason {
			e.N += n
			return
		}
	}
	f.emit(Effect{Kind: EffectDropped, Client: client, Reason: reason, N: n})
}
