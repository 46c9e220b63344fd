package session

import (
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// world is one persistent session between the replicated state, which is the real one, and a
// client that keeps to the specification. What a broker does between them is done by hand, in
// any order, and may be cut off anywhere.
type world struct {
	t     *rapid.T
	f     *fsm.FSM
	index uint64
	clock int64
	inc   uint64
	next  uint64
	epoch uint64
	cfg   Config

	s       *Session
	pending []proposal // in the log's order
	stream  []byte     // to the client
	client  modelClient

	published []modelMessage
	dropped   int
	cuts      int
}

type proposal struct {
	cmd  *fsmpb.Command
	then func()
}

type modelMessage struct {
	qos  byte
	seen int
}

// modelClient is the receiving half of a client.
type modelClient struct {
	known   map[uint16]int  // QoS 2 packet ids that wait for PUBREL, and their message
	acks    []mqtt.Ack      // not sent yet
	unacked map[uint16]bool // of its Receive Maximum on this connection
	last    int             // the last message on this connection
	first   [3]int          // the last message that came for the first time, by QoS
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, f: fsm.New("n"), clock: 1_000_000, cfg: Config{
		Version: mqtt.V5, Persistent: true, Window: rapid.IntRange(1, 5).Draw(t, "window"),
		Span: uint32(rapid.IntRange(5, 20).Draw(t, "span")), MaxPacket: 100,
		AliasOut: uint16(rapid.IntRange(0, 2).Draw(t, "aliases")), MaxQueued: rapid.IntRange(0, 12).Draw(t, "queue"),
		Full: Full(rapid.IntRange(0, 2).Draw(t, "full")),
	}}
	w.client.known = make(map[uint16]int)
	w.client.first = [3]int{-1, -1, -1}
	w.nodeUp()
	w.connect()
	w.apply(&fsmpb.Command{Op: &fsmpb.Command_Subscribe{Subscribe: &fsmpb.Subscribe{
		ClientId: "c", Epoch: w.epoch, Subscriptions: []*fsmpb.Subscription{{Filter: "t", Qos: 2}},
	}}})
	return w
}

func (w *world) entry(b []byte) *fsm.Result {
	w.index++
	effects, err := w.f.Apply(w.index, 1, b)
	if err != nil {
		w.t.Fatal(err)
	}
	var r *fsm.Result
	for i := range effects {
		switch e := &effects[i]; e.Kind {
		case fsm.EffectResult:
			r = e.Result
		case fsm.EffectDropped:
			w.dropped += e.N
		case fsm.EffectEnqueued:
			if w.s != nil && uint64(e.Epoch) == w.epoch {
				w.s.Enqueue(e.Entry)
			}
		}
	}
	return r
}

func (w *world) apply(cmd *fsmpb.Command) *fsm.Result {
	b, err := (&fsmpb.Batch{Origin: "n", Incarnation: w.inc, First: w.next, Commands: []*fsmpb.Command{cmd}}).MarshalVT()
	if err != nil {
		w.t.Fatal(err)
	}
	w.next++
	return w.entry(fsm.EncodeBatch(nil, w.clock, b))
}

func (w *world) nodeUp() {
	w.entry(fsm.EncodeSystem(nil, w.clock, &fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: "n", Nonce: w.index + 1, PeerAddr: "n:1"}}}))
	w.inc, w.next = w.index, 1
}

func (w *world) nodeDown() {
	w.entry(fsm.EncodeSystem(nil, w.clock, &fsmpb.System{Op: &fsmpb.System_NodeDown{NodeDown: &fsmpb.NodeDown{Node: "n", Incarnation: w.inc, Term: 1}}}))
}

func (w *world) connect() {
	r := w.apply(&fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: &fsmpb.Connect{
		ClientId: "c", Persistent: true, Expiry: 3600, Protocol: 5,
		Limits: &fsmpb.Limits{MaxQueue: uint32(w.cfg.MaxQueued), Span: w.cfg.Span, DropOldest: w.cfg.Full == DropOldest},
	}}})
	if r.Code != fsm.OK {
		w.t.Fatalf("connect: %v", r.Code)
	}
	w.epoch = uint64(r.Epoch)
	w.cfg.Window = max(1, w.cfg.Window+rapid.IntRange(-1, 1).Draw(w.t, "window changes"))
	w.s, w.stream = Resume(w.cfg, r.Session, nil)
	w.client.unacked, w.client.acks, w.client.last = make(map[uint16]bool), nil, -1
}

func (w *world) publish(qos byte, size int, expiry uint32) {
	payload := binary.BigEndian.AppendUint32(make([]byte, 0, size), uint32(len(w.published)))
	w.published = append(w.published, modelMessage{qos: qos})
	w.apply(&fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{
		Topic: "t", Qos: uint32(qos), Payload: payload[:size], HasExpiry: expiry > 0, Expiry: expiry,
	}}})
}

