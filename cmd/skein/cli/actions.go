package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

func newDrain(a *asker) *cobra.Command {
	var rate uint32
	var limit time.Duration
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Move all clients off a node and take it out of service",
		Long: "Move all clients off a node and take it out of service. The node takes no new clients, hands\n" +
			"leadership over, and lets its clients go when what they were sent is acknowledged. It stays a\n" +
			"member; a restart brings it back. Interrupting this command does not stop the drain: the same\n" +
			"command again shows how far it is, and changes its rate if --rate is given.",
		Args: arguments("NODE"),
	}
	a.flags(cmd)
	cmd.Flags().Uint32Var(&rate, "rate", 0, "connections to let go per second (0: as the node is configured)")
	dryRunFlag(cmd.Flags(), &dryRun)
	cmd.Flags().DurationVar(&limit, "timeout", 0, "how long the drain may take (0: as the node is configured)")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		ctx, stop := interruptible(cmd)
		defer stop()
		return a.ask(func(c adminpb.AdminClient) error {
			stream, err := c.DrainNode(ctx, &adminpb.DrainNodeRequest{
				Node: args[0], Rate: rate, TimeoutSeconds: uint32((limit + time.Second - 1) / time.Second), DryRun: dryRun,
			})
			if err == nil {
				err = a.follow(args[0], dryRun, stream.Recv)
			}
			if err != nil && ctx.Err() != nil {
				return fmt.Errorf("interrupted: the drain goes on; 'skein drain %s' shows it again", args[0])
			}
			return err
		})
	})
	return cmd
}

// follow shows how far a drain is until it is over.
func (a *asker) follow(node string, dryRun bool, next func() (*adminpb.DrainProgress, error)) error {
	bars := newBars(a.env.Out)
	defer bars.end()
	for {
		p, err := next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s stopped telling how far it is; see 'skein get nodes'", node)
		}
		if err != nil {
			return err
		}
		switch {
		case p.Done && dryRun:
			bars.line(fmt.Sprintf("node/%s would be drained of %d clients (dry run)", node, p.Total))
			return nil
		case p.Done:
			bars.line(fmt.Sprintf("node/%s drained", node))
			return nil
		}
		bars.show(node, p.Phase, p.Total, p.Left)
	}
}

func newRemove(a *asker) *cobra.Command {
	remove := &cobra.Command{
		Use: "remove", Short: "Take a node out of the cluster for good", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants what to remove: node NODE", cmd.CommandPath())
		},
	}
	var force, dryRun bool
	node := &cobra.Command{
		Use: "node NODE", Short: "Take a node out of the cluster for good", Args: arguments("NODE"),
		Long: "Take a node out of the cluster for good: it loses its vote and its place in the list. Drain it and\n" +
			"stop it first. A node that was removed comes back only with an empty data folder.",
	}
	a.flags(node)
	dryRunFlag(node.Flags(), &dryRun)
	node.Flags().BoolVar(&force, "force", false, "also when it is in service; its clients are cut off")
	node.RunE = run(func(cmd *cobra.Command, args []string) error {
		return a.once(cmd.Context(), func(ctx context.Context, c adminpb.AdminClient) error {
			if _, err := c.RemoveNode(ctx, &adminpb.RemoveNodeRequest{Node: args[0], Force: force, DryRun: dryRun}); err != nil {
				return err
			}
			fmt.Fprintf(a.env.Out, "node/%s %s%s\n", args[0], would(dryRun, "removed", "would be removed"), dry(dryRun))
			return nil
		})
	})
	remove.AddCommand(node)
	return remove
}

func newTransfer(a *asker) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "transfer-leader [NODE]", Short: "Hand leadership of the log to another node", Args: arguments("[NODE]"),
	}
	a.flags(cmd)
	dryRunFlag(cmd.Flags(), &dryRun)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		return a.once(cmd.Context(), func(ctx context.Context, c adminpb.AdminClient) error {
			res, err := c.TransferLeader(ctx, &adminpb.TransferLeaderRequest{Node: strings.Join(args, ""), DryRun: dryRun})
			if err != nil {
				return err
			}
			if dryRun {
				fmt.Fprintf(a.env.Out, "node/%s would lead (dry run)\n", orElse(res.Leader, "that is furthest"))
				return nil
			}
			fmt.Fprintf(a.env.Out, "node/%s leads\n", res.Leader)
			return nil
		})
	})
	return cmd
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func newHealthcheck(env *Env) *cobra.Command {
	var address string
	var live bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a node whether it is ready; exit code 0 if it is",
		Long: "Ask a node's /readyz and print what it says. For containers without a shell, and for scripts:\n" +
			"exit code 0 if the node is ready, 1 if not.",
		Args: arguments(),
	}
	cmd.Flags().StringVar(&address, "http", config.Default().HTTP.Listen, "HTTP `ADDR` of the node")
	cmd.Flags().BoolVar(&live, "live", false, "ask /livez instead: whether the process answers at all")
	cmd.Flags().DurationVar(&wait, "wait", 0, "keep asking for so long until it is ready")
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		path := "/readyz"
		if live {
			path = "/livez"
		}
		end := time.Now().Add(wait)
		for {
			said, err := probe(cmd.Context(), "http://"+address+path)
			if err == nil || !time.Now().Before(end) {
				if err == nil {
					fmt.Fprintln(env.Out, said)
				}
				return err
			}
			select {
			case <-cmd.Context().Done():
				return errors.New("interrupted")
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return cmd
}

func probe(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", usageError("--http: %w", err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("no answer: %w", errors.Unwrap(err))
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return "", fmt.Errorf("no answer: %w", err)
	}
	said := strings.TrimSpace(string(body))
	if res.StatusCode != http.StatusOK {
		return "", errors.New(said)
	}
	return said, nil
}
