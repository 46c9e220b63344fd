package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

func newDescribe(a *asker) *cobra.Command {
	describe := &cobra.Command{
		Use: "describe", Short: "Tell all about one client, session or node", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants what to describe: client ID or node NAME", cmd.CommandPath())
		},
	}
	client := &cobra.Command{
		Use: "client ID", Aliases: []string{"session"}, Short: "Tell all about one client or session", Args: arguments("ID"),
		Long: "Tell all about one client id: its connection, its stored session, its subscriptions, and the messages\n" +
			"that it did not get, by reason, as far as the running nodes remember.",
	}
	a.flags(client)
	var format string
	client.Flags().StringVarP(&format, "output", "o", "text", "text, json or yaml")
	client.RunE = run(func(cmd *cobra.Command, args []string) error {
		known := []string{"text", "json", "yaml"}
		if !slices.Contains(known, format) {
			return usageError("--output: unknown format %q; the nearest valid one is %s", format, config.Nearest(format, known))
		}
		return a.once(cmd.Context(), func(ctx context.Context, c adminpb.AdminClient) error {
			res, err := c.DescribeClient(ctx, &adminpb.DescribeClientRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return describeClient(a.env.Out, args[0], res, format)
		})
	})
	describe.AddCommand(client, newDescribeNode(a))
	return describe
}

func newDescribeNode(a *asker) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "node NAME", Short: "Tell all about one node", Args: arguments("NAME"),
		Long: "Tell all about one node: its state and why, its addresses, how far it is in the log, what it has passed on since it\n" +
			"started, and what it did not deliver, by reason.",
	}
	a.flags(cmd)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text, json or yaml")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		known := []string{"text", "json", "yaml"}
		if !slices.Contains(known, format) {
			return usageError("--output: unknown format %q; the nearest valid one is %s", format, config.Nearest(format, known))
		}
		return a.once(cmd.Context(), func(ctx context.Context, c adminpb.AdminClient) error {
			res, err := c.ListNodes(ctx, &adminpb.ListNodesRequest{Page: &adminpb.Page{Size: 5000}})
			if err != nil {
				return err
			}
			i := slices.IndexFunc(res.Nodes, func(n *adminpb.Node) bool { return n.Id == args[0] })
			if i < 0 {
				return fmt.Errorf("no node %q", args[0])
			}
			if format != "text" {
				return encode(a.env.Out, toObject(res.Nodes[i]), format)
			}
			leader := slices.IndexFunc(res.Nodes, func(n *adminpb.Node) bool { return n.Role == "leader" })
			var ahead uint64
			if leader >= 0 {
				ahead = res.Nodes[leader].Applied
			}
			for _, m := range res.Missing {
				if m.Node == args[0] {
					fmt.Fprintf(a.env.Err, "skein: it did not answer: %s; what only it knows is missing\n", m.Reason)
				}
			}
			return describeNode(a.env.Out, res.Nodes[i], ahead)
		})
	})
	return cmd
}

// describeNode tells of a node. ahead is how far the leader is in the log; 0: it is not known.
func describeNode(w io.Writer, n *adminpb.Node, ahead uint64) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) { fmt.Fprintf(tw, "%s:\t%s\n", name, orDash(readable([]byte(value), 400))) }
	line("Node", n.Id)
	state := n.State
	if n.Reason != "" {
		state += ": " + n.Reason
	}
	line("State", state)
	line("Role", n.Role)
	if n.Started != 0 {
		line("Uptime", duration(now().Sub(time.UnixMilli(n.Started))))
	}
	line("Version", fmt.Sprintf("%s, feature level %d", orDash(n.Version), n.Features))
	line("Incarnation", number(n.Incarnation))
	for _, address := range []struct{ name, value string }{
		{"MQTT", n.MqttAddress}, {"HTTP", n.HttpAddress}, {"Admin", n.AdminAddress}, {"Peers", n.PeerAddress},
	} {
		line(address.name, address.value)
	}
	if n.Applied == 0 { // it did not answer
		return tw.Flush()
	}
	line("Clients", number(n.Clients))
	applied := "up to index " + number(n.Applied)
	if ahead > n.Applied {
		applied += fmt.Sprintf(", %d behind the leader", ahead-n.Applied)
	}
	line("Log", applied)
	if n.Commits > 0 {
		mean := time.Duration(n.CommitNano / n.Commits)
		line("Commits", fmt.Sprintf("%d batches, %s each, %d bytes wait", n.Commits, mean.Round(10*time.Microsecond), n.Backlog))
	}
	line("Received", fmt.Sprintf("%d messages, %d bytes", n.Received, n.BytesIn))
	line("Sent", fmt.Sprintf("%d messages", n.Sent))
	if len(n.Dropped) == 0 {
		line("Not delivered", "nothing")
	}
	for _, r := range slices.Sorted(maps.Keys(n.Dropped)) {
		line("Not delivered", fmt.Sprintf("%d: %s", n.Dropped[r], r))
	}
	return tw.Flush()
}

