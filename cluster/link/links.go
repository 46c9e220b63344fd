package link

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// Config of the links. The zero value of each field but OnRelief is usable.
type Config struct {
	// MaxUnacked bounds the bytes per peer that are queued or not acknowledged: beyond it QoS 0 is
	// dropped and the peer is congested. 0: 8 MiB.
	MaxUnacked int
	// StallAfter is how long a peer may stay silent before frames go through the log. 0: 1 s.
	StallAfter time.Duration
	Logger     *slog.Logger
	// OnRelief says that a congested peer no longer is. From any goroutine; it must not block.
	OnRelief func(node string)
	// Dropped counts frames that were not delivered: ReasonLink where they were sent, ReasonStale
	// where they arrived. From any goroutine, perhaps with locks held: it must only count.
	Dropped func(reason fsm.Reason, n int)
	// Repick gets a frame that came through the log and found no member of a shared group here,
	// when its origin can no longer be told: the node must find another member itself. It must not
	// block, nor keep f. nil: such a frame is dropped with ReasonNoMember.
	Repick func(f *clusterpb.Frame)
}

// State is what the links read of the replicated state. *fsm.FSM is one.
type State interface {
	Live(node string) (fsm.NodeRef, bool)
	ClientEpoch(clientID string) (fsm.Epoch, bool)
	// Applied is the log position that the state is at.
	Applied() uint64
}

// Host is the node that the links belong to.
type Host interface {
	// Self is the node's own serving incarnation; incarnation 0 while there is none.
	Self() fsm.NodeRef
	// Leased tells whether the node holds a lease now. It must be cheap.
	Leased() bool
	// Dial gives the client of a peer. It is asked on each attempt to connect, so it should keep
	// connections; it must not block for long.
	Dial(node string) (clusterpb.PeerClient, error)
	// Deliver hands a frame to the node's clients. It must not block nor keep what f aliases.
	Deliver(from fsm.NodeRef, f *clusterpb.Frame) clusterpb.LinkCode
	// Relay proposes cmd to the log, in the order of the calls, and must not block. done(nil): it
	// was applied here; an error: this node's incarnation ended before.
	Relay(cmd *fsmpb.Relay, done func(error))
}

const (
	defaultMaxUnacked = 8 << 20
	defaultStallAfter = time.Second
)

// Links are all links of one node, both ways. All methods may be called from any goroutine and,
// except HandleLink and Close, never block.
type Links struct {
	cfg   Config
	state State
	host  Host

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	// Read without a lock by Send and Congested; replaced as a whole under mu.
	out atomic.Pointer[outbound]

	mu     sync.Mutex
	closed bool
	in     map[fsm.NodeRef]*inlet
	ended  map[string]uint64 // by node: the newest incarnation that is known to have ended
}

// outbound are the links to others. Maps are never written once they are published.
type outbound struct {
	byRef  map[fsm.NodeRef]*link
	byNode map[string]*link // to the newest incarnation
}

// New makes the links of a node. Close ends them.
func New(cfg Config, state State, host Host) *Links {
	if cfg.MaxUnacked <= 0 {
		cfg.MaxUnacked = defaultMaxUnacked
	}
	if cfg.StallAfter <= 0 {
		cfg.StallAfter = defaultStallAfter
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.OnRelief == nil {
		cfg.OnRelief = func(string) {}
	}
	if cfg.Dropped == nil {
		cfg.Dropped = func(fsm.Reason, int) {}
	}
	l := &Links{
		cfg: cfg, state: state, host: host,
		in: make(map[fsm.NodeRef]*inlet), ended: make(map[string]uint64),
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.out.Store(&outbound{})
	return l
}

// Send gives f to the link to an incarnation; everything is encoded before it returns, so f may be
// used again. At QoS 0, false means dropped, which the caller counts. Above, the frame is always
// accepted and done hears what became of it, exactly once, perhaps before Send returns.
func (l *Links) Send(to fsm.NodeRef, f *clusterpb.Frame, done clusterpb.LinkDone) bool {
	k := l.out.Load().byRef[to]
	if k == nil {
		k = l.open(to)
	}
	if f.QoS == 0 {
		return k != nil && k.send0(f)
	}
	if k == nil || !k.send(f, done) {
		done.LinkDone(to.Node, clusterpb.LinkGone)
	}
	return true
}

// Congested tells whether more than the bound is on its way to a node: publishers should pause
// until OnRelief.
func (l *Links) Congested(node string) bool {
	k := l.out.Load().byNode[node]
	return k != nil && k.congested.Load()
}

// PeerUp opens the link to an incarnation that has begun, so that it stands before the first frame.
func (l *Links) PeerUp(ref fsm.NodeRef) {
	if self := l.host.Self(); self.Incarnation != 0 && ref.Node != self.Node {
		l.open(ref)
	}
}

// open starts the link to an incarnation. nil: that, or this node's own, has ended.
func (l *Links) open(to fsm.NodeRef) *link {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.out.Load()
	if k := old.byRef[to]; k != nil {
		return k
	}
	// Under the lock: PeerDown takes it after the state machine has ended the incarnation, so it
	// either finds the link or made this read fail.
	self := l.host.Self()
	live, ok := l.state.Live(to.Node)
	if l.closed || self.Incarnation == 0 || !ok || live != to {
		return nil
	}
	k := newLink(l, self, to)
	next := &outbound{byRef: maps.Clone(old.byRef), byNode: maps.Clone(old.byNode)}
	if next.byRef == nil {
		next.byRef, next.byNode = make(map[fsm.NodeRef]*link), make(map[string]*link)
	}
	next.byRef[to], next.byNode[to.Node] = k, k
	l.out.Store(next)
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		k.run()
	}()
	return k
}

// PeerDown is the verdict on an incarnation. Its frames are released with LinkGone, its stream is
// cut and nothing more is taken from it; what came through the log before is still delivered.
func (l *Links) PeerDown(ref fsm.NodeRef) {
	l.mu.Lock()
	l.ended[ref.Node] = max(l.ended[ref.Node], ref.Incarnation)
	old := l.out.Load()
	k := old.byRef[ref]
	if k != nil {
		next := &outbound{byRef: maps.Clone(old.byRef), byNode: maps.Clone(old.byNode)}
		delete(next.byRef, ref)
		if next.byNode[ref.Node] == k {
			delete(next.byNode, ref.Node)
		}
		l.out.Store(next)
	}
	in := l.in[ref]
	delete(l.in, ref)
	l.mu.Unlock()
	if k != nil {
		k.close()
	}
	if in != nil {
		in.close(false)
	}
}

// Reset ends all links because the node's own incarnation ended. The caller has closed its clients
// before: frames are released with LinkGone, and nobody may be told that they were delivered.
func (l *Links) Reset() { l.drop(false) }

// Close ends all links as Reset does and waits for what the package started.
func (l *Links) Close() {
	l.drop(true)
	l.stop()
	l.wg.Wait()
}

func (l *Links) drop(closed bool) {
	l.mu.Lock()
	l.closed = l.closed || closed
	links := l.out.Swap(&outbound{}).byRef
	inlets := l.in
	l.in = make(map[fsm.NodeRef]*inlet)
	l.mu.Unlock()
	for _, k := range links {
		k.close()
	}
	for _, in := range inlets {
		in.close(true)
	}
}

// spawn runs fn on a goroutine that Close waits for; false when closed already.
func (l *Links) spawn(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		fn()
	}()
	return true
}
