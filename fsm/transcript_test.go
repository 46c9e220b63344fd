package fsm

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/skein-mqtt/skein/proto/fsmpb"
)

// The transcripts under testdata/transcripts drive three replicas with one command to a line and show what
// each node was asked to do. Commands joined by && are one batch.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		s := &script{testCluster: newTestCluster(t, "n1", "n2", "n3")}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			s.out.Reset()
			for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
				if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
					s.line(line)
				}
			}
			if s.out.Len() == 0 {
				return "nothing"
			}
			return s.out.String()
		})
	})
}

type script struct {
	*testCluster
	out  bytes.Buffer
	last []byte // the last batch, to be repeated
}

// words splits a line; options are key=value or flags.
type words struct {
	args []string
	opts map[string]string
}

func parse(line string) words {
	w := words{opts: make(map[string]string)}
	for _, f := range strings.Fields(line) {
		if k, v, ok := strings.Cut(f, "="); ok {
			w.opts[k] = v
		} else {
			w.args = append(w.args, f)
		}
	}
	return w
}

func (w words) flag(name string) bool {
	for _, a := range w.args[1:] {
		if a == name {
			return true
		}
	}
	return false
}

func (w words) num(name string) uint64 {
	n, _ := strconv.ParseUint(w.opts[name], 10, 64)
	return n
}

func (s *script) line(line string) {
	w := parse(line)
	switch w.args[0] {
	case "up":
		if n, ok := w.opts["nonce"]; ok {
			nonce, _ := strconv.ParseUint(n, 10, 64)
			s.system(&fsmpb.System{Op: &fsmpb.System_NodeUp{NodeUp: &fsmpb.NodeUp{Node: w.args[1], Nonce: nonce}}})
		} else {
			s.up(w.args[1])
		}
	case "down":
		term := s.term
		if _, ok := w.opts["term"]; ok {
			term = w.num("term")
		}
		s.system(&fsmpb.System{Op: &fsmpb.System_NodeDown{NodeDown: &fsmpb.NodeDown{
			Node: w.args[1], Incarnation: s.inc[w.args[1]], Term: term, Reason: "silent",
		}}})
	case "reap":
		ref, ok := s.replicas["n1"].NeedsReap()
		if !ok {
			fmt.Fprintln(&s.out, "nothing to reap")
			return
		}
		s.reap(ref.Node, ref.Incarnation, uint32(w.num("limit")))
	case "removed":
		s.system(&fsmpb.System{Op: &fsmpb.System_NodeRemoved{NodeRemoved: &fsmpb.NodeRemoved{Node: w.args[1]}}})
	case "clock":
		n, _ := strconv.ParseInt(w.args[1], 10, 64)
		s.clock += n
		return
	case "tick":
		s.tick()
	case "repeat":
		s.entry(s.last)
	case "route":
		s.route(w.args[1])
		return
	case "show":
		s.show(w.args[1])
		return
	case "retained":
		s.replicas["n1"].Retained(w.args[1], func(m *Message) bool {
			fmt.Fprintf(&s.out, "%s %q qos=%d\n", m.Topic, m.Payload, m.QoS)
			return true
		})
		return
	case "counts":
		fmt.Fprintf(&s.out, "%+v\n", s.replicas["n1"].Counts())
		return
	default:
		s.commands(w.args[0], strings.TrimSpace(strings.TrimPrefix(line, w.args[0])))
	}
	for _, n := range s.nodes {
		for _, e := range s.effects[n] {
			if e.Kind != EffectPassed {
				fmt.Fprintf(&s.out, "%s: %s\n", n, s.describe(e))
			}
		}
	}
}

func (s *script) commands(node, line string) {
	var cmds []*fsmpb.Command
	first := s.next[node]
	for _, part := range strings.Split(line, "&&") {
		w := parse(part)
		if v, ok := w.opts["first"]; ok { // to make gaps
			n, _ := strconv.ParseInt(v, 10, 64)
			first = uint64(int64(first) + n)
		}
		cmds = append(cmds, s.command(w))
	}
	if first != s.next[node] {
		s.entry(s.encode(node, first, cmds...))
		return
	}
	s.last = s.encode(node, first, cmds...)
	s.batch(node, cmds...)
}

