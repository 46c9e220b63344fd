package fsm

import (
	"fmt"
	"testing"
)

func TestBygoneForgetsTheOldest(t *testing.T) {
	var b bygone
	for i := range 2*maxBygone + 10 {
		b.add(fmt.Sprint("c", i), Epoch(i+1))
	}
	if len(b.epochs) != maxBygone || len(b.ring) != maxBygone {
		t.Fatalf("%d epochs, %d in the ring, want %d", len(b.epochs), len(b.ring), maxBygone)
	}
	last := 2*maxBygone + 9
	if e := b.epochs[fmt.Sprint("c", last)]; e != Epoch(last+1) {
		t.Errorf("the newest is %d", e)
	}
	if e, ok := b.epochs[fmt.Sprint("c", last-maxBygone)]; ok {
		t.Errorf("the oldest is still there: %d", e)
	}
}

func TestBygoneKeepsTheNewestOfAnID(t *testing.T) {
	var b bygone
	b.add("a", 1)
	b.add("a", 2)
	for i := range maxBygone - 1 { // pushes the first one out
		b.add(fmt.Sprint("c", i), Epoch(i+3))
	}
	if e := b.epochs["a"]; e != 2 {
		t.Errorf("a is at %d, want 2", e)
	}
}
