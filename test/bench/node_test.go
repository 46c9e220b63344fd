package bench

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/node/conn"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// node is a broker with a log that is applied as soon as something is proposed.
type node struct {
	tb     testing.TB
	fsm    *fsm.FSM
	broker *broker.Broker
	self   fsm.NodeRef
	wake   chan struct{}
	stop   chan struct{}
	group  sync.WaitGroup

	mu       sync.Mutex
	proposed []proposal
	sequence uint64

	index  uint64 // of the applying goroutine
	frames int    // that were sent to other nodes
}

type proposal struct {
	sequence uint64
	batch    []byte
	done     func(fsm.Result, error)
}

// newNode starts a node; others are nodes that live in the log and never answer.
func newNode(tb testing.TB, others ...string) *node {
	tb.Helper()
	n := &node{tb: tb, fsm: fsm.New("a"), wake: make(chan struct{}, 1), stop: make(chan struct{})}
	cfg := broker.Config{
		Node: "a", Version: "test", MaxPacketSize: 1 << 20, ReceiveMaximum: 1000, MaxInflight: 1000, MaxQueuedMessages: 100_000,
		SessionExpiryMax: 3600, ConnectTimeout: time.Minute, RetainAvailable: true, MaxQoS: 2, WildcardAvailable: true,
		SharedAvailable: true, MaxBufferedBytes: 16 << 20,
	}
	var err error
	if n.broker, err = broker.New(cfg, n.fsm); err != nil {
		tb.Fatal(err)
	}
	n.broker.Attach(n)
	n.self = n.up("a")
	n.broker.Serving(n.self)
	n.group.Go(n.apply)
	ctx, cancel := context.WithCancel(context.Background())
	n.group.Go(func() { _ = n.broker.Run(ctx) })
	tb.Cleanup(func() {
		n.broker.Close()
		cancel()
		close(n.stop)
		n.group.Wait()
	})
	for _, other := range others {
		ref := n.up(other)
		n.append(fsm.EncodeBatch(nil, 1, n.batch(&fsmpb.Batch{
			Origin: ref.Node, Incarnation: ref.Incarnation, First: 1,
			Commands: []*fsmpb.Command{{Op: &fsmpb.Command_Interest{Interest: &fsmpb.Interest{Filter: "far/#", Count: 1}}}},
		})))
	}
	return n
}

func (n *node) batch(b *fsmpb.Batch) []byte {
	bytes, err := b.MarshalVT()
	if err != nil {
		panic(err)
	}
	return bytes
}

// up begins a node's incarnation. Before apply runs, or while nothing is proposed.
func (n *node) up(id string) fsm.NodeRef {
	n.append(fsm.EncodeSystem(nil, 1, &fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: id, Nonce: 1, Features: 1}}}))
	return fsm.NodeRef{Node: id, Incarnation: n.index}
}

func (n *node) append(entry []byte) []fsm.Effect {
	n.index++
	effects, err := n.fsm.Apply(n.index, 1, entry)
	if err != nil {
		panic(err)
	}
	return effects
}

func (n *node) apply() {
	for {
		select {
		case <-n.stop:
			return
		case <-n.wake:
		}
		n.mu.Lock()
		list := n.proposed
		n.proposed = nil
		n.mu.Unlock()
		for i := range list {
			effects := n.append(fsm.EncodeBatch(nil, 1, list[i].batch))
			begin := 0
			for k := range effects {
				if effects[k].Kind == fsm.EffectResult {
					n.broker.Apply(effects[begin:k])
					list[i].done(*effects[k].Result, nil)
					begin = k + 1
				}
			}
			n.broker.Apply(effects[begin:])
		}
	}
}

// Propose implements broker.Cluster.
func (n *node) Propose(cmd *fsmpb.Command, done func(fsm.Result, error)) uint64 {
	n.mu.Lock()
	n.sequence++
	seq := n.sequence
	n.proposed = append(n.proposed, proposal{seq, n.batch(&fsmpb.Batch{
		Origin: n.self.Node, Incarnation: n.self.Incarnation, First: seq, Commands: []*fsmpb.Command{cmd},
	}), done})
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
	return seq
}

// Backlog implements broker.Cluster.
func (n *node) Backlog() (commands, bytes int) { return 0, 0 }

// Barrier implements broker.Cluster.
func (n *node) Barrier(_ uint64, done func()) { done() }

// Leased implements broker.Cluster.
func (n *node) Leased() bool { return true }