// settle is what the broker does after each event.
func (w *world) settle(lazy bool) {
	if w.s == nil {
		return
	}
	if dirty, urgent := w.s.Dirty(); w.s.NeedsCommit() || urgent || lazy && (dirty || w.s.Drops() > 0) {
		p, received := w.progress()
		w.pending = append(w.pending, proposal{&fsmpb.Command{Op: &fsmpb.Command_Progress{Progress: p}}, func() {
			w.s.Committed(p.Cursor)
			w.stream = w.s.Received(received, w.stream)
		}})
	}
}

func flat(rs []fsm.Range) (out []uint64) {
	for _, r := range rs {
		out = append(out, r.Lo, r.Hi)
	}
	return out
}

func (w *world) progress() (*fsmpb.Progress, []fsm.Range) {
	done, received := w.s.TakeProgress(), w.s.TakeReceived()
	p := &fsmpb.Progress{ClientId: "c", Epoch: w.epoch, Cursor: done.Cursor, Done: flat(done.Done), Received: flat(received)}
	for _, d := range w.s.TakeDrops() {
		p.Drops = append(p.Drops, &fsmpb.Drop{Seq: d.Seq, Reason: uint32(d.Reason)})
	}
	return p, received
}

// commit applies the first n proposals.
func (w *world) commit(n int) {
	for _, p := range w.pending[:n] {
		if r := w.apply(p.cmd); r.Code != fsm.OK {
			w.t.Fatalf("progress is refused: %v", r.Code)
		}
		if w.s != nil {
			p.then()
		}
	}
	w.pending = w.pending[n:]
}

func (w *world) pump(limit int) {
	if w.s != nil {
		w.stream = w.s.Pump(w.stream, w.clock, len(w.stream)+limit)
	}
}

