package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

var formats = []string{"table", "wide", "json", "yaml", "name"}

// jsonPath begins the format that prints what a JSONPath template says.
const jsonPath = "jsonpath="

// listing is the outcome of one get.
type listing struct {
	items   []proto.Message
	missing []*adminpb.Missing
}

// services are what a node answers.
type services struct {
	adminpb.AdminClient
	access adminpb.AccessClient
}

// fetch asks for one page; it returns the next token.
type fetch func(ctx context.Context, c services, page *adminpb.Page, l *listing) (string, error)

// resource is one thing to get.
type resource struct {
	name, singular string
	aliases        []string
	short          string
	columns        []column
	// id is how one is named on the command line and by -o name.
	id func(proto.Message) string
	// flags adds what only this resource knows and returns how to fetch it.
	flags func(cmd *cobra.Command) func(args []string) (fetch, error)
	// paged says that the server pages the list and selects from it.
	paged bool
	// server says that the arguments are the server's to understand, not names to pick.
	server bool
}

type getOptions struct {
	format    string
	noHeaders bool
	limit     int
	selector  string
	sortBy    string
	watch     bool
	interval  time.Duration
}

// check finds what makes no sense, before anybody is asked.
func (o *getOptions) check() error {
	if template, ok := strings.CutPrefix(o.format, jsonPath); ok {
		if _, err := parseJSONPath(template); err != nil {
			return usageError("--output: %w", err)
		}
	} else if !slices.Contains(formats, o.format) {
		return usageError("--output: unknown format %q; the nearest valid one is %s", o.format, config.Nearest(o.format, append(formats, jsonPath+"TEMPLATE")))
	}
	switch {
	case o.limit < 0:
		return usageError("--limit: %d is less than 0", o.limit)
	case o.watch && o.format != "table" && o.format != "wide" && o.format != "name" && o.format != "json":
		return usageError("--watch: prints table, wide, name or json (an object a line), not %s", o.format)
	case o.interval < 100*time.Millisecond:
		return usageError("--interval: %s is less than 100ms", o.interval)
	}
	return nil
}

func newGet(a *asker) *cobra.Command {
	get := &cobra.Command{
		Use: "get", Short: "List nodes, clients, sessions, subscriptions, routes, shared groups, retained messages, settings, users, groups, roles or bans", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants what to list: nodes, clients, sessions, subscriptions, routes, shared, retained, settings, users, groups, roles or bans", cmd.CommandPath())
		},
	}
	for _, r := range resources() {
		get.AddCommand(newGetOne(a, r))
	}
	return get
}

func newGetOne(a *asker, r resource) *cobra.Command {
	var o getOptions
	use := r.name + " [NAME…]"
	if r.server {
		use = r.name + " [FILTER]"
		if r.name == "settings" {
			use = r.name + " [PREFIX]"
		}
	}
	cmd := &cobra.Command{Use: use, Aliases: append(r.aliases, r.singular), Short: r.short}
	if r.server {
		cmd.Args = arguments("[FILTER]")
	}
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", "table, wide, json, yaml, name or jsonpath=TEMPLATE")
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "leave the headings out")
	cmd.Flags().IntVar(&o.limit, "limit", 0, "items at most (0: all)")
	cmd.Flags().StringVar(&o.sortBy, "sort-by", "", "sort by this `FIELD` of -o json, with a - before it from the largest down")
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "go on with what changes")
	cmd.Flags().DurationVar(&o.interval, "interval", time.Second, "how often to look with -w")
	if r.paged {
		cmd.Flags().StringVarP(&o.selector, "field-selector", "l", "", "only those with these `FIELDS` of -o json, as in node=node1,queued>100,address~10.0.: = != > < and ~ for contains")
		cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
			if name == "selector" {
				name = "field-selector"
			}
			return pflag.NormalizedName(name)
		})
	}
	prepare := r.flags(cmd)
	a.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		if err := o.check(); err != nil {
			return err
		}
		f, err := prepare(args)
		if err != nil {
			return err
		}
		return a.dial(func(conn grpc.ClientConnInterface) error {
			c := services{adminpb.NewAdminClient(conn), adminpb.NewAccessClient(conn)}
			if o.watch {
				return a.watch(cmd.Context(), c, f, r, args, o)
			}
			l, err := a.list(cmd.Context(), c, f, r, args, o)
			if l == nil {
				return err
			}
			if err := l.print(a.env.Out, r, o); err != nil {
				return err
			}
			a.complain(l)
			return err // a name that isn't there: the others are printed
		})
	})
	return cmd
}

// list reads what was asked for. A name that isn't there is an error beside the list of the others.
func (a *asker) list(ctx context.Context, c services, f fetch, r resource, args []string, o getOptions) (*listing, error) {
	l := &listing{}
	limit := o.limit
	if o.sortBy != "" {
		limit = 0 // the first ones in another order may come last
	}
	if err := a.all(ctx, c, f, l, limit, o.selector, len(args) > 0 && !r.server); err != nil {
		return nil, err
	}
	if o.sortBy != "" {
		if err := l.sort(o.sortBy); err != nil {
			return nil, err
		}
	}
	var absent error
	if !r.server {
		absent = l.pick(r, args)
	}
	if o.limit > 0 && len(l.items) > o.limit {
		l.items = l.items[:o.limit]
	}
	return l, absent
}

// all reads page after page. Names are picked afterwards, so a limit holds for what is picked.
func (a *asker) all(ctx context.Context, c services, f fetch, l *listing, limit int, selector string, picks bool) error {
	token := ""
	for {
		page := &adminpb.Page{Token: token, Selector: selector}
		if limit > 0 && !picks {
			page.Size = uint32(min(limit-len(l.items), 500))
		}
		one, cancel := context.WithTimeout(ctx, a.timeout)
		next, err := f(one, c, page, l)
		cancel()
		if err != nil {
			return err
		}
		if next == "" || (limit > 0 && !picks && len(l.items) >= limit) {
			return nil
		}
		token = next
	}
}

// pick leaves the items that were asked for by name. A name that isn't there is an error, after
// the others are printed.
func (l *listing) pick(r resource, names []string) error {
	if len(names) == 0 {
		return nil
	}
	var errs []error
	for _, n := range names {
		if !slices.ContainsFunc(l.items, func(m proto.Message) bool { return r.id(m) == n }) {
			errs = append(errs, fmt.Errorf("no %s %q", r.singular, n))
		}
	}
	l.items = slices.DeleteFunc(l.items, func(m proto.Message) bool { return !slices.Contains(names, r.id(m)) })
	return errors.Join(errs...)
}

func (l *listing) miss(missing []*adminpb.Missing) {
	for _, m := range missing {
		if !slices.ContainsFunc(l.missing, func(o *adminpb.Missing) bool { return o.Node == m.Node }) {
			l.missing = append(l.missing, m)
		}
	}
	slices.SortFunc(l.missing, func(a, b *adminpb.Missing) int { return strings.Compare(a.Node, b.Node) })
}
