package admin

import (
	"context"
	"slices"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

func routeKey(r *adminpb.Route) string { return r.Filter + "\x00" + r.Group }

// ListRoutes implements the service. Routes are the subscriptions of the whole cluster, put together by filter.
func (s *Server) ListRoutes(ctx context.Context, req *adminpb.ListRoutesRequest) (*adminpb.ListRoutesResponse, error) {
	size, err := pageSize(req.Page)
	if err != nil {
		return nil, err
	}
	sel, err := parseSelector(req.GetPage().GetSelector(), &adminpb.Route{})
	if err != nil {
		return nil, err
	}
	res := &adminpb.ListRoutesResponse{}
	after := req.GetPage().GetToken()
	routes := make(map[string]*adminpb.Route)
	page := &adminpb.Page{Size: largestPage, Local: req.GetPage().GetLocal()}
	for more := true; more; more = page.Token != "" {
		list, err := s.ListSubscriptions(ctx, &adminpb.ListSubscriptionsRequest{Page: page, Topic: req.Topic})
		if err != nil {
			return nil, err
		}
		for _, sub := range list.Subscriptions {
			one := &adminpb.Route{Filter: sub.Filter, Group: sub.Group}
			key := routeKey(one)
			if key <= after || req.Shared && sub.Group == "" {
				continue
			}
			if known := routes[key]; known != nil {
				one = known
			}
			routes[key] = one
			addSubscription(one, sub)
		}
		res.Missing, page.Token = list.Missing, list.NextToken
	}
	list := smallest[*adminpb.Route]{size: size, after: after, key: routeKey}
	for _, one := range routes { // in any order: it is sorted
		slices.Sort(one.Nodes)
		if sel.takes(one) {
			list.add(one)
		}
	}
	res.Routes, res.NextToken = list.page()
	return res, nil
}

func addSubscription(r *adminpb.Route, sub *adminpb.Subscription) {
	r.Qos = max(r.Qos, sub.Qos)
	if sub.Persistent {
		r.Persistent++
		r.Logged = r.Logged || sub.Qos > 0
	}
	if sub.Node == "" {
		r.Offline++
		return
	}
	r.Clients++
	if !slices.Contains(r.Nodes, sub.Node) {
		r.Nodes = append(r.Nodes, sub.Node)
	}
}
