package admin

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

func bySetting(list []*adminpb.Setting) {
	slices.SortFunc(list, func(a, b *adminpb.Setting) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Node, b.Node)) })
}

// ListSettings implements the service.
func (s *Server) ListSettings(ctx context.Context, req *adminpb.ListSettingsRequest) (*adminpb.ListSettingsResponse, error) {
	res := &adminpb.ListSettingsResponse{}
	if req.Node == "" || req.Node == s.config.Self {
		res.Settings = s.local.Settings(req.Prefix)
	}
	if req.Local {
		return res, nil
	}
	nodes, err := s.only(req.Node)
	if err != nil {
		return nil, err
	}
	answers, missing := gather(ctx, s, nodes, func(ctx context.Context, c adminpb.AdminClient) (*adminpb.ListSettingsResponse, error) {
		return c.ListSettings(ctx, &adminpb.ListSettingsRequest{Prefix: req.Prefix, Local: true})
	})
	res.Missing = missing
	for _, a := range answers {
		res.Settings = append(res.Settings, a.part.Settings...)
	}
	bySetting(res.Settings)
	return res, nil
}

// SetSetting implements the service. What this node refuses is changed nowhere.
func (s *Server) SetSetting(ctx context.Context, req *adminpb.SetSettingRequest) (*adminpb.SetSettingResponse, error) {
	nodes, err := s.only(req.Node)
	if err != nil {
		return nil, err
	}
	here := req.Local || req.Node == "" || req.Node == s.config.Self
	one, err := s.local.Set(req.Key, req.Value, req.DryRun || !here) // also where it is not meant: to find mistakes
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	res := &adminpb.SetSettingResponse{}
	if here {
		res.Settings = append(res.Settings, one)
		if !req.DryRun {
			s.order("", req.Key+" was set to "+one.Value+" by an operator")
			s.logger.Warn("a setting was changed by an operator", "key", req.Key, "value", one.Value)
		}
	}
	if req.Local {
		return res, nil
	}
	answers, missing := gather(ctx, s, nodes, func(ctx context.Context, c adminpb.AdminClient) (*adminpb.SetSettingResponse, error) {
		return c.SetSetting(ctx, &adminpb.SetSettingRequest{Key: req.Key, Value: req.Value, DryRun: req.DryRun, Local: true})
	})
	res.Missing = missing
	for _, a := range answers {
		res.Settings = append(res.Settings, a.part.Settings...)
	}
	bySetting(res.Settings)
	return res, nil
}

// CordonNode implements the service.
func (s *Server) CordonNode(ctx context.Context, req *adminpb.CordonNodeRequest) (*adminpb.CordonNodeResponse, error) {
	if _, err := s.find(req.Node); err != nil {
		return nil, err
	}
	if req.Node != s.config.Self {
		return onNode(ctx, s, req.Node, func(ctx context.Context, c adminpb.AdminClient) (*adminpb.CordonNodeResponse, error) {
			return c.CordonNode(ctx, req)
		})
	}
	changed, err := s.local.Cordon(req.On, req.DryRun)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &adminpb.CordonNodeResponse{Changed: changed}, nil
}

const (
	defaultShedRate  = 10
	defaultTolerance = 10 // percent
)

// Rebalance implements the service.
func (s *Server) Rebalance(req *adminpb.RebalanceRequest, stream grpc.ServerStreamingServer[adminpb.RebalanceProgress]) error {
	if req.Rate == 0 {
		req.Rate = defaultShedRate
	}
	if req.TolerancePercent == 0 {
		req.TolerancePercent = defaultTolerance
	}
	if req.Local {
		return s.shed(req, stream)
	}
	list, err := s.ListNodes(stream.Context(), &adminpb.ListNodesRequest{})
	if err != nil {
		return err
	}
	for _, m := range list.Missing {
		return status.Errorf(codes.Unavailable, "%s did not say how many clients it has: %s", m.Node, m.Reason)
	}
	var out following[adminpb.RebalanceProgress]
	out.out = stream.Send
	for _, p := range excess(list.Nodes, uint64(req.TolerancePercent)) {
		if req.DryRun || p.Total == 0 {
			p.Done = true
			if err := stream.Send(p); err != nil {
				return err
			}
			continue
		}
		out.group.Go(func() {
			if err := s.shedOn(stream.Context(), req, p, out.send); err != nil {
				out.mu.Lock()
				defer out.mu.Unlock()
				out.failed = cmp.Or(out.failed, err)
			}
		})
	}
	out.group.Wait()
	return out.failed
}

// excess is what each of the nodes in service has too much.
func excess(nodes []*adminpb.Node, tolerance uint64) (list []*adminpb.RebalanceProgress) {
	var clients, ready uint64
	for _, n := range nodes {
		if n.State == "ready" {
			clients += n.Clients
			ready++
		}
	}
	for _, n := range nodes {
		if n.State != "ready" {
			continue
		}
		p := &adminpb.RebalanceProgress{Node: n.Id, Clients: n.Clients, Share: (clients + ready - 1) / ready}
		if n.Clients > p.Share+p.Share*tolerance/100 {
			p.Total = n.Clients - p.Share
			p.Left = p.Total
		}
		list = append(list, p)
	}
	return list
}

// shedOn has one node let its excess go, and reports how far it is.
func (s *Server) shedOn(ctx context.Context, req *adminpb.RebalanceRequest, p *adminpb.RebalanceProgress, send func(*adminpb.RebalanceProgress) error) error {
	report := func(left uint64, done bool) error {
		return send(&adminpb.RebalanceProgress{Node: p.Node, Clients: p.Clients, Share: p.Share, Total: p.Total, Left: left, Done: done})
	}
	local := &adminpb.RebalanceRequest{Rate: req.Rate, Local: true, Count: p.Total}
	if p.Node == s.config.Self {
		var failed error
		s.local.Shed(ctx, int(p.Total), int(req.Rate), func(_, left int) {
			failed = cmp.Or(failed, report(uint64(left), false))
		})
		return cmp.Or(failed, ctx.Err(), report(0, true))
	}
	client, out, err := s.forward(ctx, func(n *adminpb.Node) bool { return n.Id == p.Node })
	if err != nil {
		return err
	}
	in, err := client.Rebalance(out, local)
	for err == nil {
		var m *adminpb.RebalanceProgress
		if m, err = in.Recv(); err == nil {
			if m.Done {
				return report(0, true)
			}
			err = report(m.Left, false)
		}
	}
	return err
}

// shed lets clients of this node go.
func (s *Server) shed(req *adminpb.RebalanceRequest, stream grpc.ServerStreamingServer[adminpb.RebalanceProgress]) error {
	ctx, cancel := s.untilStop(stream.Context())
	defer cancel()
	s.order("", "some of its clients are asked to move")
	s.local.Shed(ctx, int(req.Count), int(req.Rate), func(total, left int) {
		_ = stream.Send(&adminpb.RebalanceProgress{Node: s.config.Self, Total: uint64(total), Left: uint64(left)})
	})
	if err := ctx.Err(); err != nil {
		return toStatus(err)
	}
	return stream.Send(&adminpb.RebalanceProgress{Node: s.config.Self, Done: true})
}
