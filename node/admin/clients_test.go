package admin

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// Asked on any node, everything about one client comes together.
func TestDescribeClient(t *testing.T) {
	w := &world{
		sessions: []*adminpb.Session{{Id: "a", Node: "node2"}, {Id: "lossy"}},
		subs:     []*adminpb.Subscription{{Client: "a", Filter: "x", Persistent: true}, {Client: "b", Filter: "y"}},
	}
	clients := cluster(t, w, &node{}, &node{
		clients: []*adminpb.Client{{Id: "a", Inflight: 3}, {Id: "clean"}},
		subs:    []*adminpb.Subscription{{Client: "clean", Filter: "z"}},
	})
	for _, c := range clients {
		a, err := c.DescribeClient(t.Context(), &adminpb.DescribeClientRequest{Id: "a"})
		if err != nil || a.Client.GetNode() != "node2" || a.Client.GetInflight() != 3 || a.Session.GetId() != "a" ||
			len(a.Subscriptions) != 1 || a.Subscriptions[0].Node != "node2" {
			t.Errorf("a: %v %v", a, err)
		}
		clean, err := c.DescribeClient(t.Context(), &adminpb.DescribeClientRequest{Id: "clean"})
		if err != nil || clean.Session != nil || len(clean.Subscriptions) != 1 || clean.Client.GetNode() != "node2" {
			t.Errorf("clean: %v %v", clean, err)
		}
		lossy, err := c.DescribeClient(t.Context(), &adminpb.DescribeClientRequest{Id: "lossy"})
		if err != nil || lossy.Dropped["expired"] != 2 || lossy.Dropped["node1"] != 2 || lossy.Dropped["node2"] != 2 {
			t.Errorf("lossy: %v %v", lossy, err)
		}
		for id, want := range map[string]codes.Code{"nobody": codes.NotFound, "": codes.InvalidArgument} {
			if _, err := c.DescribeClient(t.Context(), &adminpb.DescribeClientRequest{Id: id}); status.Code(err) != want {
				t.Errorf("%q: %v", id, err)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	w := &world{
		sessions: []*adminpb.Session{{Id: "away"}, {Id: "here", Node: "node1", Connected: true}, {Id: "queues", QueueQos0: true}},
		subs: []*adminpb.Subscription{
			{Client: "away", Filter: "a/#", Qos: 1, Persistent: true},
			{Client: "here", Filter: "a/+", Qos: 2, Persistent: true},
			{Client: "other", Filter: "b", Qos: 2, Persistent: true},
			{Client: "queues", Filter: "a/b", Persistent: true},
		},
	}
	clients := cluster(t, w, &node{subs: []*adminpb.Subscription{
		{Client: "clean", Filter: "a/b", Qos: 1},
		{Client: "denied", Filter: "#"},
		{Client: "echo", Filter: "a/b", NoLocal: true},
		{Client: "member", Filter: "a/b", Group: "g", Qos: 1},
	}}, &node{})
	tell := func(qos uint32) string {
		res, err := clients[1].Explain(t.Context(), &adminpb.ExplainRequest{Topic: "a/b", Qos: qos, Publisher: "echo"})
		if err != nil {
			t.Fatal(err)
		}
		if res.Road != "link" || res.Reason != "asked for a/b" {
			t.Errorf("%s: %s", res.Road, res.Reason)
		}
		var lines []string
		for _, e := range res.Subscriptions {
			lines = append(lines, e.Subscription.Client+": "+e.Outcome)
			if e.Delivered == strings.HasPrefix(e.Outcome, "not delivered") {
				t.Errorf("%v", e)
			}
		}
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	if got, want := tell(1), `away: queued: it is offline
clean: delivered by node1
denied: not delivered: this node's access list forbids it (counted as not_allowed)
echo: not delivered: No Local, and it is the publisher
here: delivered by node1
member: delivered by node1, if it is chosen among the members of group g
queues: queued: it is offline`; got != want {
		t.Errorf("QoS 1:\n%s\nwant\n%s", got, want)
	}
	if got := tell(0); !strings.Contains(got, "away: not delivered: it is offline and QoS 0 is not queued") {
		t.Errorf("QoS 0:\n%s", got)
	}
	for user, refused := range map[string]bool{"ann": false, "eve": true} {
		res, err := clients[1].Explain(t.Context(), &adminpb.ExplainRequest{Topic: "a/b", Qos: 1, Publisher: "p", AsUser: true, Username: user})
		if err != nil || res.Refused != refused || res.Verdict != "user "+user+" as p" || len(res.Subscriptions) == 0 {
			t.Errorf("as %s: %v %v", user, res, err)
		}
		for _, e := range res.GetSubscriptions() {
			if refused && (e.Delivered || !strings.Contains(e.Outcome, "may not publish")) {
				t.Errorf("as %s: %v", user, e)
			}
		}
	}
	if _, err := clients[0].Explain(t.Context(), &adminpb.ExplainRequest{Topic: "a/#"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a filter: %v", err)
	}
}

func TestClientOrders(t *testing.T) {
	w := &world{sessions: []*adminpb.Session{{Id: "s"}}, retained: []*adminpb.Retained{{Topic: "r/1"}, {Topic: "r/2"}}}
	clients := cluster(t, w, &node{}, &node{clients: []*adminpb.Client{{Id: "there"}}})
	c := clients[0]
	if res, err := c.DisconnectClient(t.Context(), &adminpb.DisconnectClientRequest{Id: "there"}); err != nil || res.Node != "node2" {
		t.Errorf("disconnect: %v %v", res, err)
	}
	if _, err := c.DisconnectClient(t.Context(), &adminpb.DisconnectClientRequest{Id: "nowhere"}); status.Code(err) != codes.NotFound {
		t.Errorf("disconnect: %v", err)
	}
	if _, err := c.DeleteSession(t.Context(), &adminpb.DeleteSessionRequest{Id: "s"}); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := c.DeleteSession(t.Context(), &adminpb.DeleteSessionRequest{Id: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("delete: %v", err)
	}
	if res, err := c.DeleteRetained(t.Context(), &adminpb.DeleteRetainedRequest{Filter: "r/#"}); err != nil || res.Deleted != 2 {
		t.Errorf("delete retained: %v %v", res, err)
	}
	if res, err := c.Publish(t.Context(), &adminpb.PublishRequest{Topic: "p", Payload: []byte("x")}); err != nil || !res.Matched {
		t.Errorf("publish: %v %v", res, err)
	}
	want := []string{`r/1 retain=true ""`, `r/2 retain=true ""`, `p retain=false "x"`}
	if !slices.Equal(w.removed, want) {
		t.Errorf("published %q", w.removed)
	}
	for _, req := range []*adminpb.PublishRequest{{Topic: "+"}, {Topic: "a", Qos: 3}} {
		if _, err := c.Publish(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", req, err)
		}
	}
}
