package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

type topOptions struct {
	interval time.Duration
	rounds   int
	limit    int
}

func newTop(a *asker) *cobra.Command {
	top := &cobra.Command{
		Use: "top", Short: "Show which nodes, clients or topics are busy", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants what to show: nodes, clients or topics", cmd.CommandPath())
		},
	}
	for _, t := range []struct {
		name, short string
		look        func(ctx context.Context, c adminpb.AdminClient, o topOptions) ([][]string, error)
	}{
		{"nodes", "Show what each node receives, sends and drops per second", a.topNodes()},
		{"clients", "Show the clients with the most messages per second", a.topClients()},
		{"topics", "Show the topics with the most messages per second, as far as a trace of all of them tells", a.topTopics},
	} {
		var o topOptions
		cmd := &cobra.Command{Use: t.name, Short: t.short, Args: arguments()}
		a.flags(cmd)
		cmd.Flags().DurationVar(&o.interval, "interval", 2*time.Second, "how long to count")
		cmd.Flags().IntVarP(&o.rounds, "count", "n", 0, "how often to show (0: until interrupted on a terminal, else once)")
		cmd.Flags().IntVar(&o.limit, "limit", 20, "lines at most")
		cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
			if o.interval < 100*time.Millisecond || o.limit < 1 {
				return usageError("--interval and --limit: at least 100ms and 1")
			}
			terminal := isTerminal(a.env.Out)
			if o.rounds == 0 && !terminal {
				o.rounds = 1
			}
			return a.ask(func(c adminpb.AdminClient) error {
				for n := 0; o.rounds == 0 || n < o.rounds; n++ {
					rows, err := t.look(cmd.Context(), c, o)
					if err != nil {
						return err
					}
					if terminal {
						fmt.Fprint(a.env.Out, "\x1b[H\x1b[J")
					}
					tw := tabwriter.NewWriter(a.env.Out, 0, 0, 3, ' ', 0)
					for _, row := range rows[:min(len(rows), o.limit+1)] {
						fmt.Fprintln(tw, strings.Join(row, "\t"))
					}
					if err := tw.Flush(); err != nil {
						return err
					}
				}
				return nil
			})
		})
		top.AddCommand(cmd)
	}
	return top
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func perSecond(n uint64, d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(n)/d.Seconds())
}

