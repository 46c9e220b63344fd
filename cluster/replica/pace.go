package replica

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// pacer holds heartbeats back. Raft sends each follower one after a tenth to a fifth of the heartbeat timeout, and another
// for each question whether this node still leads, which the leases ask several times a second: on an idle cluster the one kind
// makes the other needless, and is most of what the processors do. So a heartbeat waits until the last one to the same
// server is gap old, or until there is a question, which it then answers. It only ever delays what raft sends, by less
// than raft waits before it doubts that it leads.
type pacer struct {
	mu      sync.Mutex
	gap     time.Duration // 0: nothing is held
	asking  int           // questions under way
	changed chan struct{} // closed when a question came
	last    map[raft.ServerID]time.Time
	closed  bool
}

const (
	// askedAgain is after what time a question is asked again that an earlier heartbeat did not answer.
	askedAgain = 5 * time.Millisecond
	// asked is how long raft may take to note whose answer it waits for, mostly: a heartbeat that is let go before
	// that is one for nothing.
	asked = time.Millisecond
)

func newPacer() *pacer {
	return &pacer{changed: make(chan struct{}), last: make(map[raft.ServerID]time.Time)}
}

// gapOf is how long a heartbeat may be held, for what raft calls its leader lease: this node doubts that it leads when it
// has not heard from a majority for that long.
func gapOf(leaderLease time.Duration) time.Duration { return leaderLease * 9 / 16 }

// wait blocks until the next heartbeat to a server may leave.
func (p *pacer) wait(id raft.ServerID) {
	var timer *time.Timer
	for {
		p.mu.Lock()
		gap := p.gap
		if p.asking > 0 {
			gap = min(gap, askedAgain)
		}
		left := gap - time.Since(p.last[id])
		if left <= 0 || p.closed {
			p.last[id] = time.Now()
			p.mu.Unlock()
			return
		}
		changed := p.changed
		p.mu.Unlock()
		if timer == nil {
			timer = time.NewTimer(left)
			defer timer.Stop()
		} else {
			timer.Reset(left)
		}
		select {
		case <-timer.C:
		case <-changed:
		}
	}
}

// question is called after raft was asked whether it leads. The function that it returns is to be called when
// that has been answered.
func (p *pacer) question() (answered func()) {
	p.mu.Lock()
	held := p.gap > 0
	p.mu.Unlock()
	if held {
		time.Sleep(asked)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asking++
	p.release()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asking--
	}
}

// release wakes who waits. Called with mu held.
func (p *pacer) release() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pacer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.release()
}

// isHeartbeat tells whether a request is one, as raft's own transport does at the other end.
func isHeartbeat(q *raft.AppendEntriesRequest) bool {
	return q.PrevLogEntry == 0 && q.PrevLogTerm == 0 && q.LeaderCommitIndex == 0 && len(q.Entries) == 0
}
