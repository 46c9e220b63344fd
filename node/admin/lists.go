package admin

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
	"github.com/skein-mqtt/skein/proto/topic"
)

func sortMissing(m []*adminpb.Missing) {
	slices.SortFunc(m, func(a, b *adminpb.Missing) int { return strings.Compare(a.Node, b.Node) })
}

// ListNodes implements the service.
func (s *Server) ListNodes(ctx context.Context, req *adminpb.ListNodesRequest) (*adminpb.ListNodesResponse, error) {
	size, err := pageSize(req.Page)
	if err != nil {
		return nil, err
	}
	sel, err := parseSelector(req.GetPage().GetSelector(), &adminpb.Node{})
	if err != nil {
		return nil, err
	}
	rows := s.cluster.Nodes()
	res := &adminpb.ListNodesResponse{}
	list := smallest[*adminpb.Node]{size: size, after: req.GetPage().GetToken(), key: (*adminpb.Node).GetId}
	own := func(row *adminpb.Node) *adminpb.Node {
		s.local.Node(row)
		return row
	}
	if req.GetPage().GetLocal() {
		for _, row := range rows {
			if row.Id == s.config.Self {
				list.add(own(row))
			}
		}
		res.Nodes, res.NextToken = list.page()
		return res, nil
	}
	answers, missing := gather(ctx, s, rows, func(ctx context.Context, c adminpb.AdminClient) (*adminpb.ListNodesResponse, error) {
		return c.ListNodes(ctx, &adminpb.ListNodesRequest{Page: &adminpb.Page{Local: true}})
	})
	res.Missing = missing
	for _, row := range rows {
		switch {
		case row.Id == s.config.Self:
			own(row)
		case row.Incarnation == 0 && row.State != stateUnknown:
			row.State = "down"
		default:
			row.State = stateUnknown
		}
		for _, a := range answers {
			if a.node.Id == row.Id && len(a.part.Nodes) == 1 {
				said := a.part.Nodes[0] // of itself; roles stay as the node that was asked sees them
				row.State, row.Reason, row.Clients = said.State, said.Reason, said.Clients
				row.Applied, row.Started, row.Version = said.Applied, said.Started, said.Version
				row.Received, row.Sent, row.BytesIn, row.Dropped = said.Received, said.Sent, said.BytesIn, said.Dropped
				row.Commits, row.CommitNano, row.Backlog = said.Commits, said.CommitNano, said.Backlog
			}
		}
		if sel.takes(row) {
			list.add(row)
		}
	}
	res.Nodes, res.NextToken = list.page()
	return res, nil
}

// ListClients implements the service.
func (s *Server) ListClients(ctx context.Context, req *adminpb.ListClientsRequest) (*adminpb.ListClientsResponse, error) {
	size, err := pageSize(req.Page)
	if err != nil {
		return nil, err
	}
	sel, err := parseSelector(req.GetPage().GetSelector(), &adminpb.Client{})
	if err != nil {
		return nil, err
	}
	after := req.GetPage().GetToken()
	list := smallest[*adminpb.Client]{size: size, after: after, key: (*adminpb.Client).GetId}
	if req.Node == "" || req.Node == s.config.Self {
		s.local.Clients(func(c *adminpb.Client) bool {
			c.Node = s.config.Self
			if sel.takes(c) {
				list.add(c)
			}
			return true
		})
	}
	res := &adminpb.ListClientsResponse{}
	if req.GetPage().GetLocal() {
		res.Clients, res.NextToken = list.page()
		return res, nil
	}
	nodes, err := s.only(req.Node)
	if err != nil {
		return nil, err
	}
	answers, missing := gather(ctx, s, nodes, func(ctx context.Context, c adminpb.AdminClient) (*adminpb.ListClientsResponse, error) {
		return c.ListClients(ctx, &adminpb.ListClientsRequest{Page: &adminpb.Page{Size: uint32(size), Token: after, Local: true, Selector: req.Page.GetSelector()}})
	})
	more := false
	for _, a := range answers {
		for _, c := range a.part.Clients {
			list.add(c)
		}
		more = more || a.part.NextToken != "" // its part is full then, so the cut is at or below its last
	}
	res.Missing = missing
	if len(missing) > 0 {
		silent := map[string]bool{}
		for _, m := range missing {
			silent[m.Node] = true
		}
		n := 0
		s.state.Clients(after, func(c *adminpb.Client) bool {
			if c.Partial = true; silent[c.Node] && sel.takes(c) {
				list.add(c)
				n++
			}
			return n <= size
		})
	}
	res.Clients, res.NextToken = list.page()
	if n := len(res.Clients); res.NextToken == "" && more && n > 0 {
		res.NextToken = res.Clients[n-1].Id
	}
	res.Clients = newest(res.Clients)
	return res, nil
}

// newest leaves one row per id: during a takeover two nodes may show the same client.
func newest(clients []*adminpb.Client) []*adminpb.Client {
	out := clients[:0]
	for _, c := range clients {
		if n := len(out); n > 0 && out[n-1].Id == c.Id {
			if c.Epoch > out[n-1].Epoch {
				out[n-1] = c
			}
			continue
		}
		out = append(out, c)
	}
	return out
}

