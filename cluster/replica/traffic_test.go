package replica

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// message is a publish that names its node and its number.
func message(node string, i int) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{
		Topic: "t/" + node, Payload: fmt.Appendf(nil, "%d", i), Qos: 1,
	}}}
}

// stream is a run of messages of one node.
type stream struct {
	n     *node
	first int
	count int
	done  atomic.Int64
	mu    sync.Mutex
	wrong []string
	errs  []error
}

// publish proposes messages and returns at once.
func (n *node) publish(first, count int) *stream {
	s := &stream{n: n, first: first, count: count}
	var last int
	for i := range count {
		if n.Propose(message(n.name, first+i), func(r fsm.Result, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if err != nil {
				s.errs = append(s.errs, err)
			} else if last++; last != i+1 || r.Code != fsm.OK {
				s.wrong = append(s.wrong, fmt.Sprintf("result %d of %s has code %d and came as number %d", i+1, n.name, r.Code, last))
			}
			s.done.Add(1)
		}) == 0 {
			n.w.t.Error("a command was refused")
		}
	}
	return s
}

// wait waits until every message had its result, in order.
func (s *stream) wait() {
	t := s.n.w.t
	t.Helper()
	s.n.w.until("results", func() bool { return s.done.Load() == int64(s.count) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.errs {
		t.Errorf("%s: %v", s.n.name, e)
	}
	if len(s.wrong) > 0 {
		t.Error(s.wrong[0])
	}
}

// queued are the numbers of a node's messages in the session, in order.
func (w *world) queued(n *node) map[string][]int {
	w.t.Helper()
	view, ok := n.machine.View("all")
	if !ok {
		w.t.Fatal("the session is gone")
	}
	out := make(map[string][]int)
	for _, e := range view.Queue {
		var i int
		if _, err := fmt.Sscanf(string(e.Message.Payload), "%d", &i); err != nil {
			w.t.Fatal(err)
		}
		from := e.Message.Topic[2:]
		out[from] = append(out[from], i)
	}
	return out
}

// inOrder checks that a node's messages 1 to n are there once each, in order.
func (w *world) inOrder(got []int, n int) {
	w.t.Helper()
	if len(got) != n {
		w.t.Errorf("%d messages, want %d", len(got), n)
	}
	for i, v := range got {
		if v != i+1 {
			w.t.Fatalf("message %d stands where %d should", v, i+1)
		}
	}
}
