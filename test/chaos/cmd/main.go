// Command cmd is the fault checker's command line; scripts/chaos is how people start it. It owns flags and the
// exit code: 0 nothing found, 1 a promise broken or a run that could not be made, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/skein-mqtt/skein/test/chaos"
	"github.com/skein-mqtt/skein/test/chaos/disk"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, errUsage):
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "chaos:", err)
	stop()
	os.Exit(1)
}

var (
	errUsage  = errors.New("wrong usage")
	errBroken = errors.New("a promise does not hold")
)

func run(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("chaos", flag.ContinueOnError)
	minutes := set.Float64("minutes", 1, "how `long`")
	seed := set.Uint64("seed", 0, "the `number` that decides what happens; 0: a new one")
	list := set.String("faults", "", "only these, `a,b`: "+strings.Join(chaos.FaultNames(), ", "))
	nodes := set.Int("nodes", 3, "how many `nodes`")
	round := set.Duration("round", 45*time.Second, "`time` of faults before the cluster is left in peace and validated")
	rate := set.Float64("rate", 1, "1 is about 100 publishes a second")
	binary := set.String("binary", "", "the skein `file`; empty: built from the source")
	keep := set.String("dir", "", "`folder` for the nodes' data and logs, kept; empty: a new one, removed if nothing was found")
	balancer := set.Bool("balancer", false, "clients reach the nodes through HAProxy alone, as in docker-compose.yml")
	measure := set.Int("measure", 0, "instead of checking, kill followers and leaders so many `times` each, drain and roll, and print what clients see")
	verbose := set.Bool("v", false, "tell what is done to nodes as it happens")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if set.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "chaos: it does not know what to do with %q\n", set.Arg(0))
		return errUsage
	}
	o := &chaos.Options{
		Seed: *seed, Length: time.Duration(*minutes * float64(time.Minute)), Round: *round, Nodes: *nodes,
		Rate: *rate, Out: os.Stdout, Verbose: *verbose, Dir: *keep, Binary: *binary, Balancer: *balancer,
	}
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	if *list != "" {
		o.Faults = strings.Split(*list, ",")
	}
	dir, err := os.MkdirTemp("", "skein-chaos-")
	if err != nil {
		return err
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(dir, "nodes")
	}
	if o.Binary == "" {
		o.Binary = filepath.Join(dir, "skein")
	}
	if err := o.Validate(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return errors.Join(errUsage, os.RemoveAll(dir))
	}
	if err := prepare(ctx, o, *binary == ""); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if *measure > 0 {
		if err := chaos.Measure(ctx, o, *measure); err != nil {
			return fmt.Errorf("%w; the nodes' logs are in %s", err, o.Dir)
		}
		return os.RemoveAll(dir)
	}
	fmt.Printf("chaos: seed %d, %v, nodes in %s\n", o.Seed, o.Length, o.Dir)
	if err := disk.Available(); err != nil {
		fmt.Println("chaos: without faults of disks:", err)
	}
	m, err := chaos.Run(ctx, o)
	if m != nil {
		m.Report(os.Stdout, o)
		if kept, _ := m.Violations(); err == nil && len(kept) > 0 {
			err = errBroken
		}
	}
	if err != nil {
		return fmt.Errorf("%w; the nodes' logs are in %s", err, o.Dir)
	}
	return os.RemoveAll(dir)
}

// prepare makes the folder and, if it was not given, the binary.
func prepare(ctx context.Context, o *chaos.Options, build bool) error {
	if entries, err := os.ReadDir(o.Dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("--dir: %s is not empty", o.Dir)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	if !build {
		return nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "chaos", "-o", o.Binary, "./cmd/skein")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build skein: %w\n%s", err, out)
	}
	return nil
}
