package admin

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// Any node puts the subscriptions of all together by filter and group, in pages.
func TestRoutes(t *testing.T) {
	w := &world{
		sessions: []*adminpb.Session{{Id: "away"}, {Id: "here", Node: "node1", Connected: true}},
		subs: []*adminpb.Subscription{
			{Client: "away", Filter: "a/#", Qos: 1, Persistent: true},
			{Client: "here", Filter: "a/#", Qos: 2, Persistent: true},
			{Client: "here", Filter: "q0", Persistent: true},
		},
	}
	clients := cluster(t, w,
		&node{subs: []*adminpb.Subscription{{Client: "m1", Filter: "a/b", Group: "g", Qos: 1}}},
		&node{subs: []*adminpb.Subscription{{Client: "c", Filter: "a/#", Qos: 1}, {Client: "m2", Filter: "a/b", Group: "g"}}},
	)
	const (
		all  = "a/# [node1 node2] 2+1 persistent 2 qos 2 logged true"
		g    = "a/b $g [node1 node2] 2+0 persistent 0 qos 1 logged false"
		zero = "q0 [node1] 1+0 persistent 1 qos 0 logged false"
	)
	for _, c := range clients {
		for _, test := range []struct {
			req  *adminpb.ListRoutesRequest
			want []string
		}{
			{&adminpb.ListRoutesRequest{}, []string{all, g, zero}},
			{&adminpb.ListRoutesRequest{Page: &adminpb.Page{Size: 1}}, []string{all, g, zero}},
			{&adminpb.ListRoutesRequest{Shared: true}, []string{g}},
			{&adminpb.ListRoutesRequest{Topic: "q0"}, []string{zero}},
			{&adminpb.ListRoutesRequest{Page: &adminpb.Page{Selector: "offline>0"}}, []string{all}},
		} {
			var got []string
			if test.req.Page == nil {
				test.req.Page = &adminpb.Page{}
			}
			for more := true; more; more = test.req.Page.Token != "" {
				res, err := c.ListRoutes(t.Context(), test.req)
				if err != nil || len(res.Missing) > 0 {
					t.Fatalf("%v %v", res, err)
				}
				for _, r := range res.Routes {
					name := r.Filter
					if r.Group != "" {
						name += " $" + r.Group
					}
					got = append(got, fmt.Sprintf("%s %v %d+%d persistent %d qos %d logged %v", name, r.Nodes, r.Clients, r.Offline, r.Persistent, r.Qos, r.Logged))
				}
				test.req.Page.Token = res.NextToken
			}
			test.req.Page.Token = ""
			if !slices.Equal(got, test.want) {
				t.Errorf("%v: got %q, want %q", test.req, got, test.want)
			}
		}
	}
	for _, req := range []*adminpb.ListRoutesRequest{
		{Topic: "a/#"}, {Page: &adminpb.Page{Size: 5001}}, {Page: &adminpb.Page{Selector: "nothing=1"}},
	} {
		if _, err := clients[0].ListRoutes(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", req, err)
		}
	}
}
