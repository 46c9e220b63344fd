package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/cmd/skein/bench"
	"github.com/skein-mqtt/skein/proto/mqtt"
)

// newBench is 'skein bench': load for any broker.
func newBench(env *Env) *cobra.Command {
	cfg := bench.Default()
	var addrs, pubs, subs []string
	var version, output string
	var qos uint8
	var clean bool
	cmd := &cobra.Command{
		Use:   "bench MODE",
		Short: "Put load on a broker and measure it",
		Long: "Put load on a broker, ours or another, and measure it. MODE is who publishes to whom:\n\n" +
			"  pairs     each of --pairs publishers to a subscriber of its own\n" +
			"  fanin     --fan publishers to one subscriber\n" +
			"  fanout    one publisher to --fan subscribers\n" +
			"  shared    --pairs publishers to a shared group of as many\n" +
			"  wildcard  as pairs, but each message has one of --filters filters with wildcards to find\n" +
			"  retained  --count messages are retained, then somebody subscribes to all of them: how fast they come\n" +
			"  replay    --count messages are queued for --pairs sessions, whose clients then come back: how fast they come\n" +
			"  connects  --clients connections as fast as they are taken\n" +
			"  idle      --clients connections that do nothing\n\n" +
			"Each message carries a number, so what is lost, repeated or out of order is counted, and when\n" +
			"it was due, so that at a fixed --rate a stall shows in every message that it delayed. Without a\n" +
			"rate, publishers send as fast as their windows allow: at QoS 0 a window is what its subscribers\n" +
			"have not received, else what is not acknowledged.",
		Example: "  skein bench pairs --qos 1 --pids $(pgrep -d, -x skein)\n" +
			"  skein bench pairs --pub-addr 127.0.0.1:18840 --sub-addr 127.0.0.1:18850,127.0.0.1:18860 --rate 1000",
		Args: arguments("MODE"),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringSliceVar(&addrs, "addr", cfg.PubAddrs, "brokers, which clients connect to in turn: `HOST:PORT`,…")
	fs.StringSliceVar(&pubs, "pub-addr", nil, "brokers of publishers, instead of --addr: `HOST:PORT`,…")
	fs.StringSliceVar(&subs, "sub-addr", nil, "brokers of subscribers, instead of --addr: `HOST:PORT`,…")
	fs.StringVar(&version, "version", "3.1.1", "of the protocol: 3.1, 3.1.1 or 5")
	fs.StringVar(&cfg.Username, "username", "", "to connect with")
	fs.StringVar(&cfg.Password, "password", "", "to connect with")
	fs.Uint8Var(&qos, "qos", 0, "of publishes and subscriptions")
	fs.IntVar(&cfg.Pairs, "pairs", cfg.Pairs, "publishers, and as many subscribers, of pairs and shared")
	fs.IntVar(&cfg.Fan, "fan", cfg.Fan, "publishers of fanin, subscribers of fanout")
	fs.IntVar(&cfg.Filters, "filters", cfg.Filters, "of all subscribers of wildcard together")
	fs.IntVar(&cfg.Clients, "clients", cfg.Clients, "connections of connects and idle")
	fs.IntVar(&cfg.At, "concurrency", cfg.At, "connections of connects and idle that are opened at a time")
	fs.IntVar(&cfg.Payload, "payload", cfg.Payload, "`bytes` of a message")
	fs.IntVar(&cfg.Window, "window", cfg.Window, "messages of a publisher that are under way at a time")
	fs.Float64Var(&cfg.Rate, "rate", 0, "messages a second of all publishers together; 0: as fast as they are taken")
	fs.DurationVar(&cfg.Warmup, "warmup", cfg.Warmup, "how long to run before the figures begin")
	fs.DurationVar(&cfg.Duration, "duration", cfg.Duration, "how long to measure")
	fs.IntVar(&cfg.Count, "count", 0, "messages of all publishers together, instead of --duration")
	fs.BoolVar(&clean, "clean", true, "sessions end with their connections")
	fs.BoolVar(&cfg.Persistent, "persistent", false, "subscribers' sessions are persistent; they are removed afterwards")
	fs.BoolVar(&cfg.PersistentPublishers, "persistent-publishers", false, "publishers' sessions are persistent, too")
	fs.DurationVar(&cfg.KeepAlive, "keepalive", 0, "of connects and idle; 0: none")
	fs.DurationVar(&cfg.Drain, "drain", cfg.Drain, "how long to wait at the end for the next of the messages that are missing")
	fs.IntSliceVar(&cfg.PIDs, "pids", nil, "processes whose CPU and memory to report: `PID`,…")
	fs.DurationVar(&cfg.Progress, "progress", cfg.Progress, "between lines on stderr about how far it is; 0: none")
	fs.StringVarP(&output, "output", "o", "table", "table or json")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		versions := map[string]mqtt.Version{"3.1": mqtt.V31, "3.1.1": mqtt.V311, "5": mqtt.V5, "5.0": mqtt.V5}
		if cfg.Version = versions[version]; cfg.Version == 0 {
			return usageError("--version is %q: use 3.1, 3.1.1 or 5", version)
		}
		if output != "table" && output != "json" {
			return usageError("--output is %q: use table or json", output)
		}
		if fs.Changed("clean") && clean == cfg.Persistent {
			return usageError("--clean and --persistent contradict each other")
		}
		cfg.Mode, cfg.QoS, cfg.Log = bench.Mode(args[0]), qos, env.Err
		cfg.ForMode(fs.Changed)
		cfg.PubAddrs, cfg.SubAddrs = slices.Clone(addrs), slices.Clone(addrs)
		if len(pubs) > 0 {
			cfg.PubAddrs = pubs
		}
		if len(subs) > 0 {
			cfg.SubAddrs = subs
		}
		if err := cfg.Validate(); err != nil {
			return &UsageError{err: err}
		}
		ctx, stop := interruptible(cmd)
		defer stop()
		res, err := bench.Run(ctx, cfg) // an interrupted run reports what it has
		if res == nil {
			return err
		}
		return errors.Join(err, show(env.Out, res, output))
	})
	return cmd
}

func show(w io.Writer, res *bench.Result, output string) error {
	write := res.Table
	if output == "json" {
		write = res.JSON
	}
	if err := write(w); err != nil {
		return fmt.Errorf("the result can't be written: %w", err)
	}
	return nil
}
