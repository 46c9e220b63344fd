package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skein-mqtt/skein/cluster"
	"github.com/skein-mqtt/skein/cmd/skein/version"
	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/admin"
	"github.com/skein-mqtt/skein/node/broker"
	"github.com/skein-mqtt/skein/node/httpd"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

func versionInfo(node string) *adminpb.VersionResponse {
	return &adminpb.VersionResponse{
		Version: version.Number, Commit: version.Commit(), Go: version.Go(), Node: node, Features: features,
	}
}

// local is what the admin service asks this node for.
type local struct{ n *node }

// Node implements admin.Local.
func (l local) Node(row *adminpb.Node) {
	s, reason := l.n.health.Ready()
	row.State, row.Reason = s.String(), reason
	row.Applied, row.Started = l.n.fsm.Applied(), l.n.started.UnixMilli()
	b, log := l.n.broker.Stats(), l.n.cluster.Stats()
	row.Clients, row.BytesIn, row.Dropped = uint64(b.Clients), b.BytesIn, byReason(b.Dropped)
	for q := range b.Received {
		row.Received += b.Received[q]
		row.Sent += b.Sent[q]
	}
	row.Commits, row.CommitNano, row.Backlog = log.Commits.Count, uint64(log.Commits.Sum), uint64(log.OutBytes)
}

// Clients implements admin.Local.
func (l local) Clients(fn func(*adminpb.Client) bool) {
	l.n.broker.Clients(func(i broker.ClientInfo) bool {
		c := &adminpb.Client{
			Id: i.ID, Node: l.n.id, Address: i.Address, Username: i.Username, Protocol: uint32(i.Protocol),
			Persistent: i.Persistent, Keepalive: uint32(i.Keepalive), Listener: i.Listener, Connected: i.Connected,
			Subscriptions: uint32(i.Subscriptions), Inflight: uint32(i.Inflight), Queued: uint32(i.Queued),
			MessagesIn: i.MessagesIn, MessagesOut: i.MessagesOut, BytesIn: i.BytesIn, BytesOut: i.BytesOut, Epoch: uint64(i.Epoch),
		}
		c.Dropped = byReason(i.Dropped)
		return fn(c)
	})
}

// byReason is nil when nothing was dropped.
func byReason(counts [fsm.ReasonCount]uint64) map[string]uint64 {
	var out map[string]uint64
	for r, v := range counts {
		if v == 0 {
			continue
		}
		if out == nil {
			out = make(map[string]uint64)
		}
		out[fsm.Reason(r).String()] = v
	}
	return out
}

// Subscriptions implements admin.Local.
func (l local) Subscriptions(fn func(*adminpb.Subscription) bool) {
	l.n.broker.CleanSubscriptions(func(client string, s fsm.Subscription) bool {
		return fn(subscription(client, s, false))
	})
}

// Losses implements admin.Local.
func (l local) Losses(client string) map[string]uint64 { return byReason(l.n.broker.Losses(client)) }

// Road implements admin.Local.
func (l local) Road(req *adminpb.ExplainRequest) (road, reason string) {
	persistent := false
	if i, ok := l.n.fsm.Session(req.Publisher); ok {
		persistent = !i.Clean
	}
	return l.n.broker.Road(req.Topic, byte(req.Qos), req.Retain, persistent)
}

// MayPublish implements admin.Local.
func (l local) MayPublish(username, client, topic string) (bool, string) {
	return l.n.rules.CanI(username, client, fsm.ActionPublish, topic)
}

// MayReceive implements admin.Local.
func (l local) MayReceive(client, topic string) bool {
	i, _ := l.n.fsm.Session(client)
	may, _ := l.n.rules.CanI(i.Username, client, fsm.ActionReceive, topic)
	return may
}

// Disconnect implements admin.Local.
func (l local) Disconnect(client string) bool { return l.n.broker.Disconnect(client) }

// DeleteSession implements admin.Local.
func (l local) DeleteSession(ctx context.Context, client string) error {
	err := l.n.broker.DeleteSession(ctx, client)
	if errors.Is(err, broker.ErrUnknownClient) {
		return fmt.Errorf("%w: %w", admin.ErrUnknownClient, err)
	}
	return err
}

// Publish implements admin.Local.
func (l local) Publish(ctx context.Context, req *adminpb.PublishRequest) (bool, error) {
	return l.n.broker.Publish(ctx, req.Topic, req.Payload, byte(req.Qos), req.Retain)
}

// StartDrain implements admin.Local.
func (l local) StartDrain(rate int, timeout time.Duration) error {
	l.n.drain.start(context.Background(), rate, timeout)
	return nil
}

// DrainStatus implements admin.Local.
func (l local) DrainStatus() (*adminpb.DrainProgress, error) { return l.n.drain.status() }

// orders is the cluster as the admin service knows it.
type orders struct{ n *node }

// Nodes implements admin.Cluster.
func (o orders) Nodes() []*adminpb.Node {
	infos := o.n.cluster.Nodes()
	out := make([]*adminpb.Node, len(infos))
	for i, m := range infos {
		out[i] = &adminpb.Node{
			Id: m.ID, State: "down", Role: string(m.Role), Incarnation: m.Incarnation, Version: m.Version,
			PeerAddress: m.PeerAddress, MqttAddress: m.MQTTAddress, AdminAddress: m.AdminAddress, HttpAddress: m.HTTPAddress,
			Reason: m.Reason, Features: m.Features,
		}
		switch {
		case m.Live:
			out[i].State = "ready"
		case m.Seen: // it may be drained, or on its way into service: it says so itself
			out[i].State = "unknown"
		}
	}
	return out
}

// Remove implements admin.Cluster.
func (o orders) Remove(ctx context.Context, node string, force bool) error {
	return known(o.n.cluster.Remove(ctx, node, force))
}

// Transfer implements admin.Cluster.
func (o orders) Transfer(ctx context.Context, node string) (string, error) {
	leader, err := o.n.cluster.Transfer(ctx, node)
	return leader, known(err)
}

// known turns the cluster's errors into those that the admin service has codes for.
func known(err error) error {
	switch {
	case errors.Is(err, cluster.ErrNotLeader):
		return fmt.Errorf("%w: %w", admin.ErrNotLeader, err)
	case errors.Is(err, cluster.ErrUnknownNode):
		return fmt.Errorf("%w: %w", admin.ErrUnknownNode, err)
	case errors.Is(err, cluster.ErrLive), errors.Is(err, cluster.ErrQuorum):
		return fmt.Errorf("%w: %w", admin.ErrLive, err)
	}
	return err
}

// page is the status page.
type page struct{ n *node }

// Status implements httpd.Page.
func (p page) Status(ctx context.Context) httpd.Status {
	s, reason := p.n.health.Ready()
	out := httpd.Status{Node: p.n.id, Version: version.Number, State: s.String(), Reason: reason}
	list, err := p.n.admin.ListNodes(ctx, &adminpb.ListNodesRequest{})
	if err != nil {
		out.Missing = append(out.Missing, err.Error())
		return out
	}
	for _, m := range list.Nodes {
		out.Nodes = append(out.Nodes, httpd.NodeStatus{
			ID: m.Id, State: m.State, Role: m.Role, Version: m.Version, Address: m.MqttAddress, HTTP: m.HttpAddress, Clients: m.Clients,
		})
	}
	for _, m := range list.Missing {
		out.Missing = append(out.Missing, m.Node+": "+m.Reason)
	}
	return out
}
