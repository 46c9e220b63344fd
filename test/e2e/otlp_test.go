package e2e

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	h "github.com/skein-mqtt/skein/test/harness"
)

// spanCollector takes the spans that the nodes export: by trace, each as NODE/NAME/PARENT.
type spanCollector struct {
	collector.UnimplementedTraceServiceServer

	mu    sync.Mutex
	spans map[string][]string
}

// Export implements the collector.
func (c *spanCollector) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range req.ResourceSpans {
		node := ""
		for _, a := range r.Resource.Attributes {
			if a.Key == "service.instance.id" {
				node = a.Value.GetStringValue()
			}
		}
		for _, s := range r.ScopeSpans {
			for _, span := range s.Spans {
				id := hex.EncodeToString(span.TraceId)
				c.spans[id] = append(c.spans[id], node+"/"+span.Name+"/"+hex.EncodeToString(span.ParentSpanId))
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// trace is what came of a trace, sorted; only are the names without the parents.
func (c *spanCollector) trace(id string) (list, only []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list = slices.Clone(c.spans[id])
	slices.Sort(list)
	for _, s := range list {
		only = append(only, s[:strings.LastIndexByte(s, '/')])
	}
	return list, only
}

// A publisher's trace goes on through the cluster, by the log and by the links: its arrival, its commit or its way
// over the link, and each delivery on its node. What says that it is not to be traced, or nothing, is not.
func TestTracesAreExported(t *testing.T) {
	beside(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	spans := &spanCollector{spans: make(map[string][]string)}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, spans)
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		server.Stop()
		group.Wait()
	})
	c := h.Start(t, 3, append(slices.Clone(flags), "--otlp-endpoint", "http://"+l.Addr().String(), "--otlp-sample", "0")...)
	kept := stored(t, c.Node(2), "kept", h.V5)
	kept.Subscribe(2, "log")
	passing := clean(t, c.Node(3), "passing", h.V311)
	passing.Subscribe(1, "link")
	pub := clean(t, c.Node(1), "pub", h.V5)
	publish := func(topic, id, flags string) {
		props := []h.Property{{ID: 0x26, Text: "other", Value: "x"}}
		if id != "" {
			props = append(props, h.Property{ID: 0x26, Text: "traceparent", Value: "00-" + id + "-b7ad6b7169203331-" + flags})
		}
		pub.MustSend(h.Packet{Type: h.PUBLISH, Topic: topic, Payload: id, QoS: 1, ID: 9, Props: props})
		pub.Await(h.PUBACK)
	}
	byLog, byLink, unwanted := strings.Repeat("1", 32), strings.Repeat("2", 32), strings.Repeat("3", 32)
	publish("log", unwanted, "00")
	publish("log", "", "")
	publish("log", byLog, "01")
	publish("link", byLink, "01")
	kept.Receive(3)
	passing.Receive(1)
	kept.Ping() // its acknowledgements have been read
	passing.Ping()
	for id, want := range map[string][]string{
		byLog:  {"node1/commit", "node1/received", "node2/delivered"},
		byLink: {"node1/link", "node1/received", "node3/delivered"},
	} {
		c.Await("the spans of a trace", func() bool {
			_, got := spans.trace(id)
			return slices.Equal(got, want)
		})
		list, _ := spans.trace(id)
		parents := make(map[string]string)
		for _, s := range list {
			parts := strings.Split(s, "/")
			parents[parts[1]] = parts[2]
		}
		if parents["received"] != "b7ad6b7169203331" || parents["delivered"] == "" || parents["delivered"] != parents[strings.Split(list[0], "/")[1]] {
			t.Errorf("parents: %v", parents)
		}
	}
	if spans.mu.Lock(); len(spans.spans) != 2 {
		t.Errorf("%d traces: %v", len(spans.spans), spans.spans)
	}
	spans.mu.Unlock()
}
