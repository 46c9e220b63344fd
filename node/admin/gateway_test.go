package admin

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/node/event"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

// gatewayOf is a node's service by HTTP; whom it names in the header X-Deny may do nothing.
func gatewayOf(t *testing.T, n *node) string {
	t.Helper()
	authorize := func(r *http.Request, method string, _ proto.Message) (func(error), error) {
		if r.Header.Get("X-Deny") != "" {
			return nil, status.Errorf(codes.PermissionDenied, "not %s", method)
		}
		return func(error) {}, nil
	}
	web := httptest.NewServer(n.server.Gateway(authorize))
	t.Cleanup(web.Close)
	return web.URL + GatewayPath
}

func TestGateway(t *testing.T) {
	one, two := &node{clients: []*adminpb.Client{{Id: "a", Queued: 7}}}, &node{clients: []*adminpb.Client{{Id: "b"}}}
	cluster(t, &world{}, one, two)
	base := gatewayOf(t, one)
	do := func(method, path, contentType, body string, header ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		for _, h := range header {
			r.Header.Set(h, "yes")
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	const js = "application/json"
	for _, test := range []struct {
		method, path, contentType, body string
		code                            int
		want                            string
	}{
		{"POST", "ListClients", js, `{"page":{"selector":"queued>1"}}`, 200, `"id":"a"`},
		{"POST", "ListClients", js, ``, 200, `"id":"b"`},
		{"GET", "ListClients?request=" + url.QueryEscape(`{"page":{"size":1}}`), "", "", 200, `"nextToken":"a"`},
		{"POST", "DescribeClient", js, `{"id":"nobody"}`, 404, `"code":"not_found"`},
		{"POST", "DescribeClient", js, `{"nonsense":1}`, 400, `"code":"invalid_argument"`},
		{"POST", "ListClients", "text/plain", `{}`, 400, `Content-Type`},
		{"GET", "CordonNode?request=" + url.QueryEscape(`{"node":"node1","on":true}`), "", "", 405, ""},
		{"DELETE", "ListNodes", js, "", 405, ""},
		{"POST", "Nothing", js, "{}", 501, `"unimplemented"`},
		{"POST", "Restore", js, "{}", 501, `"unimplemented"`},
		{"POST", "CordonNode", js, `{"node":"node2","on":true}`, 200, `"changed":true`},
		{"POST", "DrainNode", js, `{"node":"node2","dryRun":true}`, 200, `"done":true`},
		{"POST", "DrainNode", js, `{"node":"node9"}`, 404, `"not_found"`},
	} {
		if code, body := do(test.method, test.path, test.contentType, test.body); code != test.code || !strings.Contains(strings.ReplaceAll(body, `": `, `":`), test.want) {
			t.Errorf("%s %s %s: %d %s", test.method, test.path, test.body, code, body)
		}
	}
	if !two.cordoned || one.cordoned {
		t.Error("the wrong node is cordoned")
	}
	if code, body := do("POST", "DrainNode", js, `{"node":"node2"}`, "X-Deny"); code != 403 || !strings.Contains(body, "not /skein.admin.v1.Admin/DrainNode") || two.drains {
		t.Errorf("%d %s", code, body)
	}
}

// A stream comes as lines of JSON, or as server-sent events, one by one.
func TestGatewayStreams(t *testing.T) {
	one := &node{}
	cluster(t, &world{}, one)
	base := gatewayOf(t, one)
	for accept, prefix := range map[string]string{"text/event-stream": "data: {", "": "{"} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", base+"WatchEvents", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", accept)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		one.events.Add(event.Event{Message: "hello"}) // it may come before the watch begins
		lines := bufio.NewScanner(res.Body)
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					one.events.Add(event.Event{Message: "hello"})
				}
			}
		}()
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), prefix) || !strings.Contains(lines.Text(), "hello") {
			t.Errorf("%s: %s", accept, lines.Text())
		}
		close(stop)
		<-done
		res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}
