package otlp

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/skein-mqtt/skein/node/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a collector.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	endpoint string

	mu   sync.Mutex
	list []*spans.Span
	from map[string]bool // instances
}

func newReceiver(t *testing.T) *receiver {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{endpoint: "http://" + l.Addr().String(), from: make(map[string]bool)}
	s := grpc.NewServer()
	collector.RegisterTraceServiceServer(s, r)
	var group sync.WaitGroup
	group.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		s.Stop()
		group.Wait()
	})
	return r
}

// Export implements the collector.
func (r *receiver) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		for _, a := range rs.Resource.Attributes {
			if a.Key == "service.instance.id" {
				r.from[a.Value.GetStringValue()] = true
			}
		}
		for _, ss := range rs.ScopeSpans {
			r.list = append(r.list, ss.Spans...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// one is the only span of that name.
func (r *receiver) one(t *testing.T, name string) *spans.Span {
	t.Helper()
	var found []*spans.Span
	for _, s := range r.list {
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans %q among %d", len(found), name, len(r.list))
	}
	return found[0]
}

func valueOf(s *spans.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return strings.Trim(fmt.Sprint(a.Value.GetStringValue(), " ", a.Value.GetIntValue()), " 0")
		}
	}
	return ""
}

// exported runs steps on nodes of their own, and waits until all of it is with the collector.
func exported(t *testing.T, sample float64, nodes ...func(*trace.Taps)) *receiver {
	t.Helper()
	r := newReceiver(t)
	for i, steps := range nodes {
		var tracer trace.Tracer
		e, err := Open(Config{Endpoint: r.endpoint, Sample: sample, Node: fmt.Sprintf("n%d", i+1), Tracer: &tracer, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		steps(tracer.Active())
		for len(e.tap.C) > 0 { // Run is told to end below, and would leave them
			s := <-e.tap.C
			e.assembly.step(&s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		e.Run(ctx)
		if tracer.Active() != nil {
			t.Error("it still follows messages")
		}
	}
	return r
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func property(value string) []byte {
	b := []byte{0x26, 0, 11}
	b = append(b, "traceparent"...)
	b = append(b, 0, byte(len(value)))
	return append(b, value...)
}

// A message goes by the log: the spans of both nodes are one trace, though no node told the other.
func TestByLog(t *testing.T) {
	for _, props := range [][]byte{nil, property(parent)} {
		m := trace.Subject{Publisher: "pub", Topic: "a/b", Payload: []byte("x"), QoS: 1, Props: props}
		sample := 1.0
		if props != nil {
			sample = 0 // the publisher wants it
		}
		r := exported(t, sample, func(taps *trace.Taps) {
			taps.Step(&m, "received", "pub", trace.Step{PacketID: 5, Detail: "QoS 1, 1 bytes"})
			taps.Step(&m, "held", "pub", trace.Step{Detail: "the node has no lease"})
			taps.Step(&m, "road", "pub", trace.Step{Detail: "log: why"})
			taps.Step(&m, "committed", "pub", trace.Step{Index: 7, Took: 1000})
		}, func(taps *trace.Taps) {
			taps.Step(&m, trace.Sent, "sub", trace.Step{Index: 7, PacketID: 1})
			taps.Acknowledged("sub", 1, "PUBREC", false)
			taps.Acknowledged("sub", 1, "PUBCOMP", true)
			taps.Step(&m, "dropped", "full", trace.Step{Index: 7, Detail: "queue_full"})
		})
		received, commit := r.one(t, "received"), r.one(t, "commit")
		if !r.from["n1"] || !r.from["n2"] || len(r.list) != 4 {
			t.Fatalf("%d spans of %v", len(r.list), r.from)
		}
		for _, s := range r.list {
			if string(s.TraceId) != string(received.TraceId) {
				t.Errorf("%s is of another trace", s.Name)
			}
			if s != received && string(s.ParentSpanId) != string(received.SpanId) {
				t.Errorf("%s does not hang on the arrival", s.Name)
			}
			if s.EndTimeUnixNano < s.StartTimeUnixNano {
				t.Errorf("%s ends before it begins", s.Name)
			}
		}
		if commit.EndTimeUnixNano-commit.StartTimeUnixNano != 1000 || valueOf(commit, "skein.log.index") != "7" {
			t.Errorf("commit: %v", commit)
		}
		if valueOf(received, "messaging.destination.name") != "a/b" || valueOf(received, "skein.road") != "log: why" || len(received.Events) != 1 {
			t.Errorf("received: %v", received)
		}
		trace, above := hex.EncodeToString(received.TraceId), hex.EncodeToString(received.ParentSpanId)
		if props != nil && (trace != parent[3:35] || above != parent[36:52]) || props == nil && above != "" {
			t.Errorf("trace %s, parent %q", trace, above)
		}
		i := slices.IndexFunc(r.list, func(s *spans.Span) bool { return valueOf(s, "messaging.client.id") == "full" })
		if r.list[i].Status.GetMessage() != "queue_full" {
			t.Errorf("lost: %v", r.list[i])
		}
	}
}

// Without a context the other node does not know of what trace a message by link is; with one it does.
func TestByLink(t *testing.T) {
	for text, want := range map[string]int{"": 3, parent: 4, strings.TrimSuffix(parent, "1") + "0": 0, "00-no-context-01": 3} {
		m := trace.Subject{Publisher: "pub", Topic: "a", Payload: []byte("x")}
		if text != "" {
			m.Props = append([]byte{1, 1, 8, 0, 1, 'r'}, property(text)...) // behind others
		}
		r := exported(t, 1, func(taps *trace.Taps) {
			taps.Step(&m, "received", "pub", trace.Step{})
			taps.Step(&m, "road", "pub", trace.Step{Detail: "link: why"})
			taps.Step(&m, trace.Sent, "here", trace.Step{})
			taps.Step(&m, "taken", "pub", trace.Step{Took: 5})
		}, func(taps *trace.Taps) {
			taps.Step(&m, "arrived", "pub", trace.Step{})
			taps.Step(&m, trace.Sent, "there", trace.Step{})
		})
		if len(r.list) != want {
			t.Errorf("%q: %d spans, want %d", text, len(r.list), want)
		}
		for _, s := range r.list {
			if received := r.one(t, "received"); string(s.TraceId) != string(received.TraceId) {
				t.Errorf("%s is of another trace", s.Name)
			}
		}
	}
}

// What does not come is not waited for, and what is refused says so.
func TestUnfinished(t *testing.T) {
	m := trace.Subject{Publisher: "pub", Topic: "a", Payload: []byte("x"), QoS: 1}
	refused := trace.Subject{Publisher: "pub", Topic: "secret", QoS: 1}
	r := exported(t, 1, func(taps *trace.Taps) {
		taps.Step(&m, "received", "pub", trace.Step{})
		taps.Step(&m, "road", "pub", trace.Step{Detail: "log: why"})
		taps.Step(&m, trace.Sent, "sub", trace.Step{Index: 3, PacketID: 1})
		taps.Step(&refused, "received", "pub", trace.Step{})
		taps.Step(&refused, "dropped", "pub", trace.Step{Detail: "not_allowed"})
	})
	var got []string
	for _, s := range r.list {
		got = append(got, s.Name+" "+valueOf(s, "messaging.destination.name")+" "+valueOf(s, "skein.road")+": "+s.Status.GetMessage())
	}
	slices.Sort(got)
	want := []string{
		"delivered a : it was not acknowledged in time", "received a log: why: it was not committed in time", "received secret none: not_allowed: ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A part of the messages is followed; none with 0.
func TestSampling(t *testing.T) {
	for _, test := range []struct{ sample, least, most float64 }{{0, 0, 0}, {0.5, 300, 700}, {1, 1000, 1000}} {
		choose := choice(test.sample)
		n := 0.0
		for i := range 1000 {
			s := trace.Subject{Publisher: "pub", Topic: "a", Payload: fmt.Append(nil, i)}
			if _, ok := choose(&s, s.ID()); ok {
				n++
			}
		}
		if n < test.least || n > test.most {
			t.Errorf("%v of 1000 at %v", n, test.sample)
		}
	}
}

// text is written and read by several goroutines.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

// Write implements io.Writer.
func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(p)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

// A collector that is not there costs the spans, and is told of.
func TestCollectorAway(t *testing.T) {
	var tracer trace.Tracer
	var said text
	e, err := Open(Config{Endpoint: "http://127.0.0.1:1", Sample: 1, Node: "n1", Tracer: &tracer, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	m := trace.Subject{Publisher: "pub", Topic: "a"}
	tracer.Active().Step(&m, "received", "pub", trace.Step{})
	for len(e.tap.C) > 0 {
		s := <-e.tap.C
		e.assembly.step(&s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e.Run(ctx)
	if !strings.Contains(said.String(), "127.0.0.1:1") {
		t.Errorf("it says %q", said.String())
	}
}

func TestContext(t *testing.T) {
	for _, text := range []string{
		"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", strings.ToUpper(parent), "ff" + parent[2:], parent + "-more",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", parent[:54] + "g",
	} {
		if _, ok := parseContext(text); ok {
			t.Errorf("%q is taken", text)
		}
	}
	if c, ok := parseContext("01" + parent[2:] + "-of-the-future"); !ok || !c.IsSampled() {
		t.Error("a later version is not taken")
	}
}
