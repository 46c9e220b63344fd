package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

func dryRunFlag(fs *pflag.FlagSet, to *bool) {
	fs.BoolVar(to, "dry-run", false, "check and tell what would be done, change nothing")
}

// would chooses the words for what was done, or would be.
func would(dryRun bool, done, not string) string {
	if dryRun {
		return not
	}
	return done
}

func dry(dryRun bool) string { return would(dryRun, "", " (dry run)") }

func newCordon(a *asker, on bool) *cobra.Command {
	req := &adminpb.CordonNodeRequest{On: on}
	cmd := &cobra.Command{
		Use: "cordon NODE", Short: "Keep new clients away from a node; those that it has stay", Args: arguments("NODE"),
		Long: "Keep new clients away from a node: /readyz says 404, so that balancers send none, and those that come all the\n" +
			"same are asked to go elsewhere (0x9C, with drain.server_reference). Clients that are connected stay. It is\n" +
			"so until 'skein uncordon', also over a restart.",
	}
	if !on {
		cmd.Use, cmd.Short, cmd.Long = "uncordon NODE", "Let new clients in to a node again", ""
	}
	a.flags(cmd)
	dryRunFlag(cmd.Flags(), &req.DryRun)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		req.Node = args[0]
		return a.once(cmd.Context(), func(ctx context.Context, c adminpb.AdminClient) error {
			res, err := c.CordonNode(ctx, req)
			if err != nil {
				return err
			}
			state := would(!on, "cordoned", "uncordoned")
			if !res.Changed {
				state += " already"
			}
			fmt.Fprintf(a.env.Out, "node/%s %s%s\n", req.Node, state, dry(req.DryRun))
			return nil
		})
	})
	return cmd
}

func newRebalance(a *asker) *cobra.Command {
	req := &adminpb.RebalanceRequest{}
	cmd := &cobra.Command{
		Use: "rebalance", Short: "Ask clients of nodes that have more than their share to move", Args: arguments(),
		Long: "Ask clients of nodes that have more than their share to move: gently, one after the other, each when it has\n" +
			"acknowledged what it was sent. MQTT 5 clients go first: they are told (0x9C), with drain.server_reference.\n" +
			"Whoever balances the connections decides where they go. Interrupting this command ends it.",
	}
	a.flags(cmd)
	fs := cmd.Flags()
	fs.Uint32Var(&req.Rate, "rate", 10, "clients a second that are asked to move, of each node")
	fs.Uint32Var(&req.TolerancePercent, "tolerance", 10, "`PERCENT` that a node may have above its share")
	dryRunFlag(fs, &req.DryRun)
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		return a.ask(func(c adminpb.AdminClient) error {
			stream, err := c.Rebalance(cmd.Context(), req)
			if err != nil {
				return err
			}
			bars := newBars(a.env.Out)
			for {
				p, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					bars.end()
					return err
				}
				switch {
				case p.Total == 0:
					bars.line(fmt.Sprintf("node/%s has %d clients, its share is %d: nothing to do", p.Node, p.Clients, p.Share))
				case p.Done:
					bars.line(fmt.Sprintf("node/%s had %d clients, its share is %d: %d %s", p.Node, p.Clients, p.Share, p.Total,
						would(req.DryRun, "were asked to move", "would be asked to move (dry run)")))
				default:
					bars.show(p.Node, "clients move", p.Total, p.Left)
				}
			}
		})
	})
	return cmd
}

// bars shows how far something is: in place on a terminal, a line for each change elsewhere.
type bars struct {
	out      io.Writer
	terminal bool
	drawn    bool
	last     string
}

func newBars(out io.Writer) *bars { return &bars{out: out, terminal: isTerminal(out)} }

// isTerminal tells whether a person looks at what is written.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

const barWidth = 30

func (b *bars) show(node, phase string, total, left uint64) {
	if !b.terminal {
		b.line(fmt.Sprintf("%s: %s, %d of %d clients left", node, phase, left, total))
		return
	}
	done := barWidth
	if total > 0 {
		done = int(barWidth * (total - min(left, total)) / total)
	}
	fmt.Fprintf(b.out, "\r\x1b[K%s [%s%s] %d of %d left: %s", node, strings.Repeat("#", done), strings.Repeat(".", barWidth-done), left, total, phase)
	b.drawn = true
}

// line prints one line, once if it is the same again.
func (b *bars) line(text string) {
	b.end()
	if text != b.last {
		fmt.Fprintln(b.out, text)
		b.last = text
	}
}

func (b *bars) end() {
	if b.drawn {
		fmt.Fprintln(b.out)
		b.drawn = false
	}
}

