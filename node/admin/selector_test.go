package admin

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

func TestSelector(t *testing.T) {
	c := &adminpb.Client{Id: "a", Node: "node1", Address: "10.0.0.7:4000", Protocol: 5, Persistent: true, Queued: 12, BytesIn: 7, Username: "ann"}
	for text, want := range map[string]bool{
		"": true, "node=node1": true, "node==node1": true, "node!=node1": false, "node=node2": false, "address~10.0.": true,
		"queued>11": true, "queued>12": false, "queued<13,node=node1": true, "queued<13,node=x": false, "bytes_in=7": true,
		"bytesIn = 7": true, "persistent=true": true, "username~nn, protocol=5": true, "username=": false, "id!=": true,
	} {
		s, err := parseSelector(text, c)
		if err != nil || s.takes(c) != want {
			t.Errorf("%q: %v %v", text, s.takes(c), err)
		}
	}
	for _, text := range []string{"node", "nonsense=1", "dropped=1", "queued>many", "node>1", ","} {
		if _, err := parseSelector(text, c); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A page holds the items that are selected, of all nodes, as many as asked for.
func TestSelectedPages(t *testing.T) {
	w := &world{
		sessions: []*adminpb.Session{{Id: "s1", Queued: 5}, {Id: "s2"}, {Id: "s3", Queued: 7}},
		subs:     []*adminpb.Subscription{{Client: "a", Filter: "x", Qos: 1}, {Client: "b", Filter: "y"}},
		retained: []*adminpb.Retained{{Topic: "a", Payload: []byte("on")}, {Topic: "b", Payload: []byte("off")}},
	}
	clients := cluster(t, w, &node{clients: []*adminpb.Client{{Id: "a", Protocol: 4}, {Id: "b", Protocol: 5}}},
		&node{clients: []*adminpb.Client{{Id: "c", Protocol: 5}, {Id: "d", Protocol: 3}}})
	c := clients[1]
	var got []string
	token := ""
	for range 10 {
		res, err := c.ListClients(t.Context(), &adminpb.ListClientsRequest{Page: &adminpb.Page{Size: 1, Token: token, Selector: "protocol=5"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range res.Clients {
			got = append(got, c.Id)
		}
		if token = res.NextToken; token == "" {
			break
		}
	}
	if !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("%q", got)
	}
	s, err := c.ListSessions(t.Context(), &adminpb.ListSessionsRequest{Page: &adminpb.Page{Size: 2, Selector: "queued>0"}})
	if err != nil || len(s.Sessions) != 2 || s.Sessions[1].Id != "s3" || s.NextToken != "" {
		t.Errorf("%v %v", s, err)
	}
	subs, err := c.ListSubscriptions(t.Context(), &adminpb.ListSubscriptionsRequest{Page: &adminpb.Page{Selector: "qos=1"}})
	if err != nil || len(subs.Subscriptions) != 1 {
		t.Errorf("%v %v", subs, err)
	}
	r, err := c.ListRetained(t.Context(), &adminpb.ListRetainedRequest{Page: &adminpb.Page{Selector: "size=3"}})
	if err != nil || len(r.Retained) != 1 || r.Retained[0].Topic != "b" {
		t.Errorf("%v %v", r, err)
	}
	n, err := c.ListNodes(t.Context(), &adminpb.ListNodesRequest{Page: &adminpb.Page{Selector: "role=leader"}})
	if err != nil || len(n.Nodes) != 1 || n.Nodes[0].Id != "node1" {
		t.Errorf("%v %v", n, err)
	}
	if _, err := c.ListSubscriptions(t.Context(), &adminpb.ListSubscriptionsRequest{Page: &adminpb.Page{Selector: "node=node1"}}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	if _, err := c.ListNodes(t.Context(), &adminpb.ListNodesRequest{Page: &adminpb.Page{Selector: "x=1"}}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}
