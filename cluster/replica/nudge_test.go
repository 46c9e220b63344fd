package replica

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestFollowersHearOfCommitsAtOnce: raft itself would tell them after a minute.
func TestFollowersHearOfCommitsAtOnce(t *testing.T) {
	w := newWorld(t, 3, nil)
	w.leader()
	w.upAll()
	w.session(w.all[0])
	for _, n := range w.all {
		n.close()
	}
	w.tune = func(c *Config) {
		c.commitTimeout = time.Minute
		c.Heartbeat, c.Election, c.LeaderLease = time.Second, time.Second, time.Second
	}
	for _, n := range w.all {
		n.open()
	}
	leader := w.leader()
	entry := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := leader.Barrier(ctx); err != nil {
			t.Fatal(err)
		}
	}
	w.until("followers hear of what was committed before raft had its pipelines", func() bool {
		return w.all[0].Applied() == w.all[1].Applied() && w.all[1].Applied() == w.all[2].Applied()
	})
	for range 50 {
		entry()
		w.until("the followers apply", func() bool {
			return w.all[0].Applied() == w.all[1].Applied() && w.all[1].Applied() == w.all[2].Applied()
		})
	}
}

func TestPreVoteWorks(t *testing.T) {
	var transport any = new(Transport)
	if _, ok := transport.(raft.WithPreVote); !ok {
		t.Error("raft does not find pre-votes on the transport")
	}
	if _, ok := transport.(raft.WithClose); !ok {
		t.Error("raft does not find Close on the transport")
	}
}

// line is a pipeline that remembers what was sent.
type line struct {
	mu     sync.Mutex
	sent   []*raft.AppendEntriesRequest
	closed bool
}

func (l *line) AppendEntries(q *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.New("closed")
	}
	l.sent = append(l.sent, q)
	return nil, nil
}

func (l *line) Consumer() <-chan raft.AppendFuture { return nil }

func (l *line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return nil
}

func (l *line) take() []*raft.AppendEntriesRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.sent
	l.sent = nil
	return sent
}

func TestNudgeRules(t *testing.T) {
	request := func(term, prev, commit uint64, entries ...uint64) *raft.AppendEntriesRequest {
		q := &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("me"), Addr: []byte("here")},
			Term:      term, PrevLogEntry: prev, LeaderCommitIndex: commit,
		}
		for _, i := range entries {
			q.Entries = append(q.Entries, &raft.Log{Index: i, Term: term})
		}
		return q
	}
	for name, c := range map[string]struct {
		raft  []*raft.AppendEntriesRequest
		want  mark
		nudge bool
	}{
		"the follower has the entry":                  {[]*raft.AppendEntriesRequest{request(5, 9, 9, 10, 11)}, mark{10, 5}, true},
		"the follower has the last entry":             {[]*raft.AppendEntriesRequest{request(5, 9, 9, 10, 11)}, mark{11, 5}, true},
		"an entry of an earlier term":                 {[]*raft.AppendEntriesRequest{request(5, 9, 3, 10)}, mark{9, 4}, true},
		"the follower has it by an empty request":     {[]*raft.AppendEntriesRequest{request(5, 9, 3)}, mark{9, 4}, true},
		"nothing was sent on this pipeline":           {nil, mark{10, 5}, false},
		"the entry was not sent":                      {[]*raft.AppendEntriesRequest{request(5, 9, 9, 10)}, mark{11, 5}, false},
		"the follower knows":                          {[]*raft.AppendEntriesRequest{request(5, 9, 10, 10)}, mark{10, 5}, false},
		"the follower knows from the second request":  {[]*raft.AppendEntriesRequest{request(5, 9, 9, 10), request(5, 10, 10)}, mark{10, 5}, false},
		"an entry of a later term: it was deposed":    {[]*raft.AppendEntriesRequest{request(5, 9, 9, 10)}, mark{10, 6}, false},
		"sent in two requests, applied up to the 1st": {[]*raft.AppendEntriesRequest{request(5, 9, 9, 10), request(5, 10, 9, 11)}, mark{10, 5}, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := &line{}
			p := &pipe{AppendPipeline: l}
			for _, q := range c.raft {
				if _, err := p.AppendEntries(q, nil); err != nil {
					t.Fatal(err)
				}
			}
			l.take()
			p.want.Store(&c.want)
			p.nudge()
			sent := l.take()
			if len(sent) > 0 != c.nudge {
				t.Fatalf("%d nudges", len(sent))
			}
			if !c.nudge {
				return
			}
			q, last := sent[0], c.raft[len(c.raft)-1]
			if q.PrevLogEntry != c.want.index || q.LeaderCommitIndex != c.want.index || q.PrevLogTerm != c.want.term || len(q.Entries) != 0 {
				t.Errorf("nudge %+v for %+v", q, c.want)
			}
			if q.Term != last.Term || string(q.Addr) != "here" || string(q.ID) != "me" || q.ProtocolVersion != 3 {
				t.Errorf("nudge %+v has another header than %+v", q, last)
			}
			p.nudge()
			if len(l.take()) > 0 {
				t.Error("it is told twice")
			}
		})
	}
}

// TestNudgeAfterLateEntry: the leader and another follower commit an entry before this one is sent it.
func TestNudgeAfterLateEntry(t *testing.T) {
	l := &line{}
	tr := &Transport{pipes: make(map[*pipe]struct{})}
	p := tr.newPipe(l, nil)
	tr.Applied(10, 5)
	if _, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 9, LeaderCommitIndex: 9, Entries: []*raft.Log{{Index: 10, Term: 5}}}, nil); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		n := len(l.sent)
		l.mu.Unlock()
		if n == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d requests, want the entry and a nudge", n)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if len(tr.pipes) != 0 || !l.closed {
		t.Error("the pipeline is not closed")
	}
	tr.Applied(11, 5) // to nobody
}

// TestFailingPipelineLetsGo: raft stops reading answers at the first failure, but may send once more.
func TestFailingPipelineLetsGo(t *testing.T) {
	var ends [2]*Transport
	for i := range ends {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = NewTransport(tcp{l}, nil)
	}
	var server sync.WaitGroup
	stop := make(chan struct{})
	server.Go(func() {
		for {
			select {
			case rpc := <-ends[1].Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{}, nil)
			case <-stop:
				return
			}
		}
	})
	p, err := ends[0].AppendEntriesPipeline("b", ends[1].LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	server.Go(func() {
		defer close(sent)
		for i := range uint64(10) {
			if _, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, PrevLogEntry: i, PrevLogTerm: 1}, new(raft.AppendEntriesResponse)); err != nil {
				t.Error(err)
			}
		}
	})
	select {
	case <-sent:
	case <-time.After(patience):
		t.Error("a send is stuck")
	}
	if err := errors.Join(p.Close(), ends[0].Close()); err != nil {
		t.Error(err)
	}
	close(stop)
	server.Wait()
	if err := ends[1].Close(); err != nil {
		t.Error(err)
	}
}
