package lease

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// State is what a leader reads of the replicated state. *fsm.FSM is one.
type State interface {
	Members() []fsm.Member
	Applied() uint64
	Now() int64
	NextDue() (int64, bool)
	NeedsReap() (fsm.NodeRef, bool)
}

// Log is the replicated log, at the leader.
type Log interface {
	// VerifyLeader asks a majority whether this node still leads. It blocks.
	VerifyLeader() error
	// Barrier waits until everything that was committed before is applied here.
	Barrier(ctx context.Context) error
	CommitIndex() uint64
	// Append appends a command and waits until it is applied here.
	Append(ctx context.Context, s *fsmpb.System) error
	// SetClock says what stamps entries: nil is the log's own time.
	SetClock(func() int64)
	// Voters are the node ids of the voters.
	Voters() []string
	// HandOver gives the leadership away because this node is not up to it.
	HandOver()
}

// Leader is the leader's side, on each node; it does something while the node leads.
type Leader struct {
	cfg   Config
	self  string
	state State
	log   Log
	told  func() int64

	ctx   context.Context
	stop  context.CancelFunc
	group sync.WaitGroup

	interesting atomic.Uint64 // the last index that changed whom a message goes to

	mu     sync.Mutex
	closed bool
	now    *reign // nil while another node leads
}

// reign is one term of this node.
type reign struct {
	core   *core
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // holds one token: requests are waiting
	kick   chan struct{} // holds one token: look at the members now
	offset time.Duration // of the log's clock: it is base + clock - offset
	base   int64
	pushed uint64
	handed time.Duration // when it last tried to hand over; only for orders

	conversations map[*conversation]struct{}
	pending       map[*conversation]*clusterpb.LeaseRequest // newest request of each
}

// NewLeader makes the leader's side of a node. told is what the leaders before this one have told of the log's
// clock, as Holder.Now is.
func NewLeader(cfg Config, self string, state State, log Log, told func() int64) *Leader {
	l := &Leader{cfg: cfg.withDefaults(), self: self, state: state, log: log, told: told}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// Change tells that this node began to lead in a term, or that it stopped. It does not block.
func (l *Leader) Change(leads bool, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != nil {
		if leads && l.now.core.term == term {
			return
		}
		l.now.cancel()
		l.now = nil
	}
	l.log.SetClock(nil)
	if !leads || l.closed {
		return
	}
	r := &reign{
		core: newCore(l.cfg, term), wake: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		conversations: make(map[*conversation]struct{}), pending: make(map[*conversation]*clusterpb.LeaseRequest),
	}
	r.ctx, r.cancel = context.WithCancel(l.ctx)
	l.now = r
	l.group.Go(func() { l.reign(r) })
}

// Close stops what is under way and waits for it.
func (l *Leader) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.stop()
	l.group.Wait()
}

// Ready tells whether this node leads, its term's barrier has passed and the log's clock runs.
func (l *Leader) Ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now != nil && l.now.core.ready
}

// Term is that of the reign; 0: another node leads, or the barrier has not passed.
func (l *Leader) Term() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil || !l.now.core.ready {
		return 0
	}
	return l.now.core.term
}

// Changed notes that this node has applied an entry that changed whom a message goes to: somebody
// may wait until all have.
func (l *Leader) Changed(index uint64) {
	raiseU(&l.interesting, index)
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.now; r != nil && r.core.ready {
		l.push(r)
		token(r.kick) // there may be something to clean up
	}
}

// Applied is what a live incarnation has reported in this term, and whether it holds leases and is no
// more than ago behind what was committed.
func (l *Leader) Applied(ref fsm.NodeRef, ago time.Duration) (index uint64, current bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil {
		return 0, false
	}
	c := l.now.core
	h := c.find(ref)
	if h == nil {
		return 0, false
	}
	now := l.cfg.Clock()
	if now-c.commits0() < ago { // it is not known yet what was committed then
		return h.applied, false
	}
	return h.applied, h.granted && !h.condemned && h.applied >= c.settled(now, ago)
}

// Refuse stops granting leases to an incarnation: the verdict on it follows when the last has run out.
func (l *Leader) Refuse(ref fsm.NodeRef) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil {
		return
	}
	l.now.core.sync(l.cfg.Clock(), l.state.Members())
	if h := l.now.core.find(ref); h != nil {
		h.refused = true
	}
}