func newSet(a *asker) *cobra.Command {
	req := &adminpb.SetSettingRequest{}
	cmd := &cobra.Command{
		Use: "set KEY VALUE", Short: "Change a setting while the nodes run", Args: arguments("KEY", "VALUE"),
		Long: "Change a setting on all nodes, or on one, until they restart. 'skein get settings' shows which can be changed\n" +
			"so; the others are changed in the configuration.",
		Example: "  skein set log.level debug --node node2",
	}
	a.flags(cmd)
	cmd.Flags().StringVar(&req.Node, "node", "", "only on this `NODE`")
	dryRunFlag(cmd.Flags(), &req.DryRun)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		req.Key, req.Value = args[0], args[1]
		return a.setSetting(cmd.Context(), req)
	})
	return cmd
}

// setSetting changes a setting and prints where.
func (a *asker) setSetting(ctx context.Context, req *adminpb.SetSettingRequest) error {
	return a.once(ctx, func(ctx context.Context, c adminpb.AdminClient) error {
		res, err := c.SetSetting(ctx, req)
		if err != nil {
			return err
		}
		for _, s := range res.Settings {
			fmt.Fprintf(a.env.Out, "node/%s %s=%s%s\n", s.Node, s.Key, s.Value, dry(req.DryRun))
		}
		for _, m := range res.Missing {
			fmt.Fprintf(a.env.Err, "skein: node %s did not answer: %s; it is not changed there\n", m.Node, m.Reason)
		}
		if len(res.Missing) > 0 {
			return errors.New("it is not changed everywhere")
		}
		return nil
	})
}

func settings() resource {
	type S = *adminpb.Setting
	return resource{
		name: "settings", singular: "setting", short: "List the configuration of the nodes, keys that begin with PREFIX or all", server: true,
		id: func(m proto.Message) string { return m.(S).Node + "/" + m.(S).Key },
		columns: []column{
			col("KEY", S.GetKey), col("NODE", S.GetNode), col("VALUE", S.GetValue),
			col("CONFIGURED", func(s S) string {
				if s.Configured == s.Value {
					return "="
				}
				return s.Configured
			}),
			col("CHANGEABLE", func(s S) string { return yes(s.Changeable) }), wide(col("MEANING", S.GetDoc)),
		},
		flags: func(cmd *cobra.Command) func([]string) (fetch, error) {
			node := cmd.Flags().String("node", "", "only of this `NODE`")
			return func(args []string) (fetch, error) {
				return func(ctx context.Context, c services, _ *adminpb.Page, l *listing) (string, error) {
					res, err := c.ListSettings(ctx, &adminpb.ListSettingsRequest{Node: *node, Prefix: strings.Join(args, "")})
					if err != nil {
						return "", err
					}
					add(l, res.Settings)
					l.miss(res.Missing)
					return "", nil
				}, nil
			}
		},
	}
}

func newUpgrade(a *asker) *cobra.Command {
	upgrade := &cobra.Command{
		Use: "upgrade", Short: "Tell how far a rolling upgrade is", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants status", cmd.CommandPath())
		},
	}
	st := &cobra.Command{
		Use: "status", Short: "Tell the versions of the nodes and the cluster's feature level", Args: arguments(),
		Long: "Tell the versions of the nodes and the cluster's feature level: what every member knows is used, what only some\n" +
			"know is not, so that a node may go back to the version before until all are upgraded. The exit code is 0 if all\n" +
			"nodes run the same version, else 1.",
	}
	a.flags(st)
	st.RunE = run(func(cmd *cobra.Command, _ []string) error {
		return a.once(cmd.Context(), func(ctx context.Context, c adminpb.AdminClient) error {
			res, err := c.ListNodes(ctx, &adminpb.ListNodesRequest{Page: &adminpb.Page{Size: 5000}})
			if err != nil {
				return err
			}
			return a.upgradeStatus(res)
		})
	})
	upgrade.AddCommand(st)
	return upgrade
}

func (a *asker) upgradeStatus(res *adminpb.ListNodesResponse) error {
	l := listing{}
	l.miss(res.Missing)
	add(&l, res.Nodes)
	type N = *adminpb.Node
	if err := l.table(a.env.Out, resource{columns: []column{
		col("NODE", N.GetId), col("STATE", N.GetState), col("VERSION", N.GetVersion), col("FEATURES", func(n N) string { return number(n.Features) }),
	}}, getOptions{format: "table"}); err != nil {
		return err
	}
	a.complain(&l)
	var versions []string
	level := ^uint32(0)
	for _, n := range res.Nodes {
		if n.Version == "" { // nothing is known of it
			continue
		}
		level = min(level, n.Features)
		if !slices.Contains(versions, n.Version) {
			versions = append(versions, n.Version)
		}
	}
	fmt.Fprintf(a.env.Out, "The cluster's feature level is %d.\n", level)
	if len(versions) > 1 {
		slices.Sort(versions)
		return fmt.Errorf("the nodes run %d versions: %s", len(versions), strings.Join(versions, ", "))
	}
	fmt.Fprintln(a.env.Out, "All nodes run the same version.")
	return nil
}
