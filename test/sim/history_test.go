package sim

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// history is one random run: everything in it follows from its seed.
type history struct {
	w       *World
	rand    *rand.Rand
	players []*player
	step    int
	notes   []*note
	byName  map[string]*note
	last    map[ordered]int
	ended   []endedSubscription
	qosOf   map[string]byte
	wills   map[string]int
	willOf  map[string]*testament
	deaf    map[*Node]int // applies nothing until then
	shape   shape

	verbose bool
	lines   []string
	failed  []string
}

// shape is what a history is about, drawn first.
type shape struct {
	faults  int // one step in so many is a fault; 0: none
	slow    int // one step in so many moves the cluster, in the others clients act
	retain  bool
	members bool // shared subscriptions
	links   bool // mostly clean clients, and links that break
}

func newHistory(seed uint64, verbose bool) *history {
	return &history{
		rand: rand.New(rand.NewPCG(seed, 0)), verbose: verbose, byName: make(map[string]*note), last: make(map[ordered]int),
		qosOf: make(map[string]byte), wills: make(map[string]int), willOf: make(map[string]*testament),
		deaf: make(map[*Node]int),
	}
}

func (h *history) options() Options {
	var mu sync.Mutex // each node chooses, in goroutines of its own
	choose := rand.New(rand.NewPCG(h.rand.Uint64(), 1))
	inflight := uint16(1 + h.rand.IntN(6))
	return Options{
		Nodes: 3,
		Choose: func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return choose.IntN(n)
		},
		Broker: func(_ string, c *broker.Config) {
			c.MaxInflight, c.ReceiveMaximum, c.MaxQueuedMessages = inflight, 20, 0
		},
	}
}

func (h *history) n(n int) int       { return h.rand.IntN(n) }
func (h *history) chance(n int) bool { return h.rand.IntN(n) == 0 }

func (h *history) trace(format string, args ...any) {
	if h.verbose {
		h.lines = append(h.lines, fmt.Sprintf("%4d ", h.step)+fmt.Sprintf(format, args...))
	}
}

func (h *history) fail(format string, args ...any) {
	h.failed = append(h.failed, fmt.Sprintf(format, args...))
	h.trace("FAIL "+format, args...)
}

// run plays a history in a world that serves.
func (h *history) run(w *World) {
	h.w = w
	h.shape = shape{faults: []int{0, 12, 25, 50}[h.n(4)], slow: 2 + h.n(3), retain: h.chance(2), members: h.chance(3), links: h.chance(3)}
	h.cast()
	for range 60 + h.n(200) {
		h.step++
		h.act()
		if len(h.failed) > 0 {
			return
		}
	}
	h.heal()
	h.check()
}

// cast makes the players: a watcher of wills, and others of all kinds.
func (h *history) cast() {
	for i := range 3 + h.n(4) {
		p := &player{
			h: h, id: string([]byte{'a' + byte(i)}), version: []mqtt.Version{mqtt.V5, mqtt.V5, mqtt.V311}[h.n(3)],
			persistent: i == 0 || h.chance(2) && !(h.shape.links && h.chance(2)),
		}
		p.forget()
		h.players = append(h.players, p)
		h.qosOf[p.id] = byte(1 + h.n(2))
	}
	watcher := h.players[0]
	h.qosOf[watcher.id] = 2
	watcher.connect(h.w.Nodes()[h.n(3)])
	h.w.Run()
	watcher.read()
	watcher.subscribe("will/#", 2)
	for range 3 {
		h.w.Run()
		watcher.read()
	}
}

// topics and filters: those of shared groups are theirs alone, so that it is known how a message came.
func (h *history) topics() []string {
	if h.shape.members {
		return []string{"t/1", "s/1", "s/2"}
	}
	return []string{"t/1", "t/2", "u/1"}
}

func (h *history) filters() []string {
	if h.shape.members {
		return []string{"t/#", "t/1", shared, shared, shared}
	}
	return []string{"t/#", "t/1", "u/+", "#", "t/+"}
}

const shared = "$share/g/s/#"

func (h *history) act() {
	switch {
	case h.shape.faults > 0 && h.chance(h.shape.faults):
		h.fault()
	case h.chance(h.shape.slow):
		h.move()
	default:
		h.client(h.players[h.n(len(h.players))])
	}
}

// client has a player do something.
func (h *history) client(p *player) {
	p.read()
	if p.conn == nil {
		p.connect(h.w.Nodes()[h.n(3)])
		if !h.chance(4) {
			p.conn.Arrive(-1)
		}
		return
	}
	if !p.online {
		if h.chance(20) {
			p.connect(h.w.Nodes()[h.n(3)])
		}
		p.conn.Arrive(-1)
		return
	}
	switch k := h.n(100); {
	case k < 45:
		if len(p.out) < 15 {
			for range 1 + h.n(3) {
				topics := h.topics()
				p.publish(topics[h.n(len(topics))], byte(h.n(3)), h.shape.retain && h.chance(8))
			}
		}
	case k < 60:
		f := h.filters()
		p.subscribe(f[h.n(len(f))], h.qosOf[p.id])
	case k < 63:
		if f := sortedKeys(p.subs); len(f) > 0 {
			if s := p.subs[f[h.n(len(f))]]; s.filter != "will/#" {
				p.unsubscribe(s)
			}
		}
	case k < 85:
		p.answer(1 + h.n(5))
	case k < 88:
		h.trace("%s cuts its connection", p)
		p.conn.Cut()
		p.lost()
		return
	case k < 90:
		h.trace("%s says goodbye", p)
		p.bye()
		return
	case k < 92:
		p.connect(h.w.Nodes()[h.n(3)]) // a takeover
	case k < 94: // an old connection, if there is one
		if n := len(p.old); n > 0 {
			c := p.old[h.n(n)]
			c.Arrive(1 + h.n(100))
		}
		return
	}
	if p.conn != nil && !h.chance(4) {
		n := -1
		if h.chance(5) {
			n = 1 + h.n(20)
		}
		p.conn.Arrive(n)
	}
}