// Expire stops granting leases to an incarnation whose process has ended or gave it up, as Refuse does,
// and tells how much longer it must be left alone: the last lease that was granted in this term may
// still run somewhere.
func (l *Leader) Expire(ref fsm.NodeRef) time.Duration {
	l.Refuse(ref)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil {
		return 0
	}
	h := l.now.core.find(ref)
	if h == nil || !h.granted {
		return 0
	}
	return max(0, h.renewed+l.cfg.Duration+l.cfg.Drift-l.cfg.Clock())
}

// Condemn makes the command that ends an incarnation, by its own wish: no lease is granted to it any
// more. nil: this node does not lead, or that incarnation is not live.
func (l *Leader) Condemn(ref fsm.NodeRef, reason string) *fsmpb.System {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.now
	if r == nil || !r.core.ready {
		return nil
	}
	r.core.sync(l.cfg.Clock(), l.state.Members())
	h := r.core.find(ref)
	if h == nil {
		return nil
	}
	h.condemned = true
	return nodeDown(ref, r.core.term, reason)
}

func nodeDown(ref fsm.NodeRef, term uint64, reason string) *fsmpb.System {
	return &fsmpb.System{Op: &fsmpb.System_NodeDown{NodeDown: &fsmpb.NodeDown{
		Node: ref.Node, Incarnation: ref.Incarnation, Term: term, Reason: reason,
	}}}
}

// reign is what a leader does in its term.
func (l *Leader) reign(r *reign) {
	defer r.cancel()
	if !l.accede(r) {
		return
	}
	var group sync.WaitGroup
	group.Go(func() { l.verify(r) })
	l.govern(r)
	group.Wait()
}

// accede passes the term's barrier and starts the log's clock. false: the term is over.
func (l *Leader) accede(r *reign) bool {
	for {
		err := l.log.Barrier(r.ctx)
		if err == nil {
			break
		}
		if !pause(r.ctx, lookAgain) {
			return false
		}
	}
	for {
		l.mu.Lock()
		now := l.cfg.Clock()
		r.core.clock(now, l.self, l.cfg.Wall())
		median, ok := r.core.median(now, l.log.Voters())
		if ok && l.now == r {
			r.base, r.offset = base(l.state.Now(), l.told(), median), now
			base, offset, clock := r.base, r.offset, l.cfg.Clock
			l.log.SetClock(func() int64 { return base + (clock() - offset).Milliseconds() })
			r.core.sync(now, l.state.Members())
			r.core.start(now, l.log.CommitIndex())
			token(r.wake)
		}
		l.mu.Unlock()
		if ok {
			l.cfg.Logger.Info("this node leads", "term", r.core.term)
			return r.ctx.Err() == nil
		}
		if !pause(r.ctx, lookAgain) {
			return false
		}
	}
}

func (r *reign) clock(now time.Duration) int64 {
	if !r.core.ready {
		return 0
	}
	return r.base + (now - r.offset).Milliseconds()
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// appendPatience bounds one command of the leader: without a majority it is given up, and judged anew.
const appendPatience = 2 * time.Second

// handOverAgain is how long an attempt to hand over may take.
const handOverAgain = time.Second

// govern gives verdicts, cleans up behind them and moves the log's clock when something is due.
func (l *Leader) govern(r *reign) {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		orders, next := l.orders(r)
		tick.Reset(next)
		for _, s := range orders {
			ctx, cancel := context.WithTimeout(r.ctx, appendPatience)
			err := l.log.Append(ctx, s)
			cancel()
			if r.ctx.Err() != nil {
				return
			}
			if err != nil {
				l.cfg.Logger.Warn("an entry of the leader was not committed; it tries again", "error", err)
			}
		}
		select {
		case <-r.ctx.Done():
			return
		case <-r.kick:
		case <-tick.C:
		}
	}
}

// shortest is how often a leader looks for what is due, at most.
const shortest = 5 * time.Millisecond

