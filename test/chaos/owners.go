package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// owners wants each client that is connected to be held by its node and by no other, as the nodes
// themselves tell. It may be called when no client comes and goes.
func (r *run) owners(ctx context.Context) {
	var why string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; wait(ctx, 100*time.Millisecond) {
		if why = r.strays(ctx); why == "" {
			return
		}
	}
	if ctx.Err() == nil {
		r.model.Violate(OneOwner, nil, "%s", why)
	}
}

// strays is a client that is not held by its node alone; empty: there is none.
func (r *run) strays(ctx context.Context) string {
	held := make(map[string][]string)
	for _, n := range r.cluster.nodes {
		ids, err := n.clients(ctx)
		if err != nil {
			return err.Error()
		}
		for _, id := range ids {
			held[id] = append(held[id], n.id)
		}
	}
	for _, c := range r.clients {
		node := r.model.where(c.who)
		if node == balanced && len(held[c.plan.id]) == 1 {
			continue
		}
		if node != "" && !slices.Equal(held[c.plan.id], []string{node}) {
			return fmt.Sprintf("%s is connected to %s, and held by %v", c.plan.id, node, held[c.plan.id])
		}
	}
	return ""
}

// accounts has the model know what the nodes count for each client.
func (r *run) accounts(ctx context.Context) {
	by := make(map[string]map[string]uint64)
	err := r.cluster.nodes[0].ask(ctx, 20*time.Second, func(ctx context.Context, a adminpb.AdminClient) error {
		for _, c := range r.clients {
			answer, err := a.DescribeClient(ctx, &adminpb.DescribeClientRequest{Id: c.plan.id})
			if status.Code(err) == codes.NotFound { // neither connected nor counted
				continue
			}
			if err != nil {
				return err
			}
			by[c.plan.id] = answer.GetDropped()
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		r.model.Violate(Liveness, nil, "%v", err)
	}
	r.model.Accounts(by)
}

// where is the node of a party's connection; empty: it has none.
func (m *Model) where(p *party) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.conn == 0 {
		return ""
	}
	return p.at[p.conn]
}

// clients are the ids of those that the node itself says are connected to it.
func (n *node) clients(ctx context.Context) (ids []string, err error) {
	err = n.ask(ctx, 5*time.Second, func(ctx context.Context, c adminpb.AdminClient) error {
		answer, err := c.ListClients(ctx, &adminpb.ListClientsRequest{Page: &adminpb.Page{Size: 5000, Local: true}})
		for _, row := range answer.GetClients() {
			ids = append(ids, row.GetId())
		}
		return err
	})
	return ids, err
}
