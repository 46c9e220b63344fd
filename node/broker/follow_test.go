package broker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/node/trace"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// watched is a cluster whose nodes tell what they do.
func watched(t *testing.T, change func(c *broker.Config), fn func(w *world, tracers []*trace.Tracer, events []*event.Log)) {
	var tracers []*trace.Tracer
	var events []*event.Log
	cluster(t, 2, func(c *broker.Config) {
		c.Tracer, c.Events = &trace.Tracer{}, event.New(100)
		tracers, events = append(tracers, c.Tracer), append(events, c.Events)
		if change != nil {
			change(c)
		}
	}, func(w *world) { fn(w, tracers, events) })
}

func taps(t *testing.T, tracers []*trace.Tracer, r trace.Rule) (list []*trace.Tap) {
	for _, tr := range tracers {
		tap, err := tr.Open(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tap.Close)
		list = append(list, tap)
	}
	return list
}

// seen are a node's steps since the last look, and what they are about must be one message.
func seen(t *testing.T, tap *trace.Tap) (list []string) {
	t.Helper()
	message := ""
	for len(tap.C) > 0 {
		s := <-tap.C
		if message == "" {
			message = s.Message
		}
		if s.Message != message || s.Topic == "" || s.Time == 0 {
			t.Errorf("%+v is not of message %s", s, message)
		}
		detail, _, _ := strings.Cut(s.Detail, ":")
		text := fmt.Sprintf("%s %s %s", s.Kind, s.Client, detail)
		if s.PacketID != 0 {
			text += fmt.Sprintf(" id=%d", s.PacketID)
		}
		if s.Index != 0 {
			text += " logged"
		}
		list = append(list, text)
	}
	return list
}

func wantSteps(t *testing.T, tap *trace.Tap, want ...string) {
	t.Helper()
	if got := seen(t, tap); !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// A message by the log, to a session on another node, one that is away, and a clean client.
func TestTraceByTheLog(t *testing.T) {
	watched(t, func(c *broker.Config) { c.MaxQueuedMessages = 1 }, func(w *world, tracers []*trace.Tracer, _ []*event.Log) {
		sub := w.connect(w.two, persistent("sub"))
		sub.subscribed("a/+:2")
		away := w.connect(w.two, persistent("away"))
		away.subscribed("a/b:1")
		away.send(&mqtt.Disconnect{})
		clean1 := w.connect(w.one, clean("near"))
		clean1.subscribed("a/#:0")
		pub := w.connect(w.one, clean("pub"))
		list := taps(t, tracers, trace.Rule{Filter: "a/#"})
		pub.send(&mqtt.Publish{Topic: []byte("other"), QoS: 1, PacketID: pub.next(), Payload: []byte("x")})
		pub.send(&mqtt.Publish{Topic: []byte("a/b"), QoS: 2, PacketID: pub.next(), Payload: []byte("x")})
		sub.send(&mqtt.Ack{Type: mqtt.PUBREC, PacketID: 1})
		sub.send(&mqtt.Ack{Type: mqtt.PUBCOMP, PacketID: 1})
		wantSteps(t, list[0], "received pub QoS 2, 1 bytes id=2", "authorised pub no access rules are set", "road pub log",
			"sent near at QoS 0 logged", "committed pub the publisher's acknowledgement is due logged",
			"stored pub for sessions that are not connected logged")
		defer func() { // its queue is full now
			pub.send(&mqtt.Publish{Topic: []byte("a/b"), QoS: 1, PacketID: pub.next(), Payload: []byte("y")})
			if got := seen(t, list[0]); !slices.Contains(got, "dropped pub queue_full, for sessions that are not connected logged") {
				t.Errorf("%q", got)
			}
		}()
		wantSteps(t, list[1], "queued sub number 1 of its session, 0 in flight, 0 wait before it logged", "sent sub at QoS 2 id=1 logged",
			"acknowledged sub PUBREC id=1", "acknowledged sub PUBCOMP id=1")
	})
}

// A message by the links, and one that is not allowed.
func TestTraceByTheLink(t *testing.T) {
	watched(t, nil, func(w *world, tracers []*trace.Tracer, _ []*event.Log) {
		sub := w.connect(w.two, clean("sub"))
		sub.subscribed("a:1")
		pub := w.connect(w.one, clean("pub"))
		list := taps(t, tracers, trace.Rule{Client: "pub"})
		pub.send(&mqtt.Publish{Topic: []byte("a"), QoS: 1, PacketID: pub.next()})
		sub.send(&mqtt.Ack{Type: mqtt.PUBACK, PacketID: 1})
		wantSteps(t, list[0], "received pub QoS 1, 0 bytes id=1", "authorised pub no access rules are set", "road pub link",
			"link pub to "+w.two.Ref().Node, "taken pub by every node it went to; the publisher's acknowledgement is due")
		wantSteps(t, list[1], "arrived pub by link from "+w.one.Ref().Node, "sent sub at QoS 1 id=1", "acknowledged sub PUBACK id=1")
		pub.send(&mqtt.Publish{Topic: []byte("$SYS/x"), QoS: 0})
		wantSteps(t, list[0], "received pub QoS 0, 0 bytes", "dropped pub not_allowed")
	})
}

// What a client went through is told, with why.
func TestEvents(t *testing.T) {
	watched(t, func(c *broker.Config) { c.DenySubscribe = []string{"secret/#"} }, func(w *world, _ []*trace.Tracer, events []*event.Log) {
		a := w.connect(w.one, persistent("a"))
		a.subscribe("x/+:1", "secret/#:0")
		a.send(&mqtt.Publish{Topic: []byte("$SYS/no"), QoS: 0})
		w.connect(w.two, persistent("a"))
		b := w.connect(w.two, clean("b"))
		b.send(&mqtt.Disconnect{})
		w.connect(w.two, clean("c")).Cut()
		a.Cut()
		b.Cut()
		w.Run()
		told := func(l *event.Log, client string) (list []string) {
			for _, e := range l.Last(100, func(e *event.Event) bool { return e.Client == client }) {
				text, _, _ := strings.Cut(e.Message, " from ")
				list = append(list, string(e.Kind)+" "+text)
			}
			return list
		}
		for _, test := range []struct {
			log    *event.Log
			client string
			want   []string
		}{
			{events[0], "a", []string{
				"connected with a new persistent session", "subscribed to x/+ at QoS 1", "subscribed refused: secret/# (not authorized)",
				"dropped a message was not delivered: not_allowed", "disconnected session taken over",
			}},
			{events[1], "a", []string{"connected with its stored session"}},
			{events[1], "b", []string{"connected with a clean session", "disconnected the client said goodbye"}},
		} {
			if got := told(test.log, test.client); !slices.Equal(got, test.want) {
				t.Errorf("%s: got %q", test.client, got)
			}
		}
		if got := told(events[1], "c"); len(got) != 2 || !strings.HasPrefix(got[1], "disconnected the connection broke") {
			t.Errorf("c: %q", got)
		}
		if got := told(events[0], ""); len(got) == 0 || got[0] != "node it is in service" {
			t.Errorf("the node: %q", got)
		}
	})
}