// who reads CLIENT or CLIENT@K, its Kth epoch.
func (s *script) who(arg string) (string, uint64) {
	name, k, ok := strings.Cut(arg, "@")
	if !ok {
		return name, s.epoch(name)
	}
	n, _ := strconv.Atoi(k)
	return name, uint64(s.epochs[name][n-1])
}

func rangesOf(v string) (out []uint64) {
	for _, p := range strings.Split(v, ",") {
		if lo, hi, ok := strings.Cut(p, "-"); ok {
			a, _ := strconv.ParseUint(lo, 10, 64)
			b, _ := strconv.ParseUint(hi, 10, 64)
			out = append(out, a, b)
		} else if a, err := strconv.ParseUint(p, 10, 64); err == nil {
			out = append(out, a, a)
		}
	}
	return out
}

func (s *script) progressOf(w words) *fsmpb.Progress {
	p := &fsmpb.Progress{Cursor: w.num("cursor"), Done: rangesOf(w.opts["done"]), Received: rangesOf(w.opts["received"])}
	if v, ok := w.opts["drop"]; ok {
		for _, d := range strings.Split(v, ",") {
			seq, _ := strconv.ParseUint(d, 10, 64)
			p.Drops = append(p.Drops, &fsmpb.Drop{Seq: seq, Reason: uint32(ReasonTooLarge)})
		}
	}
	return p
}

func (s *script) command(w words) *fsmpb.Command {
	var name string
	var epoch uint64
	if len(w.args) > 1 {
		name, epoch = s.who(w.args[1])
	}
	switch w.args[0] {
	case "connect":
		c := &fsmpb.Connect{
			ClientId: name, CleanStart: w.flag("clean"), Persistent: w.num("expiry") > 0, Expiry: uint32(w.num("expiry")),
			NotAfter: w.num("notafter"), Limits: &fsmpb.Limits{
				MaxQueue: uint32(w.num("maxq")), MaxQueueBytes: w.num("maxbytes"), Span: uint32(w.num("span")), QueueQos0: w.flag("q0"), DropOldest: w.flag("oldest"),
			},
		}
		if t, ok := w.opts["will"]; ok {
			c.Will = &fsmpb.Will{Topic: t, Payload: []byte("bye " + name), Delay: uint32(w.num("delay")), Qos: 1, Retain: w.flag("wretain")}
		}
		return &fsmpb.Command{Op: &fsmpb.Command_Connect{Connect: c}}
	case "disconnect":
		d := &fsmpb.Disconnect{ClientId: name, Epoch: epoch, Clean: w.flag("clean"), Sent: w.num("sent"), EndSession: w.flag("end")}
		if _, ok := w.opts["expiry"]; ok {
			d.HasExpiry, d.Expiry = true, uint32(w.num("expiry"))
		}
		d.Progress = s.progressOf(w)
		return &fsmpb.Command{Op: &fsmpb.Command_Disconnect{Disconnect: d}}
	case "sub":
		return &fsmpb.Command{Op: &fsmpb.Command_Subscribe{Subscribe: &fsmpb.Subscribe{ClientId: name, Epoch: epoch, Subscriptions: []*fsmpb.Subscription{{
			Filter: w.args[2], Group: w.opts["group"], Qos: uint32(w.num("qos")), NoLocal: w.flag("nl"), RetainAsPublished: w.flag("rap"),
			RetainHandling: uint32(w.num("rh")), Id: uint32(w.num("id")),
		}}}}}
	case "unsub":
		return &fsmpb.Command{Op: &fsmpb.Command_Unsubscribe{Unsubscribe: &fsmpb.Unsubscribe{ClientId: name, Epoch: epoch, Subscriptions: []*fsmpb.Subscription{{
			Filter: w.args[2], Group: w.opts["group"],
		}}}}}
	case "interest":
		return &fsmpb.Command{Op: &fsmpb.Command_Interest{Interest: &fsmpb.Interest{Filter: w.args[1], Group: w.opts["group"], Count: uint32(w.num("n"))}}}
	case "pub":
		p := &fsmpb.Publish{ClientId: name, Epoch: epoch, Topic: w.args[2], Qos: uint32(w.num("qos")), Retain: w.flag("retain"), PacketId: uint32(w.num("pid"))}
		if len(w.args) > 3 && w.args[3] != "retain" {
			p.Payload = []byte(w.args[3])
		}
		if _, ok := w.opts["expiry"]; ok {
			p.HasExpiry, p.Expiry = true, uint32(w.num("expiry"))
		}
		return &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: p}}
	case "release":
		return &fsmpb.Command{Op: &fsmpb.Command_Release{Release: &fsmpb.Release{ClientId: name, Epoch: epoch, PacketId: uint32(w.num("pid"))}}}
	case "progress":
		p := s.progressOf(w)
		p.ClientId, p.Epoch = name, epoch
		return &fsmpb.Command{Op: &fsmpb.Command_Progress{Progress: p}}
	case "relay":
		return &fsmpb.Command{Op: &fsmpb.Command_Relay{Relay: &fsmpb.Relay{Target: name, TargetIncarnation: s.inc[name], LinkSeq: w.num("seq"), Frame: []byte(w.args[2])}}}
	case "shared":
		d := &fsmpb.SharedDone{}
		ids := s.assignedIDs(w.args[1])
		for i, id := range ids {
			if w.flag("confirm") && (w.num("i") == 0 || w.num("i") == uint64(i+1)) {
				d.Confirmed = append(d.Confirmed, id)
			}
			if w.flag("claim") && (w.num("i") == 0 || w.num("i") == uint64(i+1)) {
				d.Claimed = append(d.Claimed, id)
			}
			if w.flag("return") && (w.num("i") == 0 || w.num("i") == uint64(i+1)) {
				d.Returned = append(d.Returned, id)
			}
		}
		return &fsmpb.Command{Op: &fsmpb.Command_SharedDone{SharedDone: d}}
	case "delete":
		if !strings.Contains(w.args[1], "@") {
			epoch = 0
		}
		return &fsmpb.Command{Op: &fsmpb.Command_DeleteSession{DeleteSession: &fsmpb.DeleteSession{ClientId: name, Epoch: epoch}}}
	}
	s.t.Fatalf("unknown command %v", w.args)
	return nil
}

