package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

func eventRows() resource {
	type E = *adminpb.Event
	return resource{
		name: "events", singular: "event", id: func(m proto.Message) string { return fmt.Sprintf("%s/%d", m.(E).Node, m.(E).Sequence) },
		columns: []column{
			{head: "TIME", cell: func(m proto.Message, now time.Time) string { return clockTime(m.(E).Time, now) }},
			col("NODE", E.GetNode), col("KIND", E.GetKind), col("CLIENT", E.GetClient), col("MESSAGE", eventText),
		},
	}
}

func eventText(e *adminpb.Event) string {
	text := e.Message
	if e.Warning {
		text = "! " + text
	}
	if e.Missed > 0 {
		text += fmt.Sprintf(" (%d events before it were forgotten)", e.Missed)
	}
	return text
}

// clockTime is the time of day, with the date when that is another day.
func clockTime(ms int64, now time.Time) string {
	at := time.UnixMilli(ms).In(now.Location())
	if at.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return at.Format("15:04:05.000")
	}
	return at.Format("2006-01-02 15:04:05.000")
}

func newEvents(a *asker) *cobra.Command {
	var o getOptions
	var follow bool
	var since time.Duration
	f := &adminpb.EventFilter{}
	cmd := &cobra.Command{
		Use: "events", Short: "Tell what has lately happened on the nodes, and with -w what happens", Args: arguments(),
		Long: "Tell what has lately happened on the nodes: who connected, left or was refused and why, what was not\n" +
			"delivered to whom, what became of the nodes, and what operators ordered. Warnings have an exclamation mark.\n" +
			"Each node remembers as many as admin.events says. With -w it goes on with what happens.",
		Example: "  skein events --client sensor-7\n  skein events -w --warnings",
	}
	fs := cmd.Flags()
	fs.BoolVarP(&follow, "watch", "w", false, "go on with what happens")
	fs.StringVar(&f.Client, "client", "", "only of this client `ID`")
	fs.StringSliceVar(&f.Kinds, "kind", nil, "only of these `KINDS`: connected, disconnected, refused, subscribed, unsubscribed, dropped, node, order")
	fs.BoolVar(&f.Warnings, "warnings", false, "only warnings")
	fs.StringVar(&f.Node, "node", "", "only of this `NODE`")
	fs.DurationVar(&since, "since", 0, "only of the last `DURATION`")
	fs.IntVar(&o.limit, "limit", 100, "the newest so many to begin with")
	fs.StringVarP(&o.format, "output", "o", "table", "table, json, yaml or name; with -w table or json (a line each)")
	a.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		known := []string{"table", "json", "yaml", "name"}
		if follow {
			known = known[:2]
		}
		switch {
		case !slices.Contains(known, o.format):
			return usageError("--output: unknown format %q; the nearest valid one is %s", o.format, config.Nearest(o.format, known))
		case o.limit < 1 || o.limit > 5000:
			return usageError("--limit: %d is not between 1 and 5000", o.limit)
		}
		var after int64
		if since > 0 {
			after = now().Add(-since).UnixMilli()
		}
		return a.ask(func(c adminpb.AdminClient) error {
			if follow {
				return a.watchEvents(cmd.Context(), c, f, o, after)
			}
			l := listing{}
			err := a.within(cmd.Context(), func(ctx context.Context) error {
				_, err := listEvents(ctx, c, f, o.limit, after, &l)
				return err
			})
			if err != nil {
				return err
			}
			if err := l.print(a.env.Out, eventRows(), o); err != nil {
				return err
			}
			a.complain(&l)
			return nil
		})
	})
	return cmd
}

// complain names the nodes that did not answer.
func (a *asker) complain(l *listing) {
	for _, m := range l.missing {
		fmt.Fprintf(a.env.Err, "skein: node %s did not answer: %s; what only it knows is missing\n", m.Node, m.Reason)
	}
}

// within runs f with the patience of one request.
func (a *asker) within(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return f(ctx)
}

func listEvents(ctx context.Context, c adminpb.AdminClient, f *adminpb.EventFilter, limit int, after int64, l *listing) ([]*adminpb.Event, error) {
	res, err := c.ListEvents(ctx, &adminpb.ListEventsRequest{Page: &adminpb.Page{Size: uint32(limit)}, Filter: f})
	if err != nil {
		return nil, err
	}
	events := slices.DeleteFunc(res.Events, func(e *adminpb.Event) bool { return e.Time < after })
	add(l, events)
	l.miss(res.Missing)
	return events, nil
}

// watchEvents begins to watch before it lists, so that nothing is between the two, and shows nothing twice.
func (a *asker) watchEvents(ctx context.Context, c adminpb.AdminClient, f *adminpb.EventFilter, o getOptions, after int64) error {
	stream, err := c.WatchEvents(ctx, &adminpb.WatchEventsRequest{Filter: f})
	if err != nil {
		return err
	}
	if _, err := stream.Header(); err != nil {
		return err
	}
	var l listing
	var events []*adminpb.Event
	err = a.within(ctx, func(ctx context.Context) (err error) {
		events, err = listEvents(ctx, c, f, o.limit, after, &l)
		return err
	})
	if err != nil {
		return err
	}
	a.complain(&l)
	shown := make(map[string]uint64)
	p := printer{out: a.env.Out, format: o.format, widths: []int{12, 8, 12, 20}, row: eventRows()}
	for _, e := range events {
		shown[e.Node] = e.Sequence
		p.print(e)
	}
	for {
		e, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		if e.Sequence == 0 || e.Sequence > shown[e.Node] {
			p.print(e)
		}
	}
}

// ended makes the end of a stream that is followed an error that tells why.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the node ended the stream")
	}
	return err
}

// printer prints items as they come: in columns of a fixed width, or as a JSON object a line.
type printer struct {
	out    io.Writer
	format string
	row    resource
	widths []int // of the columns but the last
	begun  bool
}

func (p *printer) print(m proto.Message) {
	if p.format == "json" {
		b, err := json.Marshal(toObject(m))
		if err == nil {
			fmt.Fprintln(p.out, string(b))
		}
		return
	}
	cells := func(cell func(column) string) {
		var b strings.Builder
		for i, c := range p.row.columns {
			text := cell(c)
			if text == "" {
				text = "-"
			}
			if i < len(p.widths) {
				fmt.Fprintf(&b, "%-*s  ", p.widths[i], text)
			} else {
				b.WriteString(text)
			}
		}
		fmt.Fprintln(p.out, strings.TrimRight(b.String(), " "))
	}
	if !p.begun {
		p.begun = true
		cells(func(c column) string { return c.head })
	}
	at := now()
	cells(func(c column) string { return readable([]byte(c.cell(m, at)), 400) })
}
