package e2e

import (
	"fmt"
	"strings"
	"testing"

	h "github.com/skein-mqtt/skein/test/harness"
)

// TestMemoryLimit: a node whose memory is full of what it must keep refuses to take more, says so, and goes on when there is
// room again.
func TestMemoryLimit(t *testing.T) {
	beside(t)
	n, _ := one(t, "memory.limit=64MiB", "memory.policy=refuse")
	if limit := n.Metric("skein_memory_limit_bytes"); limit != 64<<20 {
		t.Fatalf("the limit is %.0f", limit)
	}
	pub := clean(t, n, "pub", h.V5)
	large := strings.Repeat("x", 512<<10)
	send := func(topic, payload string) byte {
		t.Helper()
		pub.MustSend(h.Packet{Type: h.PUBLISH, Topic: topic, Payload: payload, QoS: 1, ID: 1, Retain: true})
		return pub.Await(h.PUBACK).Code
	}
	// Garbage comes and goes, so the collector has to have looked before the node knows what it holds.
	kept := 0
	for ; send(fmt.Sprint("kept/", kept), large) != 0x97; kept++ {
		if kept > 200 {
			t.Fatal("twice the limit is retained")
		}
	}
	if kept < 20 {
		t.Errorf("the node holds no more than %d of half a MiB", kept)
	}
	h.Await(t, "the verdict", func() bool { return n.Metric("skein_memory_tight") == 1 })
	if hits, live := n.Metric(`skein_limit_hits_total{limit="memory.limit"}`), n.Metric("skein_memory_live_bytes"); hits < 1 || live < 40<<20 {
		t.Errorf("counted %.0f times, %.0f bytes live", hits, live)
	}
	old := clean(t, n, "old", h.V311) // it may come, and is told what is retained, but not publish
	old.MustSend(h.Packet{Type: h.PUBLISH, Topic: "t", Payload: "x", QoS: 1, ID: 1})
	old.ExpectClosed()
	for i := range kept {
		if code := send(fmt.Sprint("kept/", i), ""); code != 0 && code != 0x10 {
			t.Fatalf("deleting what is retained: %#02x", code)
		}
	}
	h.Await(t, "room again", func() bool { return n.Metric("skein_memory_tight") == 0 })
	if code := send("kept/0", "small"); code != 0 && code != 0x10 {
		t.Errorf("with room again: %#02x", code)
	}
}

// TestMemoryPause: beyond it, where that is the policy, who publishes waits, and goes on when there is room.
func TestMemoryPause(t *testing.T) {
	beside(t)
	n, hit := one(t, "memory.limit=64MiB", "memory.policy=pause")
	pub, deleter := clean(t, n, "pub", h.V5), clean(t, n, "deleter", h.V5)
	large := strings.Repeat("x", 512<<10)
	kept := 0
	for tight := false; !tight; kept++ {
		if kept > 200 {
			t.Fatal("twice the limit is retained")
		}
		pub.MustSend(h.Packet{Type: h.PUBLISH, Topic: fmt.Sprint("kept/", kept), Payload: large, QoS: 1, ID: 1, Retain: true})
		for acked := false; !acked && !tight; {
			_, err := pub.Next(quiet)
			acked, tight = err == nil, err != nil && n.Metric("skein_memory_tight") == 1
		}
	}
	pub.ExpectNothing(quiet)
	if hit("memory.limit") == 0 {
		t.Error("the limit is not counted")
	}
	for i := range kept {
		deleter.MustSend(h.Packet{Type: h.PUBLISH, Topic: fmt.Sprint("kept/", i), QoS: 1, ID: 1, Retain: true})
		deleter.Await(h.PUBACK)
	}
	if ack := pub.Await(h.PUBACK); ack.Code != 0 && ack.Code != 0x10 {
		t.Errorf("with room again: %s", ack)
	}
}

// TestMemoryOfTheMachine: without a limit it is so much of what the machine, or the control group, has.
func TestMemoryOfTheMachine(t *testing.T) {
	beside(t)
	n, hit := one(t, "memory.limit_percent=1", "memory.policy=refuse")
	limit := n.Metric("skein_memory_limit_bytes")
	if limit <= 0 {
		t.Fatalf("the limit is %.0f", limit)
	}
	if limit > float64(heavy(0, 400<<20)) {
		t.Skipf("filling %.0f MiB is left to the long run, and to smaller machines", limit/(1<<20))
	}
	pub := clean(t, n, "pub", h.V5)
	large := strings.Repeat("x", 512<<10)
	for i := 0; ; i++ {
		if i > int(limit)>>18 {
			t.Fatal("twice the limit is retained")
		}
		pub.MustSend(h.Packet{Type: h.PUBLISH, Topic: fmt.Sprint("kept/", i), Payload: large, QoS: 1, ID: 1, Retain: true})
		if ack := pub.Await(h.PUBACK); ack.Code == 0x97 {
			break
		}
	}
	if hit("memory.limit") == 0 {
		t.Error("the limit is not counted")
	}
}
