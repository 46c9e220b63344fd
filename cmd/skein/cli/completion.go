package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

const (
	// completionPatience is how long a shell waits for names.
	completionPatience = 2 * time.Second
	// completionLimit bounds how many names it is offered.
	completionLimit = 200
)

// complete tells the shell what may stand where: names come from the cluster that the command would ask.
func complete(root *cobra.Command, a *asker) {
	named := map[string]resource{
		"drain": nodes(), "cordon": nodes(), "uncordon": nodes(), "remove node": nodes(), "transfer-leader": nodes(), "snapshot": nodes(),
		"logs": nodes(), "describe node": nodes(), "disconnect": clients(), "describe client": clients(), "trace client": clients(),
		"delete session": sessions(), "delete retained": retained(), "delete user": users(), "delete group": groups(), "delete role": roles(),
	}
	for _, r := range resources() {
		named["get "+r.name] = r
	}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		path := strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")
		if r, ok := named[path]; ok && cmd.ValidArgsFunction == nil {
			several := strings.HasPrefix(path, "get ")
			cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
				if len(args) > 0 && !several {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
				return a.names(cmd, r, begun), cobra.ShellCompDirectiveNoFileComp
			}
		}
		fixed := map[string]func(*cobra.Command, string) []string{
			"node":    func(cmd *cobra.Command, begun string) []string { return a.names(cmd, nodes(), begun) },
			"client":  func(cmd *cobra.Command, begun string) []string { return a.names(cmd, clients(), begun) },
			"context": func(*cobra.Command, string) []string { return a.contextNames() },
		}
		if strings.HasPrefix(path, "get ") {
			fixed["output"] = func(*cobra.Command, string) []string { return append(formats, jsonPath) }
		}
		for flag, list := range fixed {
			if cmd.Flags().Lookup(flag) == nil {
				continue
			}
			_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) { // only once: it can't fail
				return list(cmd, begun), cobra.ShellCompDirectiveNoFileComp
			})
		}
	}
	walk(root)
}

// names are those of a resource that begin so, none if no node answers: a shell has nobody to complain to.
func (a *asker) names(cmd *cobra.Command, r resource, begun string) (out []string) {
	if a.useContext(cmd) != nil {
		return nil
	}
	fetch, err := r.flags(&cobra.Command{})(nil)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
	defer cancel()
	_ = a.dial(func(conn grpc.ClientConnInterface) error {
		c := services{adminpb.NewAdminClient(conn), adminpb.NewAccessClient(conn)}
		page := &adminpb.Page{}
		if r.paged && begun != "" && !strings.ContainsAny(begun, ",=!<>~\"") { // else the node sends all of them
			page.Selector = orElse(map[string]string{"subscriptions": "client", "retained": "topic", "routes": "filter", "shared": "filter"}[r.name], "id") + "~" + begun
		}
		for len(out) < completionLimit {
			l := &listing{}
			next, err := fetch(ctx, c, page, l)
			if err != nil {
				return err
			}
			for _, m := range l.items {
				if id := readable([]byte(r.id(m)), 1<<16); strings.HasPrefix(id, begun) && len(out) < completionLimit && !slices.Contains(out, id) {
					out = append(out, id)
				}
			}
			if page.Token = next; next == "" {
				return nil
			}
		}
		return nil
	})
	return out
}

func (a *asker) contextNames() []string {
	all, err := a.env.contexts()
	if err != nil {
		return nil
	}
	return all.names()
}

func contextNames(env *Env) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return (&asker{env: env}).contextNames(), cobra.ShellCompDirectiveNoFileComp
	}
}
