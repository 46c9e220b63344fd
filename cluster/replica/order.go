package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// changePatience bounds one attempt to hand a change of the members to raft, which takes one at a time.
const changePatience = 200 * time.Millisecond

// SetClock says what stamps the entries that this node appends, in ms: nil is the log's own time, which
// stands still. The clock is called from any goroutine.
func (r *Replica) SetClock(clock func() int64) {
	if clock == nil {
		clock = r.cfg.FSM.Now
	}
	r.clock.Store(&clock)
}

func (r *Replica) now() int64 { return (*r.clock.Load())() }

// AppendSystem appends a leader's command and returns its index when it is applied here. After an error it
// may be in the log or not.
func (r *Replica) AppendSystem(ctx context.Context, s *fsmpb.System) (uint64, error) {
	if s.GetOp() == nil {
		return 0, ErrCommand
	}
	type outcome struct {
		index uint64
		err   error
	}
	done := make(chan outcome, 1)
	err := r.submit(fsm.EncodeSystem(nil, r.now(), s), func(index uint64, err error) { done <- outcome{index, err} })
	if err != nil {
		return 0, err
	}
	select {
	case o := <-done:
		return o.index, o.err
	case <-ctx.Done():
		return 0, fmt.Errorf("replica: the entry is not committed yet: %w", ctx.Err())
	}
}

// Barrier waits until everything that was committed before is applied here, at the leader. It is an entry
// of its own, which the state machine sees: with raft's barriers, which it does not, it would never have
// applied all that is committed.
func (r *Replica) Barrier(ctx context.Context) error {
	_, err := r.AppendSystem(ctx, &fsmpb.System{Op: &fsmpb.System_Tick{Tick: &fsmpb.Tick{}}})
	return err
}

// ask waits for raft's answer to a question, or for ctx.
func (r *Replica) ask(ctx context.Context, question func() raft.Future) error {
	if !r.enter() {
		return ErrClosed
	}
	done := make(chan error, 1)
	go func() { // Close waits for it
		defer r.leave()
		done <- explain(question().Error())
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// VerifyLeader asks a majority whether this node still leads. It blocks until that has answered or this
// node has stepped down.
func (r *Replica) VerifyLeader() error {
	if !r.enter() {
		return ErrClosed
	}
	defer r.leave()
	f := r.raft.VerifyLeader()
	if t, ok := r.cfg.Transport.(*Transport); ok {
		defer t.Question()()
	}
	return explain(f.Error())
}

// Transfer hands leadership to a server, or, without an id, to whoever has most of the log.
func (r *Replica) Transfer(ctx context.Context, id, address string) error {
	return r.ask(ctx, func() raft.Future {
		if id == "" {
			return r.raft.LeadershipTransfer()
		}
		return r.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(address))
	})
}

// Server is a member of the log.
type Server struct {
	ID      string
	Address string
	Voter   bool
}

// Servers are the members, as of the newest change that this server has in its log.
func (r *Replica) Servers() ([]Server, error) {
	future := r.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, explain(err)
	}
	return serversOf(future.Configuration()), nil
}

func serversOf(c raft.Configuration) (out []Server) {
	for _, s := range c.Servers {
		out = append(out, Server{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return out
}

// Bootstrap founds a cluster. All its founders must do so, with the same servers, and none that has a
// state already can.
func (r *Replica) Bootstrap(servers []Server) error {
	var c raft.Configuration
	for _, s := range servers {
		suffrage := raft.Nonvoter
		if s.Voter {
			suffrage = raft.Voter
		}
		c.Servers = append(c.Servers, raft.Server{Suffrage: suffrage, ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address)})
	}
	if !r.enter() {
		return ErrClosed
	}
	defer r.leave()
	return explain(r.raft.BootstrapCluster(c).Error())
}

// AddVoter makes a server a voter, a new one or one that has no vote yet, and updates its address. It
// returns when that is committed. For the leader.
func (r *Replica) AddVoter(ctx context.Context, id, address string) error {
	return r.change(ctx, func(patience time.Duration) raft.Future {
		return r.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, patience)
	})
}

// AddNonvoter has the log sent to a server, and updates its address. For the leader.
func (r *Replica) AddNonvoter(ctx context.Context, id, address string) error {
	return r.change(ctx, func(patience time.Duration) raft.Future {
		return r.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, patience)
	})
}

// RemoveServer takes a server out. For the leader; when that is itself, another is elected.
func (r *Replica) RemoveServer(ctx context.Context, id string) error {
	return r.change(ctx, func(patience time.Duration) raft.Future {
		return r.raft.RemoveServer(raft.ServerID(id), 0, patience)
	})
}

// change tries until raft takes the change. Followers refuse at once; a leader takes the next change when
// the one before is committed.
func (r *Replica) change(ctx context.Context, change func(patience time.Duration) raft.Future) error {
	for {
		err := r.ask(ctx, func() raft.Future { return change(changePatience) })
		if !errors.Is(err, raft.ErrEnqueueTimeout) {
			return err
		}
		if r.isClosing() {
			return ErrClosed
		}
	}
}

// IsLeader tells whether this node leads as far as it knows. VerifyLeader knows.
func (r *Replica) IsLeader() bool { return r.raft.State() == raft.Leader }

// Leader is who leads as far as this node knows; empty: nobody.
func (r *Replica) Leader() (id, address string) {
	a, i := r.raft.LeaderWithID()
	return string(i), string(a)
}

// CommitIndex is the last entry that this node knows to be committed.
func (r *Replica) CommitIndex() uint64 { return r.raft.CommitIndex() }

// Applied is the last entry that this node has applied.
func (r *Replica) Applied() uint64 { return r.cfg.FSM.Applied() }

// HasState tells whether this server has ever been in a cluster.
func (r *Replica) HasState() (bool, error) {
	has, err := raft.HasExistingState(r.logs, r.store, r.snapshots)
	if err != nil {
		return false, fmt.Errorf("replica: %w", err)
	}
	return has, nil
}
