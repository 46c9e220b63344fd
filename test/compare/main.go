// Command compare runs the same load against Skein and its peers, in alternation on this machine, and
// writes a table with ratios and a chart. scripts/compare builds what it needs and is how people start it.
//
// brokers.go knows how each broker is started, rows.go what is measured, report.go how it is shown.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	bin      string // folder of the binaries
	rounds   int
	duration time.Duration
	rows     []string // substrings of their names; empty: all
	table    string   // file to write between its markers; empty: only to stdout
	chart    string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	fs.StringVar(&o.bin, "bin", "", "`folder` with skein, mochi and nats")
	fs.IntVar(&o.rounds, "rounds", 3, "how often each broker has its turn in each row")
	fs.DurationVar(&o.duration, "duration", 4*time.Second, "of each turn")
	list := fs.String("rows", "", "only rows whose names contain one of these, comma-separated")
	fs.StringVar(&o.table, "table", "", "`file` whose part between the markers is replaced")
	fs.StringVar(&o.chart, "chart", "", "SVG `file` to write")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *list != "" {
		o.rows = strings.Split(*list, ",")
	}
	if o.rounds < 1 || o.bin == "" {
		return errors.New("-bin is needed and -rounds must be at least 1")
	}
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	peers, missing := present(o.bin)
	for _, m := range missing {
		fmt.Fprintln(os.Stderr, "left out:", m)
	}
	var results []*result
	for _, r := range rows {
		if len(o.rows) > 0 && !slices.ContainsFunc(o.rows, func(s string) bool { return strings.Contains(r.name, s) }) {
			continue
		}
		res, err := r.measure(ctx, &o, peers, filepath.Join(dir, fmt.Sprint(len(results))))
		if err != nil {
			return err
		}
		results = append(results, res)
		fmt.Fprintln(os.Stderr, res.line())
	}
	return write(&o, results, missing)
}
