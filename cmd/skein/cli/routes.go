package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

type route = *adminpb.Route

// routeID is a route's filter as clients write it.
func routeID(m proto.Message) string {
	r := m.(route)
	if r.Group == "" {
		return r.Filter
	}
	return "$share/" + r.Group + "/" + r.Filter
}

func routes() resource {
	return resource{
		name: "routes", paged: true, singular: "route", short: "List filters with the nodes that messages go to",
		id: routeID,
		columns: []column{
			col("FILTER", route.GetFilter), col("GROUP", route.GetGroup), col("QOS", func(r route) string { return number(r.Qos) }),
			col("NODES", func(r route) string { return strings.Join(r.Nodes, ", ") }),
			col("CLIENTS", func(r route) string { return number(r.Clients) }), col("OFFLINE", func(r route) string { return number(r.Offline) }),
			col("ROAD", func(r route) string {
				if r.Logged {
					return "log"
				}
				return "link"
			}),
			wide(col("PERSISTENT", func(r route) string { return number(r.Persistent) })),
		},
		flags: listRoutes(false),
	}
}

func shared() resource {
	return resource{
		name: "shared", paged: true, singular: "shared-group", aliases: []string{"shared-groups"}, short: "List shared subscription groups with their members",
		id: routeID,
		columns: []column{
			col("GROUP", route.GetGroup), col("FILTER", route.GetFilter),
			col("MEMBERS", func(r route) string { return number(r.Clients + r.Offline) }), col("CONNECTED", func(r route) string { return number(r.Clients) }),
			col("NODES", func(r route) string { return strings.Join(r.Nodes, ", ") }),
			wide(col("PERSISTENT", func(r route) string { return number(r.Persistent) })), wide(col("QOS", func(r route) string { return number(r.Qos) })),
		},
		flags: listRoutes(true),
	}
}

func listRoutes(shared bool) func(*cobra.Command) func([]string) (fetch, error) {
	return func(cmd *cobra.Command) func([]string) (fetch, error) {
		topic := cmd.Flags().String("topic", "", "only those that match this `TOPIC`")
		return func([]string) (fetch, error) {
			return func(ctx context.Context, c services, page *adminpb.Page, l *listing) (string, error) {
				res, err := c.ListRoutes(ctx, &adminpb.ListRoutesRequest{Page: page, Topic: *topic, Shared: shared})
				if err != nil {
					return "", err
				}
				add(l, res.Routes)
				l.miss(res.Missing)
				return res.NextToken, nil
			}, nil
		}
	}
}