// orders are the commands that are due now, and when to look again.
func (l *Leader) orders(r *reign) (orders []*fsmpb.System, next time.Duration) {
	l.mu.Lock()
	now := l.cfg.Clock()
	r.core.committed(now, l.log.CommitIndex())
	r.core.clock(now, l.self, l.cfg.Wall())
	l.push(r)
	down := r.core.verdicts(now)
	if r.core.ready && now-r.core.proved > r.core.proofAfter() {
		token(r.wake)
	}
	clock := r.clock(now)
	lag := r.core.settled(now, l.cfg.Lag)
	next = r.core.verdictIn(now, l.cfg.Duration/beats)
	l.mu.Unlock()
	for _, ref := range down {
		l.cfg.Logger.Warn("node has not renewed its lease: verdict", "node", ref.Node, "incarnation", ref.Incarnation)
		orders = append(orders, nodeDown(ref, r.core.term, "it did not renew its lease"))
		token(r.kick) // to clean up behind it
	}
	if ref, ok := l.state.NeedsReap(); ok {
		orders = append(orders, &fsmpb.System{Op: &fsmpb.System_Reap{Reap: &fsmpb.Reap{Node: ref.Node, Incarnation: ref.Incarnation}}})
		token(r.kick) // there may be more
	}
	if due, ok := l.state.NextDue(); ok && due <= clock {
		orders = append(orders, &fsmpb.System{Op: &fsmpb.System_Tick{Tick: &fsmpb.Tick{}}})
	} else if ok {
		next = min(next, time.Duration(due-clock)*time.Millisecond)
	}
	if l.state.Applied() < lag && now-r.handed > handOverAgain {
		r.handed = now
		l.cfg.Logger.Warn("this node leads but is far behind in applying the log: it hands over")
		l.log.HandOver()
	}
	return orders, max(next, shortest)
}

// gather is how long a leader waits for the requests of all nodes.
const gather = 2 * time.Millisecond

// verify grants the leases that were asked for: one question to the majority answers all the requests
// that had arrived before it was put.
func (l *Leader) verify(r *reign) {
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.wake:
		}
		l.mu.Lock()
		if len(r.pending) < len(r.conversations) { // the others ask in this moment, too
			l.mu.Unlock()
			if !pause(r.ctx, gather) {
				return
			}
			l.mu.Lock()
		}
		asked := r.pending
		r.pending = make(map[*conversation]*clusterpb.LeaseRequest)
		due := l.cfg.Clock()-r.core.proved > r.core.proofAfter() // a verdict wants to know, too
		l.mu.Unlock()
		if len(asked) == 0 && !due {
			continue
		}
		err := l.log.VerifyLeader()
		l.answer(r, asked, err)
	}
}

func (l *Leader) answer(r *reign, asked map[*conversation]*clusterpb.LeaseRequest, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.cfg.Clock()
	if err == nil {
		r.core.prove(now)
	}
	mark := l.mark(r, now)
	again := uint32(r.core.again(now).Milliseconds()) //nolint:gosec // less than two beats
	for c, req := range asked {
		if _, open := r.conversations[c]; !open {
			continue
		}
		reason := ""
		switch {
		case err != nil:
			reason = "the leader has no majority: " + err.Error()
		case r.ctx.Err() != nil:
			reason = "the leader has stepped down"
		default:
			reason = r.core.grant(now, refOf(req))
		}
		c.say(&clusterpb.LeaseReply{
			Sequence: req.Sequence, Granted: reason == "", Reason: reason, Watermark: mark,
			Clock: r.clock(now), Commit: l.log.CommitIndex(), LeaderId: l.self, AgainMs: again,
		})
	}
}

func refOf(req *clusterpb.LeaseRequest) fsm.NodeRef {
	return fsm.NodeRef{Node: req.Node, Incarnation: req.Incarnation}
}

// mark is the watermark. Called with mu held.
func (l *Leader) mark(r *reign, now time.Duration) uint64 {
	own := l.state.Applied()
	r.core.sync(now, l.state.Members())
	return r.core.watermark(own)
}

// push tells all nodes the watermark when it has moved and somebody may wait for that. Called with
// mu held.
func (l *Leader) push(r *reign) {
	now := l.cfg.Clock()
	mark := l.mark(r, now)
	if mark <= r.pushed || r.pushed >= l.interesting.Load() {
		return
	}
	r.pushed = mark
	for c := range r.conversations {
		c.say(&clusterpb.LeaseReply{Watermark: mark, Clock: r.clock(now), Commit: l.log.CommitIndex(), LeaderId: l.self})
	}
}