// bye says DISCONNECT, which may get lost.
func (p *player) bye() {
	if t := p.h.willOf[p.name()]; t != nil {
		t.bye = true
	}
	c := p.conn
	c.Send(&mqtt.Disconnect{})
	if !p.h.chance(4) {
		c.Arrive(-1)
	}
	p.lost()
}

// move lets one thing happen in the cluster.
func (h *history) move() {
	w := h.w
	n := w.Nodes()[h.n(3)]
	switch k := h.n(100); {
	case k < 30:
		if n.Submit([]int{1, 2, 1000}[h.n(3)]) {
			h.trace("%s: a batch enters the log", n.ID)
		}
	case k < 60:
		for range 1 + h.n(4) {
			if h.step >= h.deaf[n] && n.Apply() {
				h.trace("%s applies entry %d", n.ID, n.applied)
			}
		}
	case k < 70:
		if n.Mark() {
			h.trace("%s hears the watermark", n.ID)
		}
	case k < 88:
		m := w.Nodes()[h.n(3)]
		acks := h.chance(2)
		if m != n && w.Carry(n.ID, m.ID, acks) {
			h.trace("link %s to %s, acks %v", n.ID, m.ID, acks)
		}
	case k < 90:
		h.trace("time passes")
		w.Sleep(time.Duration(1+h.n(40)) * time.Millisecond)
	case k < 94:
		if n.TellLease() {
			h.trace("%s hears how its lease stands", n.ID)
		}
	case k < 96:
		if n.End() {
			h.trace("%s ends its incarnation", n.ID)
		}
		if n.Announce() {
			h.trace("%s announces itself", n.ID)
		}
	case k < 97:
		if n.Serve() {
			h.trace("%s serves as %d", n.ID, n.Self().Incarnation)
		}
	case k < 98:
		if w.Reap(uint32(1 + h.n(3))) {
			h.trace("reaping")
		}
	default:
		if h.chance(3) {
			h.trace("everything flows")
			w.Run()
		}
	}
	w.prune()
}

// fault breaks something, or mends it.
func (h *history) fault() {
	w := h.w
	n, m := w.Nodes()[h.n(3)], w.Nodes()[h.n(3)]
	kind := h.n(12)
	if h.shape.links && h.chance(2) {
		kind = 9
	}
	switch kind {
	case 0:
		if n.Alive() {
			h.trace("%s is killed", n.ID)
			n.Kill()
		}
	case 1, 2:
		if !n.Alive() {
			snapshot := h.chance(2)
			h.trace("%s starts, snapshot %v", n.ID, snapshot)
			n.Start(snapshot)
		}
	case 3, 4:
		if !n.Alive() || !n.leased.Load() || h.chance(4) {
			if w.Verdict(n) {
				h.trace("verdict on %s", n.ID)
			}
		}
	case 5:
		if n.LoseLease() {
			h.trace("%s loses its lease", n.ID)
		}
	case 6:
		if n.GrantLease() {
			h.trace("%s has its lease again", n.ID)
		}
	case 7:
		h.trace("another leader")
		w.Elect()
	case 8:
		if n.Lose(1 + h.n(3)) {
			h.trace("a batch of %s gets lost", n.ID)
		}
	case 9:
		if n != m {
			h.trace("link %s %s breaks", n.ID, m.ID)
			w.BreakLink(n.ID, m.ID)
		}
	case 11: // a zombie: its lease has run out, and it hears of the verdict late
		if n.Serving() && n.LoseLease() && w.Verdict(n) {
			h.trace("%s is declared dead and lives", n.ID)
			h.deaf[n] = h.step + h.n(60)
		}
	case 10:
		if n != m {
			cut := !w.Cut(n.ID, m.ID)
			h.trace("cut between %s and %s: %v", n.ID, m.ID, cut)
			w.SetCut(n.ID, m.ID, cut)
		}
	}
}

// heal mends everything, has everybody come back and waits until nothing moves any more.
func (h *history) heal() {
	w := h.w
	h.trace("healing")
	for i, a := range w.Nodes() {
		for _, b := range w.Nodes()[i+1:] {
			w.SetCut(a.ID, b.ID, false)
		}
		if !a.Alive() {
			a.Start(false)
		}
	}
	w.Elect()
	for quiet, round := 0, 0; quiet < 4; round++ {
		if round == 1000 {
			h.fail("messages come without end")
			return
		}
		h.step++
		for _, n := range w.Nodes() {
			n.GrantLease()
		}
		w.Run()
		moved := false
		for _, p := range h.players {
			moved = p.read() || moved
			if p.conn == nil {
				p.connect(w.Nodes()[h.n(3)])
				moved = true
			}
			moved = p.answer(100) || moved
			for _, c := range p.old {
				c.Leave()
			}
			p.old = nil
		}
		quiet++
		if moved {
			quiet = 0
		}
		w.Pass(150 * time.Millisecond)
	}
}
