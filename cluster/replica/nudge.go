package replica

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// A follower learns that an entry is committed from the next AppendEntries, which raft sends when there
// is another entry, or after its commit timeout. A nudge is an empty AppendEntries that says it at once.
// Its rules:
//
//   - It travels inside raft's own pipeline. As a call of its own it would overtake entries.
//   - PrevLogEntry and LeaderCommitIndex are both the applied index. A follower clamps the commit index to
//     its own last entry, not to PrevLogEntry: a higher one could commit entries that were never matched.
//   - Header, term and leader are those of raft's last request on this pipeline, or of the one that it ended its
//     catching up with before it opened the pipeline, never those of the moment: this node may have been deposed. So the worst that a late nudge does is to confirm, once, the leader
//     of the term that it names.

// mark is an applied entry.
type mark struct{ index, term uint64 }

// pipe is one of raft's pipelines.
type pipe struct {
	raft.AppendPipeline
	t     *Transport
	want  atomic.Pointer[mark]
	wake  chan struct{} // holds one token
	ready chan raft.AppendFuture
	stop  chan struct{}
	group sync.WaitGroup
	once  sync.Once

	mu sync.Mutex // held while sending: a pipeline's sends must not be concurrent
	state
}

// state is what raft's requests to a follower have told it.
type state struct {
	last   *raft.AppendEntriesRequest // the header, term and leader of the last one, without its entries
	sent   uint64                     // the follower has been sent everything up to here
	commit uint64                     // the follower has been told of this commit index
}

// after is the state after one more request, in place.
func (s *state) after(q *raft.AppendEntriesRequest) *state {
	if s.last == nil || s.last.Term != q.Term {
		//lint:ignore SA1019 raft still sets Leader
		s.last = &raft.AppendEntriesRequest{RPCHeader: q.RPCHeader, Term: q.Term, Leader: q.Leader}
	}
	s.commit = max(s.commit, q.LeaderCommitIndex)
	if n := len(q.Entries); n > 0 {
		s.sent = q.Entries[n-1].Index
	} else {
		s.sent = max(s.sent, q.PrevLogEntry)
	}
	return s
}

// AppendEntriesPipeline implements raft.Transport.
func (t *Transport) AppendEntriesPipeline(id raft.ServerID, at raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target(id, at))
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	known := t.sent[id]
	t.mu.Unlock()
	return t.newPipe(inner, known), nil
}

// newPipe wraps a pipeline to a follower. known: what was sent to it before, may be nil.
func (t *Transport) newPipe(inner raft.AppendPipeline, known *state) *pipe {
	p := &pipe{
		AppendPipeline: inner, t: t,
		wake: make(chan struct{}, 1), ready: make(chan raft.AppendFuture), stop: make(chan struct{}),
	}
	if known != nil {
		p.state = *known
	}
	t.mu.Lock()
	t.pipes[p] = struct{}{}
	p.want.Store(t.newest)
	t.mu.Unlock()
	p.rouse() // the follower may not know what was committed meanwhile
	p.group.Go(p.run)
	p.group.Go(p.forward)
	return p
}

// Applied tells the followers that the entry at index is committed. It is called on the goroutine that
// applies the log when this node has applied that entry. It never waits for the network, and sends nothing
// on a follower, which has no pipelines.
func (t *Transport) Applied(index, term uint64) {
	m := &mark{index, term}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.newest = m
	for p := range t.pipes {
		p.want.Store(m)
		p.rouse()
	}
}

func (p *pipe) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// AppendEntries implements raft.AppendPipeline.
func (p *pipe) AppendEntries(q *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, err := p.send(q, r)
	if err == nil && p.due() != nil {
		p.rouse() // the commit was known before the follower had the entry
	}
	return f, err
}

// send is called with mu held.
func (p *pipe) send(q *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	f, err := p.AppendPipeline.AppendEntries(q, r)
	if err != nil {
		return nil, err
	}
	p.after(q)
	return f, nil
}

// due is what the follower should hear of now, or nil. Called with mu held.
func (p *pipe) due() *mark {
	m := p.want.Load()
	if m == nil || p.last == nil || m.term > p.last.Term || m.index <= p.commit || m.index > p.sent {
		return nil
	}
	return m
}

// Consumer implements raft.AppendPipeline.
func (p *pipe) Consumer() <-chan raft.AppendFuture { return p.ready }

// forward hands on the answers, and keeps those that raft does not fetch: it stops doing so at the first
// failure, before it stops sending, and the inner pipeline would then hold that send up for ever. As many
// wait here at most as were under way then.
func (p *pipe) forward() {
	var queue []raft.AppendFuture
	for {
		var out chan<- raft.AppendFuture
		var next raft.AppendFuture
		if len(queue) > 0 {
			out, next = p.ready, queue[0]
		}
		select {
		case f := <-p.AppendPipeline.Consumer():
			queue = append(queue, f)
		case out <- next:
			queue = queue[1:]
		case <-p.stop:
			return
		}
	}
}

func (p *pipe) run() {
	for {
		select {
		case <-p.wake:
		case <-p.stop:
			return
		}
		p.nudge()
	}
}

func (p *pipe) nudge() {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.due()
	if m == nil {
		return
	}
	// Raft's next send meets an error as well, and opens a new pipeline.
	_, _ = p.send(&raft.AppendEntriesRequest{
		//lint:ignore SA1019 raft still sets Leader
		RPCHeader: p.last.RPCHeader, Term: p.last.Term, Leader: p.last.Leader,
		PrevLogEntry: m.index, PrevLogTerm: m.term, LeaderCommitIndex: m.index,
	}, new(raft.AppendEntriesResponse))
}

// Close implements raft.AppendPipeline. A send that is under way ends with the pipeline.
func (p *pipe) Close() error {
	var err error
	p.once.Do(func() {
		p.t.mu.Lock()
		delete(p.t.pipes, p)
		p.t.mu.Unlock()
		close(p.stop)
		err = p.AppendPipeline.Close()
		p.group.Wait()
	})
	return err
}