// assignedIDs are the messages that wait for a node's clean members.
func (s *script) assignedIDs(node string) (ids []uint64) {
	s.replicas["n1"].assigned.rows.Scan(func(a assignment) bool {
		if a.inc == s.inc[node] {
			ids = append(ids, a.id)
		}
		return true
	})
	return ids
}

func (s *script) route(topic string) {
	r := s.replicas["n1"].Route(topic)
	names := func(refs []NodeRef) (out []string) {
		for _, n := range refs {
			out = append(out, n.Node)
		}
		return out
	}
	fmt.Fprintf(&s.out, "persistent=%d queueqos0=%v nodes=%v\n", r.Persistent, r.QueueQoS0, names(r.Nodes))
	for _, g := range r.Shared {
		fmt.Fprintf(&s.out, "  group=%s filter=%s persistent=%d nodes=%v\n", g.Group, g.Filter, g.Persistent, names(g.Nodes))
	}
}

func (s *script) show(client string) {
	f := s.replicas["n1"]
	i, ok := f.Session(client)
	if !ok {
		fmt.Fprintf(&s.out, "%s: none\n", client)
		return
	}
	fmt.Fprintf(&s.out, "%s: clean=%v owner=%s", s.name(client, i.Epoch), i.Clean, i.Owner.Node)
	v, ok := f.View(client)
	if !ok {
		fmt.Fprintln(&s.out)
		return
	}
	fmt.Fprintf(&s.out, " expiry=%d", v.Expiry)
	if i.ExpiresAt != 0 {
		fmt.Fprintf(&s.out, " expires=+%d", i.ExpiresAt-s.clock)
	}
	if i.WillAt != 0 {
		fmt.Fprintf(&s.out, " will=+%d", i.WillAt-s.clock)
	}
	fmt.Fprintf(&s.out, " cursor=%d last=%d mark=%d", v.Cursor, v.Last, v.Mark)
	if len(v.Done) > 0 {
		fmt.Fprintf(&s.out, " done=%v", v.Done)
	}
	if len(v.Received) > 0 {
		fmt.Fprintf(&s.out, " received=%v", v.Received)
	}
	if len(v.Inbound) > 0 {
		fmt.Fprintf(&s.out, " inbound=%v", v.Inbound)
	}
	fmt.Fprintln(&s.out)
	for _, e := range v.Queue {
		fmt.Fprintf(&s.out, "  %d %s %q qos=%d\n", e.Seq, e.Message.Topic, e.Message.Payload, e.QoS)
	}
}
