package broker

import (
	"testing"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/clusterpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// TestFramesFollowTheLog: what a connection published through the log is ahead of its frames on every
// node, also when this one has passed it long ago: another may not have, and would let a later frame
// overtake an earlier one that it holds.
func TestFramesFollowTheLog(t *testing.T) {
	l, nodes := newLone(t, nil, "n2")
	l.propose(nodes[0], interestOf("link", "", 1), func(fsm.Result, error) {})
	s := l.dial(&mqtt.Connect{Version: mqtt.V5, ClientID: "s", HasSessionExpiry: true, SessionExpiry: 60})
	s.subscribe("log", 1)
	l.settle()
	p := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "p"})
	var after []uint64
	send := func(to fsm.NodeRef, f *clusterpb.Frame, done clusterpb.LinkDone) bool {
		after = append(after, f.After)
		done.LinkDone(to.Node, clusterpb.LinkTaken)
		return true
	}
	l.onSend.Store(&send)
	p.publish("log", 1, 1)
	p.expect(mqtt.PUBACK) // this node has applied it
	for id := range uint16(2) {
		p.publish("link", 1, 2+id)
		p.expect(mqtt.PUBACK)
	}
	if len(after) != 2 || after[0] == 0 || after[1] != after[0] {
		t.Errorf("the frames follow commands %d of the log, want the publish's, twice", after)
	}
}

// TestFrameWaitsForTheLog: a frame is held until the log has passed what it follows, and what comes
// behind it waits, too.
func TestFrameWaitsForTheLog(t *testing.T) {
	l, nodes := newLone(t, nil, "n2")
	s := l.dial(&mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: "s"})
	s.subscribe("link", 1)
	l.settle()
	for _, payload := range []string{"one", "two"} {
		l.Deliver(nodes[0], &clusterpb.Frame{Topic: "link", Payload: []byte(payload), ClientID: "p", QoS: 1, Plain: true, After: 1})
	}
	if n := l.on("s").seen.messagesOut; n != 0 {
		t.Fatalf("%d messages left before the log had passed what they follow", n)
	}
	l.propose(nodes[0], &fsmpb.Command{Op: &fsmpb.Command_Publish{Publish: &fsmpb.Publish{Topic: "log", Qos: 1}}}, func(fsm.Result, error) {})
	l.settle()
	l.Deliver(nodes[0], &clusterpb.Frame{Topic: "link", Payload: []byte("three"), ClientID: "p", QoS: 1, Plain: true, After: 1})
	for _, want := range []string{"one", "two", "three"} {
		if got := string(s.expect(mqtt.PUBLISH)[2+len("link")+2+1:]); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}