// only is the members, or the one of that name.
func (s *Server) only(node string) ([]*adminpb.Node, error) {
	nodes := s.cluster.Nodes()
	if node == "" {
		return nodes, nil
	}
	for _, n := range nodes {
		if n.Id == node {
			return []*adminpb.Node{n}, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "no node %q", node)
}

// ListSessions implements the service. Every node has all sessions in its own memory.
func (s *Server) ListSessions(_ context.Context, req *adminpb.ListSessionsRequest) (*adminpb.ListSessionsResponse, error) {
	size, err := pageSize(req.Page)
	if err != nil {
		return nil, err
	}
	sel, err := parseSelector(req.GetPage().GetSelector(), &adminpb.Session{})
	if err != nil {
		return nil, err
	}
	res := &adminpb.ListSessionsResponse{}
	s.state.Sessions(req.GetPage().GetToken(), func(one *adminpb.Session) bool {
		if req.Node != "" && (one.Node != req.Node || !one.Connected) || !sel.takes(one) {
			return true
		}
		if len(res.Sessions) == size {
			res.NextToken = res.Sessions[size-1].Id
			return false
		}
		res.Sessions = append(res.Sessions, one)
		return true
	})
	return res, nil
}

// ListSubscriptions implements the service. Those of clean clients live on their nodes.
func (s *Server) ListSubscriptions(ctx context.Context, req *adminpb.ListSubscriptionsRequest) (*adminpb.ListSubscriptionsResponse, error) {
	size, err := pageSize(req.Page)
	if err != nil {
		return nil, err
	}
	if req.Topic != "" {
		if err := topic.ValidateName(req.Topic); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "topic: %v", err)
		}
	}
	sel, err := parseSelector(req.GetPage().GetSelector(), &adminpb.Subscription{}, "node")
	if err != nil {
		return nil, err
	}
	after := req.GetPage().GetToken()
	list := smallest[*adminpb.Subscription]{size: size, after: after, key: subscriptionKey}
	add := func(sub *adminpb.Subscription) bool {
		wanted := (req.Client == "" || sub.Client == req.Client) && (req.Topic == "" || topic.Match(sub.Filter, req.Topic)) && sel.takes(sub)
		if wanted {
			list.add(sub)
		}
		return wanted
	}
	s.local.Subscriptions(func(sub *adminpb.Subscription) bool {
		sub.Node = s.config.Self
		add(sub)
		return true
	})
	res := &adminpb.ListSubscriptionsResponse{}
	if req.GetPage().GetLocal() {
		res.Subscriptions, res.NextToken = list.page()
		return res, nil
	}
	answers, missing := gather(ctx, s, s.cluster.Nodes(), func(ctx context.Context, c adminpb.AdminClient) (*adminpb.ListSubscriptionsResponse, error) {
		return c.ListSubscriptions(ctx, &adminpb.ListSubscriptionsRequest{
			Page: &adminpb.Page{Size: uint32(size), Token: after, Local: true, Selector: req.Page.GetSelector()}, Client: req.Client, Topic: req.Topic,
		})
	})
	res.Missing = missing
	more := false
	for _, a := range answers {
		for _, sub := range a.part.Subscriptions {
			list.add(sub)
		}
		more = more || a.part.NextToken != ""
	}
	from, _, _ := strings.Cut(after, "\x00")
	if req.Client > from {
		from = req.Client
	}
	s.state.Subscriptions(from, fill(&list, req.Client, add))
	res.Subscriptions, res.NextToken = list.page()
	if n := len(res.Subscriptions); res.NextToken == "" && more && n > 0 {
		res.NextToken = subscriptionKey(res.Subscriptions[n-1])
	}
	for _, sub := range res.Subscriptions {
		if one, ok := s.state.Session(sub.Client); sub.Persistent && ok {
			sub.Node = one.Node
		}
	}
	return res, nil
}

// fill adds the log's subscriptions, which come by client id, until a whole page is sure: once it
// is full, no later client can have a smaller key.
func fill(list *smallest[*adminpb.Subscription], client string, add func(*adminpb.Subscription) bool) func(*adminpb.Subscription) bool {
	last, added := "", 0
	return func(sub *adminpb.Subscription) bool {
		if client != "" && sub.Client > client {
			return false
		}
		if sub.Client != last && added > list.size {
			return false
		}
		last = sub.Client
		if add(sub) && subscriptionKey(sub) > list.after {
			added++
		}
		return true
	}
}

// ListRetained implements the service.
func (s *Server) ListRetained(_ context.Context, req *adminpb.ListRetainedRequest) (*adminpb.ListRetainedResponse, error) {
	size, err := pageSize(req.Page)
	if err != nil {
		return nil, err
	}
	if req.Filter != "" {
		if err := topic.ValidateFilter(req.Filter); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "filter: %v", err)
		}
	}
	sel, err := parseSelector(req.GetPage().GetSelector(), &adminpb.Retained{})
	if err != nil {
		return nil, err
	}
	res := &adminpb.ListRetainedResponse{}
	held := 0
	s.state.Retained(req.Filter, req.GetPage().GetToken(), func(one *adminpb.Retained) bool {
		one.Size = uint64(len(one.Payload))
		if !sel.takes(one) {
			return true
		}
		if n := len(res.Retained); n == size || held > pageBytes {
			res.NextToken = res.Retained[n-1].Topic
			return false
		}
		if !req.Payload && len(one.Payload) > 64 {
			one.Payload = one.Payload[:64:64]
		}
		held += len(one.Payload) + len(one.Topic)
		res.Retained = append(res.Retained, one)
		return true
	})
	return res, nil
}
