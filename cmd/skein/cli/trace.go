package cli

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

type traceOptions struct {
	sample float64
	rate   uint32
	length time.Duration
	steps  int
	format string
}

func newTrace(a *asker) *cobra.Command {
	trace := &cobra.Command{
		Use: "trace", Short: "Follow single messages through the cluster, step by step", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants what to follow: client ID, or topic FILTER", cmd.CommandPath())
		},
	}
	long := "Each line is a step of one message on one node, with the time since its first step that was seen:\n" +
		"  received      the node has the PUBLISH, then authorised or dropped\n" +
		"  road          how it goes: by the log, or by the links between nodes\n" +
		"  held          it waits: for a lease, or for its turn\n" +
		"  link, arrived it goes to another node, and is there; taken: all of them have it\n" +
		"  committed     the log has it, at which index and after how long\n" +
		"  stored        for sessions that are not connected\n" +
		"  queued        it waits for its subscriber\n" +
		"  sent          to whom; acknowledged: by whom, and how long that took\n" +
		"  dropped       and for which reason\n" +
		"Messages are named by a digest: the same on every node. Nothing is slowed down while nobody traces."
	trace.AddCommand(
		newTraceOf(a, "client ID", "ID", "Follow what a client publishes and what is on the way to it", long,
			func(req *adminpb.TraceRequest, what string) { req.Client = what }),
		newTraceOf(a, "topic FILTER", "FILTER", "Follow messages whose topic matches a filter", long,
			func(req *adminpb.TraceRequest, what string) { req.Filter = what }))
	return trace
}

func newTraceOf(a *asker, use, argument, short, long string, set func(*adminpb.TraceRequest, string)) *cobra.Command {
	var o traceOptions
	cmd := &cobra.Command{Use: use, Short: short, Long: short + ".\n\n" + long, Args: arguments(argument)}
	fs := cmd.Flags()
	fs.Float64Var(&o.sample, "sample", 1, "this part of the messages, the same ones on every node")
	fs.Uint32Var(&o.rate, "rate", 500, "steps a second at most, of each node")
	fs.DurationVar(&o.length, "for", 0, "end after this `DURATION` (0: when interrupted)")
	fs.IntVar(&o.steps, "steps", 0, "end after so many steps (0: when interrupted)")
	fs.StringVarP(&o.format, "output", "o", "text", "text, or json (an object a line)")
	a.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		known := []string{"text", "json"}
		switch {
		case !slices.Contains(known, o.format):
			return usageError("--output: unknown format %q; the nearest valid one is %s", o.format, config.Nearest(o.format, known))
		case !(o.sample > 0 && o.sample <= 1):
			return usageError("--sample: %g is not more than 0 and at most 1", o.sample)
		}
		req := &adminpb.TraceRequest{Sample: o.sample, Rate: o.rate}
		set(req, args[0])
		return a.ask(func(c adminpb.AdminClient) error { return a.trace(cmd.Context(), c, req, o) })
	})
	return cmd
}

func (a *asker) trace(ctx context.Context, c adminpb.AdminClient, req *adminpb.TraceRequest, o traceOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var over atomic.Bool
	if o.length > 0 {
		end := time.AfterFunc(o.length, func() {
			over.Store(true)
			cancel()
		})
		defer end.Stop()
	}
	stream, err := c.Trace(ctx, req)
	if err != nil {
		return err
	}
	p := printer{out: a.env.Out, format: o.format, widths: []int{8, 8, 10, 13, 16, 20}, row: steps()}
	for n := 0; o.steps == 0 || n < o.steps; {
		step, err := stream.Recv()
		if err != nil {
			if over.Load() {
				return nil
			}
			return ended(err)
		}
		switch {
		case o.format == "text" && step.Kind == "joined":
			fmt.Fprintf(a.env.Err, "skein: %s takes part\n", step.Node)
		case o.format == "text" && step.Kind == "lost":
			fmt.Fprintf(a.env.Err, "skein: %s does not take part: %s\n", step.Node, step.Detail)
		default:
			p.print(step)
		}
		if step.Message != "" {
			n++
		}
	}
	return nil
}

// firstSteps bounds the messages whose beginning is remembered.
const firstSteps = 10_000

func steps() resource {
	type S = *adminpb.TraceStep
	first := make(map[string]uint64)
	return resource{
		name: "steps", singular: "step", id: func(m proto.Message) string { return m.(S).Message },
		columns: []column{
			col("MESSAGE", func(s S) string { return s.Message[:min(8, len(s.Message))] }),
			col("NODE", S.GetNode),
			col("AFTER", func(s S) string {
				begin, ok := first[s.Message]
				if !ok {
					if len(first) >= firstSteps {
						clear(first)
					}
					first[s.Message], begin = s.Time, s.Time
				}
				return fmt.Sprintf("%+.2fms", float64(int64(s.Time-begin))/1e6)
			}),
			col("STEP", S.GetKind), col("CLIENT", S.GetClient), col("TOPIC", S.GetTopic), col("DETAIL", stepDetail),
		},
	}
}

func stepDetail(s *adminpb.TraceStep) string {
	text := s.Detail
	more := func(format string, args ...any) {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf(format, args...)
	}
	if s.PacketId != 0 {
		more("packet id %d", s.PacketId)
	}
	if s.Index != 0 {
		more("log index %d", s.Index)
	}
	if s.TookNano != 0 {
		more("%.2f ms", float64(s.TookNano)/1e6)
	}
	if s.Skipped != 0 {
		more("%d steps before it are left out: over the rate", s.Skipped)
	}
	return text
}
