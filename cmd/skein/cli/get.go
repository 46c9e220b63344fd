package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

var formats = []string{"table", "wide", "json", "yaml", "name"}

// listing is the outcome of one get.
type listing struct {
	items   []proto.Message
	missing []*adminpb.Missing
}

// fetch asks for one page; it returns the next token.
type fetch func(ctx context.Context, c adminpb.AdminClient, page *adminpb.Page, l *listing) (string, error)

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
	// server says that the arguments are the server's to understand, not names to pick.
	server bool
}

type getOptions struct {
	format    string
	noHeaders bool
	limit     int
}

func newGet(a *asker) *cobra.Command {
	get := &cobra.Command{
		Use: "get", Short: "List nodes, clients, sessions, subscriptions, retained messages or settings", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants what to list: nodes, clients, sessions, subscriptions, retained or settings", cmd.CommandPath())
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
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", "table, wide, json, yaml or name")
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "leave the headings out")
	cmd.Flags().IntVar(&o.limit, "limit", 0, "items at most (0: all)")
	prepare := r.flags(cmd)
	a.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, o.format) {
			return usageError("--output: unknown format %q; the nearest valid one is %s", o.format, config.Nearest(o.format, formats))
		}
		if o.limit < 0 {
			return usageError("--limit: %d is less than 0", o.limit)
		}
		f, err := prepare(args)
		if err != nil {
			return err
		}
		var l listing
		err = a.ask(func(c adminpb.AdminClient) error {
			return a.all(cmd.Context(), c, f, &l, o.limit, len(args) > 0 && !r.server)
		})
		if err != nil {
			return err
		}
		var absent error
		if !r.server {
			absent = l.pick(r, args, o.limit)
		}
		if err := l.print(a.env.Out, r, o); err != nil {
			return err
		}
		a.complain(&l)
		return absent
	})
	return cmd
}

// all reads page after page. Names are picked afterwards, so a limit holds for what is picked.
func (a *asker) all(ctx context.Context, c adminpb.AdminClient, f fetch, l *listing, limit int, picks bool) error {
	token := ""
	for {
		page := &adminpb.Page{Token: token}
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
func (l *listing) pick(r resource, names []string, limit int) error {
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
	if limit > 0 && len(l.items) > limit {
		l.items = l.items[:limit]
	}
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