// Now implements broker.Cluster.
func (n *node) Now() int64 { return 1 }

// Self implements broker.Cluster.
func (n *node) Self() fsm.NodeRef { return n.self }

// Send implements broker.Cluster: the other node takes everything at once.
func (n *node) Send(to fsm.NodeRef, f *clusterpb.Frame, done clusterpb.LinkDone) bool {
	n.frames++
	if f.QoS > 0 {
		done.LinkDone(to.Node, clusterpb.LinkTaken)
	}
	return true
}

// LinkCongested implements broker.Cluster.
func (n *node) LinkCongested(string) bool { return false }

// wire is a client with nothing between it and its bytes.
type wire struct {
	tb  testing.TB
	nc  net.Conn
	buf []byte
	at  int // buf[at:end] is read and not handled
	end int
	ack []byte
	// seen counts what came before anybody waited for it: a PUBREL may overtake the next PUBLISH.
	seen [16]int
}

// dial connects a clean client of 3.1.1.
func (n *node) dial(id string) *wire {
	n.tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		n.tb.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		n.tb.Fatal(err)
	}
	n.group.Add(1)
	_ = n.broker.Serve(conn.New(server, "test"), "test", n.group.Done)
	w := &wire{tb: n.tb, nc: nc, buf: make([]byte, 256<<10)}
	n.tb.Cleanup(func() { _ = nc.Close() })
	w.send((&mqtt.Connect{Version: mqtt.V311, Clean: true, ClientID: id}).Append(nil, mqtt.V311))
	w.want(mqtt.CONNACK, 1)
	return w
}

func (w *wire) subscribe(filter string, qos byte) {
	w.send((&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: filter, QoS: qos}}}).Append(nil, mqtt.V311))
	w.want(mqtt.SUBACK, 1)
}

func (w *wire) send(b []byte) {
	if _, err := w.nc.Write(b); err != nil {
		w.tb.Fatal(err)
	}
}

// ping returns when the node has read everything that was sent.
func (w *wire) ping() {
	w.ack = append(w.ack, byte(mqtt.PINGREQ)<<4, 0)
	w.send(w.ack)
	w.ack = w.ack[:0]
	w.want(mqtt.PINGRESP, 1)
}

// want reads until that many packets of a type have come, and answers those that want an answer.
func (w *wire) want(t mqtt.Type, count int) {
	for w.seen[t] < count {
		first, body, n, err := mqtt.Split(w.buf[w.at:w.end], 0)
		if err != nil {
			w.tb.Fatal(err)
		}
		if n == 0 {
			if len(w.ack) > 0 {
				w.send(w.ack)
				w.ack = w.ack[:0]
			}
			w.end = copy(w.buf, w.buf[w.at:w.end])
			w.at = 0
			k, err := w.nc.Read(w.buf[w.end:])
			if err != nil {
				w.tb.Fatal(err)
			}
			w.end += k
			continue
		}
		w.at += n
		got := mqtt.TypeOf(first)
		w.seen[got]++
		switch qos := first >> 1 & 3; {
		case got == mqtt.PUBLISH && qos > 0:
			id := 2 + int(binary.BigEndian.Uint16(body))
			w.ack = append(w.ack, byte(mqtt.PUBACK+mqtt.Type(qos-1))<<4, 2, body[id], body[id+1])
		case got == mqtt.PUBREC:
			w.ack = append(w.ack, byte(mqtt.PUBREL)<<4|2, 2, body[0], body[1])
		case got == mqtt.PUBREL:
			w.ack = append(w.ack, byte(mqtt.PUBCOMP)<<4, 2, body[0], body[1])
		}
	}
	w.seen[t] -= count
	if len(w.ack) > 0 {
		w.send(w.ack)
		w.ack = w.ack[:0]
	}
}

// publishes are that many PUBLISHes, with packet ids from 1 on.
func publishes(topic string, qos byte, count int) (b []byte) {
	for i := range count {
		h := mqtt.PublishHeader{QoS: qos}
		if qos > 0 {
			h.PacketID = uint16(i + 1)
		}
		b, _ = mqtt.AppendPublish(b, mqtt.V311, h, topic, nil, nil, make([]byte, 100))
	}
	return b
}

// last is what a publisher gets when a publish is over.
func last(qos byte) mqtt.Type {
	if qos == 2 {
		return mqtt.PUBCOMP
	}
	return mqtt.PUBACK
}
