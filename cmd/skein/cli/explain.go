package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

func newExplain(a *asker) *cobra.Command {
	var qos uint32
	var retain bool
	var publisher, user string
	cmd := &cobra.Command{
		Use: "explain TOPIC", Short: "Tell what would become of a publish to a topic, and why", Args: arguments("TOPIC"),
		Long: "Tell what would become of a publish to a topic: the road that it would take, and for each matching\n" +
			"subscription in the cluster whether it would be delivered, by whom, or why not. Nothing is sent.",
		Example: "  skein explain meters/7 --qos 1 --as ann --publisher ann-phone",
	}
	cmd.Flags().Uint32Var(&qos, "qos", 0, "the publish's QoS")
	cmd.Flags().BoolVar(&retain, "retain", false, "as if the message was to be retained")
	cmd.Flags().StringVar(&publisher, "publisher", "", "the publisher's client `ID`")
	cmd.Flags().StringVar(&user, "as", "", "also whether this `USER` may publish to it; '': a client without a user name")
	a.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		if qos > 2 {
			return usageError("--qos: %d is not 0, 1 or 2", qos)
		}
		return a.once(cmd.Context(), func(ctx context.Context, c adminpb.AdminClient) error {
			res, err := c.Explain(ctx, &adminpb.ExplainRequest{
				Topic: args[0], Qos: qos, Retain: retain, Publisher: publisher, Username: user, AsUser: cmd.Flags().Changed("as"),
			})
			if err != nil {
				return err
			}
			switch {
			case res.Refused:
				fmt.Fprintf(a.env.Out, "It is refused and counted as not_allowed: %s.\n", readable([]byte(res.Verdict), 400))
			case res.Verdict != "":
				fmt.Fprintf(a.env.Out, "It may be published: %s.\n", readable([]byte(res.Verdict), 400))
			}
			fmt.Fprintf(a.env.Out, "It goes by the %s: %s.\n", res.Road, res.Reason)
			for _, m := range res.Missing {
				fmt.Fprintf(a.env.Err, "skein: node %s did not answer: %s; its clean clients are missing\n", m.Node, m.Reason)
			}
			if len(res.Subscriptions) == 0 {
				fmt.Fprintln(a.env.Out, "Nobody subscribes to it.")
				return nil
			}
			l := listing{}
			add(&l, res.Subscriptions)
			return l.table(a.env.Out, explained(), getOptions{format: "table"})
		})
	})
	return cmd
}

func explained() resource {
	type E = *adminpb.Explained
	sub := func(get func(*adminpb.Subscription) string) func(E) string {
		return func(e E) string { return get(e.Subscription) }
	}
	return resource{
		id: func(m proto.Message) string { return m.(E).Subscription.GetClient() },
		columns: []column{
			col("CLIENT", sub((*adminpb.Subscription).GetClient)), col("FILTER", sub((*adminpb.Subscription).GetFilter)),
			col("QOS", func(e E) string { return number(e.Qos) }), col("OUTCOME", E.GetOutcome),
		},
	}
}

func newDisconnect(a *asker) *cobra.Command {
	cmd := &cobra.Command{
		Use: "disconnect CLIENT", Short: "Close a client's connection; its session stays", Args: arguments("CLIENT"),
		Long: "Close a client's connection, wherever it is. A client of MQTT 5.0 is told 0x98 (administrative action);\n" +
			"its will is published, its session stays, and it may connect again.",
	}
	var dryRun bool
	dryRunFlag(cmd.Flags(), &dryRun)
	a.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		return a.once(cmd.Context(), func(ctx context.Context, c adminpb.AdminClient) error {
			res, err := c.DisconnectClient(ctx, &adminpb.DisconnectClientRequest{Id: args[0], DryRun: dryRun})
			if err == nil {
				fmt.Fprintf(a.env.Out, "client/%s %s from %s%s\n", readable([]byte(args[0]), 200), would(dryRun, "disconnected", "would be disconnected"), res.Node, dry(dryRun))
			}
			return err
		})
	})
	return cmd
}

func newDelete(a *asker) *cobra.Command {
	remove := &cobra.Command{
		Use: "delete", Short: "Delete a session, retained messages, a user, a group, a role or a ban", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants what to delete: session ID, retained FILTER, user NAME, group NAME, role NAME, or ban client|user|network VALUE", cmd.CommandPath())
		},
	}
	session := &cobra.Command{
		Use: "session ID", Short: "End a session, with its queue and subscriptions", Args: arguments("ID"),
		Long: "End a session, with its queue and subscriptions, and close its connection if it has one. What was queued\n" +
			"counts as session_ended.",
	}
	var dryRun bool
	dryRunFlag(session.Flags(), &dryRun)
	a.flags(session)
	session.RunE = run(func(cmd *cobra.Command, args []string) error {
		return a.once(cmd.Context(), func(ctx context.Context, c adminpb.AdminClient) error {
			_, err := c.DeleteSession(ctx, &adminpb.DeleteSessionRequest{Id: args[0], DryRun: dryRun})
			if err == nil {
				fmt.Fprintf(a.env.Out, "session/%s %s%s\n", readable([]byte(args[0]), 200), would(dryRun, "deleted", "would be deleted"), dry(dryRun))
			}
			return err
		})
	})
	retained := &cobra.Command{
		Use: "retained FILTER", Short: "Remove the retained messages that match a filter", Args: arguments("FILTER"),
	}
	dryRunFlag(retained.Flags(), &dryRun)
	a.flags(retained)
	retained.RunE = run(func(cmd *cobra.Command, args []string) error {
		return a.once(cmd.Context(), func(ctx context.Context, c adminpb.AdminClient) error {
			res, err := c.DeleteRetained(ctx, &adminpb.DeleteRetainedRequest{Filter: args[0], DryRun: dryRun})
			if err == nil {
				fmt.Fprintf(a.env.Out, "%d retained messages %s%s\n", res.Deleted, would(dryRun, "deleted", "would be deleted"), dry(dryRun))
			}
			return err
		})
	})
	remove.AddCommand(session, retained)
	remove.AddCommand(newDeletes(a)...)
	return remove
}
