package replica

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
)

var self = fsm.NodeRef{Node: "a", Incarnation: 7}

func sized(n int) *fsmpb.Command {
	return &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{Topic: "t", Payload: make([]byte, n)}}}
}

// batcher is a proposer with the bare minimum around it.
func batcher(t *testing.T, limit, window int) (*Replica, *proposer) {
	t.Helper()
	p := newProposer(limit, window)
	r := &Replica{proposer: p}
	r.Begin(self)
	return r, p
}

func add(t *testing.T, r *Replica, sizes ...int) {
	t.Helper()
	for _, n := range sizes {
		if r.Propose(sized(n), nil) == 0 {
			t.Fatal("refused")
		}
	}
}

func decode(t *testing.T, b *batch) *fsmpb.Batch {
	t.Helper()
	out := new(fsmpb.Batch)
	if err := out.UnmarshalVT(b.bytes); err != nil {
		t.Fatal(err)
	}
	if out.Origin != self.Node || out.Incarnation != self.Incarnation || out.First != b.first || len(out.Commands) != b.count {
		t.Fatalf("batch %+v of %d commands says %v", b.first, b.count, out)
	}
	if err := checkBatch(&clusterpb.ProposeRequest{Batch: b.bytes, First: b.first}); err != nil {
		t.Errorf("the leader would refuse it: %v", err)
	}
	return out
}

func TestBatchesGatherWhileOthersAreUnderWay(t *testing.T) {
	r, p := batcher(t, 1000, 2)
	if p.take() != nil {
		t.Error("a batch of nothing")
	}
	add(t, r, 10)
	first := p.take() // at once
	if first == nil || first.first != 1 || first.count != 1 {
		t.Fatalf("first batch %+v", first)
	}
	add(t, r, 10, 10)
	second := p.take()
	if second == nil || second.first != 2 || second.count != 2 {
		t.Fatalf("second batch %+v", second)
	}
	add(t, r, 10, 10, 10)
	if b := p.take(); b != nil {
		t.Fatalf("a third batch is under way: %+v", b)
	}
	p.passed(self, 1)
	third := p.take()
	if third == nil || third.first != 4 || third.count != 3 {
		t.Fatalf("third batch %+v", third)
	}
	for _, b := range []*batch{first, second, third} {
		decode(t, b)
	}
	p.passed(self, 6)
	if commands, size := r.Backlog(); commands != 6 || size != 0 { // results come before
		t.Errorf("backlog %d, %d", commands, size)
	}
}

func TestBatchesAreBounded(t *testing.T) {
	r, p := batcher(t, 1000, 100)
	add(t, r, 400, 400, 400, 5000, 100, 100)
	var counts []int
	var next uint64 = 1
	for b := p.take(); b != nil; b = p.take() {
		if len(b.bytes) > 1000 && b.count > 1 {
			t.Errorf("batch of %d bytes", len(b.bytes))
		}
		if b.first != next {
			t.Errorf("batch begins at %d, want %d", b.first, next)
		}
		next += uint64(b.count)
		counts = append(counts, b.count)
		decode(t, b)
	}
	if fmt.Sprint(counts) != "[2 1 1 2]" {
		t.Errorf("commands in batches: %v", counts)
	}
	for range batchCommands + 1 {
		if _, err := (&Replica{proposer: p}).proposer.add(sized(0), func(fsm.Result, error) {}); err != nil {
			t.Fatal(err)
		}
	}
	p.limit = 1 << 30
	p.rewind()
	for b := p.take(); b != nil; b = p.take() {
		if b.count > batchCommands {
			t.Errorf("batch of %d commands", b.count)
		}
	}
}

func TestBatchesAreSentAgainByteForByte(t *testing.T) {
	r, p := batcher(t, 100, 3)
	add(t, r, 50, 50, 50, 50)
	var sent [][]byte
	for b := p.take(); b != nil; b = p.take() {
		sent = append(sent, bytes.Clone(b.bytes))
	}
	if len(sent) != 3 {
		t.Fatalf("%d batches are under way", len(sent))
	}
	add(t, r, 1, 2, 3)
	again := func(from int) {
		t.Helper()
		for _, want := range sent[from:] {
			if b := p.take(); b == nil || !bytes.Equal(b.bytes, want) {
				t.Fatal("another batch is sent instead")
			}
		}
	}
	p.rewind()
	again(0)
	p.gap(self, 2)
	again(1)
	p.gap(fsm.NodeRef{Node: "a", Incarnation: 6}, 1) // of a former life
	p.gap(self, 99)
	if p.take() != nil {
		t.Error("something is sent for no reason")
	}
	p.rewind()
	p.passed(self, 2) // on their way when the leader was lost, and committed all the same
	again(2)
	p.passed(fsm.NodeRef{Node: "a", Incarnation: 6}, 99)
	if _, size := r.Backlog(); size == 0 {
		t.Error("another incarnation's batches passed for ours")
	}
}

func TestResults(t *testing.T) {
	r, p := batcher(t, 1000, 2)
	var got []string
	for i := range 4 {
		r.Propose(sized(1), func(res fsm.Result, err error) { got = append(got, fmt.Sprint(i+1, res.Index, err)) })
	}
	result := func(ref fsm.NodeRef, seq, index uint64) {
		p.result(&fsm.Effect{Kind: fsm.EffectResult, Node: ref, Sequence: seq, Result: &fsm.Result{Index: index}})
	}
	result(fsm.NodeRef{Node: "a", Incarnation: 3}, 1, 5)
	result(self, 1, 10)
	result(self, 1, 10)
	result(self, 3, 11) // the snapshot held the second
	result(self, 9, 11)
	end := errors.New("over")
	r.End(end)
	result(self, 4, 12)
	if want := "[1 10 <nil> 3 11 <nil> 2 0 over 4 0 over]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	r.Begin(fsm.NodeRef{Node: "a", Incarnation: 8})
	if seq := r.Propose(sized(1), nil); seq != 1 {
		t.Errorf("the next incarnation begins at %d", seq)
	}
}

func TestCheckBatch(t *testing.T) {
	whole, err := (&fsmpb.Batch{Origin: "a", Incarnation: 1, First: 5, Commands: []*fsmpb.Command{sized(3)}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	empty, _ := (&fsmpb.Batch{Origin: "a", Incarnation: 1, First: 5}).MarshalVT()
	for name, req := range map[string]*clusterpb.ProposeRequest{
		"another group": {Batch: whole, First: 5, Group: 1},
		"another first": {Batch: whole, First: 6},
		"empty":         {Batch: empty, First: 5},
		"cut short":     {Batch: whole[:len(whole)-2], First: 5},
		"nothing":       {},
		"noise":         {Batch: []byte{0xff, 0xff, 0xff}, First: 5},
	} {
		if checkBatch(req) == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	if err := checkBatch(&clusterpb.ProposeRequest{Batch: whole, First: 5}); err != nil {
		t.Error(err)
	}
}

func BenchmarkPropose(b *testing.B) {
	p := newProposer(DefaultBatchBytes, DefaultWindow)
	r := &Replica{proposer: p}
	r.Begin(self)
	cmd, done := sized(256), func(fsm.Result, error) {}
	b.ReportAllocs()
	for i := range b.N {
		r.Propose(cmd, done)
		if i%1000 == 999 {
			for t := p.take(); t != nil; t = p.take() {
				p.passed(self, t.last())
			}
			r.End(nil)
			r.Begin(self)
		}
	}
}