// read gives the client its next packet.
func (w *world) read() bool {
	first, body, n, err := mqtt.Split(w.stream, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	if n == 0 {
		return false
	}
	w.stream = w.stream[n:]
	if n > int(w.cfg.MaxPacket) {
		w.t.Fatalf("packet of %d bytes", n)
	}
	if mqtt.TypeOf(first) == mqtt.PUBLISH {
		w.receive(first, body)
		return true
	}
	var a mqtt.Ack
	if err := a.Decode(mqtt.V5, first, body); err != nil || a.Type != mqtt.PUBREL || a.Code != mqtt.Success {
		w.t.Fatalf("%v, %v", a, err)
	}
	w.checkCommitted(a.PacketID)
	delete(w.client.known, a.PacketID)
	w.client.acks = append(w.client.acks, mqtt.Ack{Type: mqtt.PUBCOMP, PacketID: a.PacketID})
	return true
}

// checkCommitted: a PUBREL leaves only when the log knows that its PUBLISH must not come again.
func (w *world) checkCommitted(id uint16) {
	v, _ := w.f.View("c")
	for seq := v.Cursor + 1; seq <= v.Last; seq++ {
		in := func(r fsm.Range) bool { return r.Lo <= seq && seq <= r.Hi }
		if fsm.PacketID(seq) == id && !slices.ContainsFunc(v.Received, in) && !slices.ContainsFunc(v.Done, in) {
			w.t.Fatalf("PUBREL %d before its PUBREC is committed", id)
		}
	}
}

func (w *world) receive(first byte, body []byte) {
	c := &w.client
	var p mqtt.Publish
	if err := p.Decode(mqtt.V5, first, body); err != nil {
		w.t.Fatal(err)
	}
	i := int(binary.BigEndian.Uint32(p.Payload))
	m := &w.published[i]
	switch {
	case p.QoS != m.qos:
		w.t.Fatalf("message %d comes at QoS %d", i, p.QoS)
	case i <= c.last:
		w.t.Fatalf("message %d comes after %d", i, c.last)
	case m.seen > 0 && !p.Dup:
		w.t.Fatalf("message %d comes again without DUP", i)
	case p.Dup && w.cuts == 0:
		w.t.Fatalf("message %d has DUP on the first connection", i)
	case c.unacked[p.PacketID]:
		w.t.Fatalf("packet id %d is in use", p.PacketID)
	}
	c.last = i
	c.unacked[p.PacketID] = true
	if len(c.unacked) > w.cfg.Window {
		w.t.Fatalf("%d in flight, the client takes %d", len(c.unacked), w.cfg.Window)
	}
	ack := mqtt.PUBACK
	if p.QoS == 2 {
		ack = mqtt.PUBREC
		if of, ok := c.known[p.PacketID]; ok {
			if of != i {
				w.t.Fatalf("message %d is taken for a repeat of %d", i, of)
			}
			c.acks = append(c.acks, mqtt.Ack{Type: ack, PacketID: p.PacketID})
			return
		}
		c.known[p.PacketID] = i
	}
	c.acks = append(c.acks, mqtt.Ack{Type: ack, PacketID: p.PacketID})
	if m.seen == 0 {
		if i <= c.first[p.QoS] {
			w.t.Fatalf("message %d comes for the first time after %d", i, c.first[p.QoS])
		}
		c.first[p.QoS] = i
	}
	if m.seen++; m.seen > 1 && p.QoS == 2 {
		w.t.Fatalf("message %d comes %d times", i, m.seen)
	}
}

// ack sends one of the client's acknowledgements.
func (w *world) ack(n int) {
	c := &w.client
	if w.s == nil || len(c.acks) == 0 {
		return
	}
	n %= len(c.acks)
	a := c.acks[n]
	c.acks = slices.Delete(c.acks, n, n+1)
	switch a.Type {
	case mqtt.PUBACK:
		delete(c.unacked, a.PacketID)
		w.s.Puback(a.PacketID)
	case mqtt.PUBREC:
		w.stream, _ = w.s.Pubrec(a.PacketID, 0, w.stream)
	case mqtt.PUBCOMP:
		delete(c.unacked, a.PacketID)
		w.s.Pubcomp(a.PacketID)
	}
}

// leave ends the connection in order: what was sent is known, though not all of it may arrive.
func (w *world) leave() {
	p, _ := w.progress()
	sent := w.s.Sent()
	w.s = nil
	w.commit(len(w.pending))
	w.apply(&fsmpb.Command{Op: &fsmpb.Command_Disconnect{Disconnect: &fsmpb.Disconnect{ClientId: "c", Epoch: w.epoch, Progress: p, Sent: sent}}})
}

// crash ends the connection with its node: some of what was proposed is lost.
func (w *world) crash(committed int) {
	w.s = nil
	w.commit(committed % (len(w.pending) + 1))
	w.pending = nil
	w.nodeDown()
	w.nodeUp()
}

func (w *world) cut(how, received int) {
	if w.s == nil {
		return
	}
	for ; received > 0 && w.read(); received-- { // what still arrives
	}
	w.stream = nil
	w.cuts++
	if how == 0 {
		w.leave()
	} else {
		w.crash(how - 1)
	}
}

func (w *world) step() {
	t := w.t
	switch rapid.SampledFrom([]string{
		"publish", "publish", "pump", "read", "read", "ack", "ack", "ack", "commit", "lazy", "wait", "cut", "connect",
	}).Draw(t, "step") {
	case "publish":
		size := 4
		if rapid.IntRange(0, 9).Draw(t, "large") == 0 {
			size = 200
		}
		w.publish(byte(rapid.IntRange(1, 2).Draw(t, "qos")), size, uint32(max(0, rapid.IntRange(-10, 5).Draw(t, "expiry"))))
	case "pump":
		w.pump(rapid.IntRange(1, 200).Draw(t, "limit"))
	case "read":
		w.read()
	case "ack":
		w.ack(rapid.IntRange(0, 10).Draw(t, "which"))
	case "commit":
		w.commit(rapid.IntRange(0, len(w.pending)).Draw(t, "proposals"))
	case "lazy":
		w.settle(true)
	case "wait":
		w.clock += 1000
	case "cut":
		if rapid.IntRange(0, 3).Draw(t, "really") == 0 {
			w.cut(rapid.IntRange(0, 3).Draw(t, "how"), rapid.IntRange(0, 5).Draw(t, "received"))
		}
	case "connect":
		if w.s == nil {
			w.connect()
		}
	}
	w.settle(false)
	if w.s != nil && w.s.Overflowed() { // the broker disconnects it
		w.cut(0, 0)
	}
}

// finish lets everything come to its end.
func (w *world) finish() {
	if w.s == nil {
		w.connect()
	}
	for range 20 * (len(w.published) + 10) {
		w.pump(1000)
		w.settle(true)
		w.commit(len(w.pending))
		for w.read() {
			w.ack(0)
			w.settle(false)
		}
		for len(w.client.acks) > 0 {
			w.ack(0)
			w.settle(false)
		}
	}
	v, _ := w.f.View("c")
	if w.s.Queued() != 0 || w.s.Inflight() != 0 || v.Cursor != v.Last || len(v.Queue) != 0 {
		w.t.Fatalf("it does not come to an end: queued %d, in flight %d, cursor %d of %d, %d in the log",
			w.s.Queued(), w.s.Inflight(), v.Cursor, v.Last, len(v.Queue))
	}
	missing := 0
	for i := range w.published {
		if w.published[i].seen == 0 {
			missing++
		}
	}
	if missing > w.dropped || w.cuts == 0 && missing != w.dropped {
		w.t.Fatalf("%d messages did not come, %d drops are counted", missing, w.dropped)
	}
	if len(w.client.known) > 0 {
		w.t.Fatalf("the client waits for PUBREL of %v", w.client.known)
	}
}

// TestPersistentSession: exactly once, in order, within the window and counted, whatever is cut off
// wherever.
func TestPersistentSession(t *testing.T) {
	rapid.Check(t, persistentSession)
}

func persistentSession(t *rapid.T) {
	w := newWorld(t)
	for range rapid.IntRange(1, 150).Draw(t, "steps") {
		w.step()
	}
	w.finish()
}

// FuzzSession is TestPersistentSession, led by what the code of sessions and queues does.
func FuzzSession(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(persistentSession))
}