// since is what a counter has grown by; one that began anew counts from 0.
func since(now, before uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

// topNodes looks twice, the first time, and then at what has come since it last looked.
func (a *asker) topNodes() func(context.Context, adminpb.AdminClient, topOptions) ([][]string, error) {
	var before map[string]*adminpb.Node
	var at time.Time
	look := func(ctx context.Context, c adminpb.AdminClient) (map[string]*adminpb.Node, []*adminpb.Node, error) {
		ctx, cancel := context.WithTimeout(ctx, a.timeout)
		defer cancel()
		res, err := c.ListNodes(ctx, &adminpb.ListNodesRequest{Page: &adminpb.Page{Size: 5000}})
		if err != nil {
			return nil, nil, err
		}
		byID := make(map[string]*adminpb.Node)
		for _, n := range res.Nodes {
			byID[n.Id] = n
		}
		return byID, res.Nodes, nil
	}
	return func(ctx context.Context, c adminpb.AdminClient, o topOptions) (rows [][]string, err error) {
		if before == nil {
			if before, _, err = look(ctx, c); err != nil {
				return nil, err
			}
			at = time.Now()
		}
		if err := pause(ctx, o.interval); err != nil {
			return nil, err
		}
		byID, list, err := look(ctx, c)
		if err != nil {
			return nil, err
		}
		took := time.Since(at)
		rows = append(rows, []string{"NODE", "STATE", "CLIENTS", "IN/S", "OUT/S", "BYTES-IN/S", "DROPPED/S", "COMMIT", "BACKLOG"})
		for _, n := range list {
			old := before[n.Id]
			if old == nil || n.State == "down" || n.State == "unknown" {
				rows = append(rows, []string{n.Id, n.State, "-", "-", "-", "-", "-", "-", "-"})
				continue
			}
			commit := "-"
			if k := since(n.Commits, old.Commits); k > 0 {
				commit = fmt.Sprintf("%.1fms", float64(since(n.CommitNano, old.CommitNano))/float64(k)/1e6)
			}
			rows = append(rows, []string{
				n.Id, n.State, number(n.Clients), perSecond(since(n.Received, old.Received), took), perSecond(since(n.Sent, old.Sent), took),
				perSecond(since(n.BytesIn, old.BytesIn), took), perSecond(since(sum(n.Dropped), sum(old.Dropped)), took), commit, number(n.Backlog),
			})
		}
		before, at = byID, time.Now()
		return rows, nil
	}
}

// topClients is topNodes for clients.
func (a *asker) topClients() func(context.Context, adminpb.AdminClient, topOptions) ([][]string, error) {
	var before map[string]*adminpb.Client
	var at time.Time
	look := func(ctx context.Context, c adminpb.AdminClient) (map[string]*adminpb.Client, error) {
		byID := make(map[string]*adminpb.Client)
		for token := ""; ; {
			one, cancel := context.WithTimeout(ctx, a.timeout)
			res, err := c.ListClients(one, &adminpb.ListClientsRequest{Page: &adminpb.Page{Size: 5000, Token: token}})
			cancel()
			if err != nil {
				return nil, err
			}
			for _, cl := range res.Clients {
				byID[cl.Id] = cl
			}
			if token = res.NextToken; token == "" {
				return byID, nil
			}
		}
	}
	return func(ctx context.Context, c adminpb.AdminClient, o topOptions) (rows [][]string, err error) {
		if before == nil {
			if before, err = look(ctx, c); err != nil {
				return nil, err
			}
			at = time.Now()
		}
		if err := pause(ctx, o.interval); err != nil {
			return nil, err
		}
		byID, err := look(ctx, c)
		if err != nil {
			return nil, err
		}
		took := time.Since(at)
		type busy struct {
			c       *adminpb.Client
			in, out uint64
		}
		var list []busy
		for id, n := range byID {
			b := busy{c: n, in: n.MessagesIn, out: n.MessagesOut}
			if old := before[id]; old != nil && old.Epoch == n.Epoch {
				b.in, b.out = since(n.MessagesIn, old.MessagesIn), since(n.MessagesOut, old.MessagesOut)
			}
			list = append(list, b)
		}
		slices.SortFunc(list, func(x, y busy) int {
			return cmp.Or(cmp.Compare(y.in+y.out, x.in+x.out), cmp.Compare(y.c.Queued, x.c.Queued), strings.Compare(x.c.Id, y.c.Id))
		})
		rows = append(rows, []string{"CLIENT", "NODE", "IN/S", "OUT/S", "INFLIGHT", "QUEUED", "DROPPED"})
		for _, b := range list[:min(len(list), o.limit)] {
			rows = append(rows, []string{
				readable([]byte(b.c.Id), 60), b.c.Node, perSecond(b.in, took), perSecond(b.out, took), number(b.c.Inflight), number(b.c.Queued), number(sum(b.c.Dropped)),
			})
		}
		before, at = byID, time.Now()
		return rows, nil
	}
}

// topTopics counts what a trace of all messages receives.
func (a *asker) topTopics(ctx context.Context, c adminpb.AdminClient, o topOptions) ([][]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var over atomic.Bool
	end := time.AfterFunc(o.interval, func() {
		over.Store(true)
		cancel()
	})
	defer end.Stop()
	stream, err := c.Trace(ctx, &adminpb.TraceRequest{Filter: "#", Rate: 100_000})
	counts := make(map[string]uint64)
	skipped := uint64(0)
	for err == nil {
		var step *adminpb.TraceStep
		if step, err = stream.Recv(); err == nil {
			skipped += step.Skipped
			if step.Kind == "received" {
				counts[step.Topic]++
			}
		}
	}
	if !over.Load() {
		return nil, errors.Join(ended(err))
	}
	type busy struct {
		topic string
		n     uint64
	}
	var list []busy
	for t, n := range counts {
		list = append(list, busy{t, n})
	}
	slices.SortFunc(list, func(x, y busy) int { return cmp.Or(cmp.Compare(y.n, x.n), strings.Compare(x.topic, y.topic)) })
	rows := [][]string{{"TOPIC", "MESSAGES/S"}}
	for _, b := range list {
		rows = append(rows, []string{readable([]byte(b.topic), 100), perSecond(b.n, o.interval)})
	}
	if skipped > 0 {
		fmt.Fprintf(a.env.Err, "skein: %d steps were left out: too many a second; the figures are too low\n", skipped)
	}
	return rows, nil
}