func describeClient(w io.Writer, id string, d *adminpb.DescribeClientResponse, format string) error {
	if format != "text" {
		return encode(w, object{
			{"id", id},
			{"client", orNil(d.Client)},
			{"session", orNil(d.Session)},
			{"subscriptions", objects(d.Subscriptions)},
			{"dropped", countsOf(d.Dropped)},
			{"missing", objects(d.Missing)},
			{"events", objects(d.Events)},
		}, format)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	at := now()
	line := func(name, value string) { fmt.Fprintf(tw, "%s:\t%s\n", name, readable([]byte(value), 400)) }
	line("Client", id)
	if c := d.Client; c != nil {
		line("Connected", fmt.Sprintf("to %s, for %s, from %s", c.Node, duration(at.Sub(time.UnixMilli(c.Connected))), c.Address))
		line("Protocol", protocol(c.Protocol))
		line("User", orDash(c.Username))
		line("Listener", c.Listener)
		line("Keep alive", fmt.Sprintf("%ds", c.Keepalive))
		line("In flight", number(c.Inflight))
		line("Waiting", number(c.Queued))
		line("Received from it", fmt.Sprintf("%d messages, %d bytes", c.MessagesIn, c.BytesIn))
		line("Sent to it", fmt.Sprintf("%d messages, %d bytes", c.MessagesOut, c.BytesOut))
	} else {
		line("Connected", "no")
	}
	if s := d.Session; s != nil {
		line("Session", fmt.Sprintf("expires %s after it disconnects", expiry(s.Expiry)))
		if s.Expires != 0 {
			line("Expires in", duration(time.UnixMilli(s.Expires).Sub(at)))
		}
		line("Queued", fmt.Sprintf("%d messages, %d bytes", s.Queued, s.QueuedBytes))
		line("Will", yes(s.HasWill))
	} else {
		line("Session", "none is stored")
	}
	if len(d.Dropped) == 0 {
		line("Not delivered", "nothing")
	}
	for _, r := range slices.Sorted(maps.Keys(d.Dropped)) {
		line("Not delivered", fmt.Sprintf("%d: %s", d.Dropped[r], r))
	}
	for _, m := range d.Missing {
		line("No answer from", m.Node+": "+m.Reason)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if len(d.Subscriptions) > 0 {
		fmt.Fprintln(w, "\nSubscriptions:")
		l := listing{}
		add(&l, d.Subscriptions)
		r := subscriptions()
		r.columns = r.columns[1:]
		if err := l.table(w, r, getOptions{format: "table"}); err != nil {
			return err
		}
	}
	if len(d.Events) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nLast events:")
	l := listing{}
	add(&l, d.Events)
	r := eventRows()
	r.columns = slices.DeleteFunc(r.columns, func(c column) bool { return c.head == "CLIENT" })
	return l.table(w, r, getOptions{format: "table"})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func orNil[T interface {
	comparable
	proto.Message
}](m T) any {
	var none T
	if m == none {
		return nil
	}
	return toObject(m)
}

func objects[T proto.Message](list []T) []any {
	out := make([]any, len(list))
	for i, m := range list {
		out[i] = toObject(m)
	}
	return out
}

func countsOf(m map[string]uint64) object {
	o := object{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		o = append(o, field{k, m[k]})
	}
	return o
}
