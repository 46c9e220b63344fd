package e2e

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	h "github.com/skein-mqtt/skein/test/harness"
)

// traffic is clients that publish and subscribe, each in a goroutine of its own, while a test does
// something to the nodes. Those with a persistent session go on to another node when they lose
// theirs; so does a clean publisher.
type traffic struct {
	t     testing.TB
	stop  chan struct{} // closed: publishers end
	once  sync.Once     // closes it
	pace  time.Duration // between a publisher's messages
	group sync.WaitGroup

	mu    sync.Mutex
	nodes []*h.Node
}

// newTraffic ends with the test at the latest.
func newTraffic(t testing.TB, c *h.Cluster) *traffic {
	tr := &traffic{t: t, stop: make(chan struct{}), pace: 2 * time.Millisecond, nodes: append([]*h.Node(nil), c.Nodes...)}
	t.Cleanup(tr.end)
	return tr
}

// flow is what one publisher sends to a topic of its own.
type flow struct {
	topic string
	qos   byte
	done  chan struct{} // closed when all is acknowledged

	mu   sync.Mutex
	sent []string // all of it; complete once done is closed
}

func (f *flow) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sent)
}

// reader is a subscriber of a flow.
type reader struct {
	*h.Session
	f    *flow
	move chan *h.Node // a persistent one goes there
}

// others are the nodes to try, the given one last.
func (tr *traffic) others(not *h.Node) []*h.Node {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var list []*h.Node
	for i, n := range tr.nodes {
		if n == not { // the next one first, so that clients spread
			list = append(list, tr.nodes[i+1:]...)
			return append(append(list, tr.nodes[:i]...), n)
		}
	}
	return tr.nodes
}

// use replaces the nodes that clients may go to.
func (tr *traffic) use(nodes []*h.Node) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.nodes = append([]*h.Node(nil), nodes...)
}

// subscribe starts a reader of a flow that does not run yet.
func (tr *traffic) subscribe(f *flow, at *h.Node, s *h.Session) *reader {
	tr.t.Helper()
	s.Connect(at)
	s.Subscribe(f.qos, f.topic)
	r := &reader{Session: s, f: f, move: make(chan *h.Node, 1)}
	tr.start(r, at)
	return r
}

// start starts a reader that has connected and subscribed at a node.
func (tr *traffic) start(r *reader, at *h.Node) {
	s := r.Session
	tr.group.Go(func() {
		if err := tr.read(r, at); err != nil {
			tr.t.Errorf("%s: %v after %d messages", s.ID, err, len(s.Got))
		}
	})
}

func (tr *traffic) read(r *reader, at *h.Node) error {
	var overdue time.Time
	for {
		select {
		case at = <-r.move:
			r.Close()
			if _, err := r.Roam(at); err != nil {
				return err
			}
		default:
		}
		p, err := r.Next(quiet)
		if errors.Is(err, h.ErrQuiet) {
			select {
			case <-r.f.done:
			default:
				continue
			}
			if n := len(r.Got); n > 0 && r.Got[n-1] == r.f.sent[len(r.f.sent)-1] {
				return nil
			}
			if overdue.IsZero() {
				overdue = time.Now().Add(h.Patience)
			} else if time.Now().After(overdue) {
				return errors.New("the last message does not come")
			}
			continue
		}
		if err == nil {
			err = r.Handle(p)
		}
		switch {
		case err == nil:
		case r.Clean:
			return err
		default:
			next := tr.others(at)
			ack, err := r.Roam(next...)
			if err != nil {
				return err
			}
			if !ack.SessionPresent {
				return errors.New("the session is gone")
			}
			at = next[0]
		}
		overdue = time.Time{}
	}
}

// publish starts a flow's publisher: a message at each turn of the pace until the traffic ends.
func (tr *traffic) publish(f *flow, at *h.Node, s *h.Session) {
	tr.t.Helper()
	s.Connect(at)
	tr.group.Go(func() {
		defer close(f.done)
		if err := tr.write(f, at, s); err != nil {
			tr.t.Errorf("%s: %v after %d messages", s.ID, err, f.count())
		}
	})
}

func (tr *traffic) write(f *flow, at *h.Node, s *h.Session) error {
	elsewhere := func() error {
		_ = hear(s) // what was acknowledged before the end
		next := tr.others(at)
		at = next[0]
		_, err := s.Roam(next...)
		return err
	}
	pace := time.NewTicker(tr.pace)
	defer pace.Stop()
	for {
		select {
		case <-tr.stop:
			for s.Flush() != nil {
				if err := elsewhere(); err != nil {
					return err
				}
			}
			s.Disconnect()
			return nil
		case <-pace.C:
		}
		payload := fmt.Sprintf("%06d", f.count())
		f.mu.Lock()
		f.sent = append(f.sent, payload)
		f.mu.Unlock()
		if s.Publish(f.topic, payload, f.qos) != nil || hear(s) != nil {
			if err := elsewhere(); err != nil {
				return err
			}
		}
	}
}

// hear handles what has arrived.
func hear(s *h.Session) error {
	for {
		p, err := s.Next(0)
		if errors.Is(err, h.ErrQuiet) {
			return nil
		}
		if err == nil {
			err = s.Handle(p)
		}
		if err != nil {
			return err
		}
	}
}

// more waits until the flow has gone on by so many messages.
func (f *flow) more(t testing.TB, count int) {
	t.Helper()
	target := f.count() + count
	h.Await(t, fmt.Sprintf("%d more messages of %s", count, f.topic), func() bool { return f.count() >= target })
}

// end stops the publishers and waits for what they sent to arrive.
func (tr *traffic) end() {
	tr.once.Do(func() { close(tr.stop) })
	tr.group.Wait()
}

// once wants a flow to have arrived in order, each message once. Call it after end.
func (r *reader) once(t testing.TB) {
	t.Helper()
	same(t, r.ID, r.Got, r.f.sent)
	t.Logf("%s: %d messages", r.ID, len(r.Got))
}

func newFlow(topic string, qos byte) *flow {
	return &flow{topic: topic, qos: qos, done: make(chan struct{})}
}
