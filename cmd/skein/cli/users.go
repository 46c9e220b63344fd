package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// access runs f with a client of the service Access; the call is over within --request-timeout.
func (a *asker) access(ctx context.Context, f func(context.Context, adminpb.AccessClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return a.dial(func(conn grpc.ClientConnInterface) error { return f(ctx, adminpb.NewAccessClient(conn)) })
}

// change makes changes and returns what became of each.
func (a *asker) change(ctx context.Context, changes ...*adminpb.AccessChange) (results []string, err error) {
	err = a.access(ctx, func(ctx context.Context, c adminpb.AccessClient) error {
		res, err := c.ChangeAccess(ctx, &adminpb.ChangeAccessRequest{Changes: changes})
		results = res.GetResults()
		return err
	})
	return results, err
}

// changeOne makes a change and prints it as kubectl does: "user/ann created".
func (a *asker) changeOne(ctx context.Context, what string, c *adminpb.AccessChange) error {
	results, err := a.change(ctx, c)
	if err == nil {
		fmt.Fprintf(a.env.Out, "%s %s\n", readable([]byte(what), 200), results[0])
	}
	return err
}

// listed is how the pages of one of the lists are fetched.
func listed[T proto.Message](call func(context.Context, adminpb.AccessClient, *adminpb.Page) ([]T, string, error)) func(*cobra.Command) func([]string) (fetch, error) {
	return func(*cobra.Command) func([]string) (fetch, error) {
		return func([]string) (fetch, error) {
			return func(ctx context.Context, c services, page *adminpb.Page, l *listing) (string, error) {
				items, next, err := call(ctx, c.access, page)
				add(l, items)
				return next, err
			}, nil
		}
	}
}

func users() resource {
	type U = *adminpb.User
	return resource{
		name: "users", singular: "user", short: "List the cluster's users",
		id: func(m proto.Message) string { return m.(U).Name },
		columns: []column{
			col("NAME", U.GetName), col("ROLES", func(u U) string { return grants(u.Roles) }), col("GROUPS", func(u U) string { return grants(u.Groups) }),
			col("PASSWORD", func(u U) string { return yes(u.Password) }), col("DISABLED", func(u U) string { return yes(u.Disabled) }),
			wide(col("SCRAM", func(u U) string { return yes(u.Scram) })), wide(col("CLIENT-ID", U.GetClientId)), wide(col("DESCRIPTION", U.GetDescription)),
		},
		flags: listed(func(ctx context.Context, c adminpb.AccessClient, p *adminpb.Page) ([]U, string, error) {
			res, err := c.ListUsers(ctx, &adminpb.ListUsersRequest{Page: p})
			return res.GetUsers(), res.GetNextToken(), err
		}),
	}
}

func groups() resource {
	type G = *adminpb.Group
	return resource{
		name: "groups", singular: "group", short: "List the groups that users may be in",
		id: func(m proto.Message) string { return m.(G).Name },
		columns: []column{
			col("NAME", G.GetName), col("ROLES", func(g G) string { return grants(g.Roles) }), col("DESCRIPTION", G.GetDescription),
		},
		flags: listed(func(ctx context.Context, c adminpb.AccessClient, p *adminpb.Page) ([]G, string, error) {
			res, err := c.ListGroups(ctx, &adminpb.ListGroupsRequest{Page: p})
			return res.GetGroups(), res.GetNextToken(), err
		}),
	}
}

func roles() resource {
	type R = *adminpb.Role
	return resource{
		name: "roles", singular: "role", short: "List the roles, with their rules",
		id: func(m proto.Message) string { return m.(R).Name },
		columns: []column{
			col("NAME", R.GetName),
			col("RULES", func(r R) string {
				var list []string
				for _, one := range r.Rules {
					list = append(list, ruleText(one))
				}
				return strings.Join(list, "; ")
			}),
			wide(col("DESCRIPTION", R.GetDescription)),
		},
		flags: listed(func(ctx context.Context, c adminpb.AccessClient, p *adminpb.Page) ([]R, string, error) {
			res, err := c.ListRoles(ctx, &adminpb.ListRolesRequest{Page: p})
			return res.GetRoles(), res.GetNextToken(), err
		}),
	}
}

func bans() resource {
	type B = *adminpb.Ban
	return resource{
		name: "bans", singular: "ban", short: "List the bans of clients, users and networks",
		id: func(m proto.Message) string { return m.(B).Value },
		columns: []column{
			col("KIND", B.GetKind), col("VALUE", B.GetValue), age("AGE", B.GetCreated),
			{head: "EXPIRES-IN", cell: func(m proto.Message, now time.Time) string {
				if at := m.(B).Expires; at != 0 {
					return duration(time.UnixMilli(at).Sub(now))
				}
				return "never"
			}},
			col("REASON", B.GetReason),
		},
		flags: listed(func(ctx context.Context, c adminpb.AccessClient, p *adminpb.Page) ([]B, string, error) {
			res, err := c.ListBans(ctx, &adminpb.ListBansRequest{Page: p})
			return res.GetBans(), res.GetNextToken(), err
		}),
	}
}

// grants are names, with their priorities where they have one: reader, writer:5.
func grants(list []*adminpb.Grant) string {
	var out []string
	for _, g := range list {
		text := g.Name
		if g.Priority != 0 {
			text = fmt.Sprintf("%s:%d", g.Name, g.Priority)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// newDeletes are the verbs of delete that are about access.
func newDeletes(a *asker) []*cobra.Command {
	one := func(use, short string, c func(name string) *adminpb.AccessChange) *cobra.Command {
		cmd := &cobra.Command{Use: use + " NAME", Short: short, Args: arguments("NAME")}
		a.flags(cmd)
		cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
			return a.changeOne(cmd.Context(), use+"/"+args[0], c(args[0]))
		})
		return cmd
	}
	ban := &cobra.Command{
		Use: "ban client|user|network VALUE", Short: "Lift a ban", Args: arguments("client|user|network", "VALUE"),
	}
	a.flags(ban)
	ban.RunE = run(func(cmd *cobra.Command, args []string) error {
		return a.changeOne(cmd.Context(), "ban/"+args[0]+"/"+args[1], &adminpb.AccessChange{
			Op: &adminpb.AccessChange_DeleteBan{DeleteBan: &adminpb.Ban{Kind: args[0], Value: args[1]}},
		})
	})
	return []*cobra.Command{
		one("user", "Delete a user; its connections are closed", func(n string) *adminpb.AccessChange {
			return &adminpb.AccessChange{Op: &adminpb.AccessChange_DeleteUser{DeleteUser: n}}
		}),
		one("group", "Delete a group, and all memberships in it", func(n string) *adminpb.AccessChange {
			return &adminpb.AccessChange{Op: &adminpb.AccessChange_DeleteGroup{DeleteGroup: n}}
		}),
		one("role", "Delete a role, and take it from whoever has it", func(n string) *adminpb.AccessChange {
			return &adminpb.AccessChange{Op: &adminpb.AccessChange_DeleteRole{DeleteRole: n}}
		}),
		ban,
	}
}
