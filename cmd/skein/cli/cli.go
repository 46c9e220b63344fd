// Package cli is the command line: skein run, and the verbs that ask a running cluster.
//
// It owns flags, output formats and exit codes. It must never hold broker logic: run is handed in,
// and the verbs are calls of the admin service.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/cmd/skein/version"
)

// Env is what the command line talks to.
type Env struct {
	Out, Err io.Writer
	Environ  []string // as os.Environ
	// Run runs a node until ctx ends.
	Run func(ctx context.Context, c *config.Config) error
}

// UsageError is a wrong flag, key or argument: exit code 2.
type UsageError struct{ err error }

func (e *UsageError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *UsageError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return &UsageError{err: fmt.Errorf(format, args...)}
}

// ExitCode is 0 for nil, 2 for a wrong usage, 1 for anything else.
func ExitCode(err error) int {
	var usage *UsageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return 2
	}
	return 1
}

// failed marks an error of a command that was used rightly.
type failed struct{ err error }

func (e *failed) Error() string { return e.err.Error() }
func (e *failed) Unwrap() error { return e.err }

// Execute runs one command line. What cobra itself finds wrong is wrong usage.
func Execute(ctx context.Context, env Env, args []string) error {
	root := newRoot(&env)
	root.SetArgs(args)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	var f *failed
	var u *UsageError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &u):
		return u
	case errors.As(err, &f):
		return f.err
	}
	return &UsageError{err: err}
}

func newRoot(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "skein",
		Short: "Skein is a clustered MQTT broker",
		Long: "Skein is a clustered MQTT broker: 'skein run' starts a node, the other commands ask a running\n" +
			"cluster through any of its nodes.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          subcommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().SortFlags = false
	root.SetFlagErrorFunc(flagError)
	a := &asker{env: env}
	root.AddCommand(newRun(env), newGet(a), newDescribe(a), newExplain(a), newDisconnect(a), newDelete(a), newDrain(a), newRemove(a), newTransfer(a), newRecover(env), newHealthcheck(env), newPub(env), newSub(env), newBench(env), newPasswd(env), newOperator(env), newCerts(env), newKeyring(env), newVersion(a))
	root.AddCommand(newEvents(a), newTrace(a), newLogs(a), newCordon(a, true), newCordon(a, false), newRebalance(a), newBackup(a), newRestore(a), newSnapshot(a), newSet(a), newUpgrade(a), newTop(a))
	root.AddCommand(newCreate(a), newApply(a), newAuth(a), newImport(env), newConfig(env))
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.useContext(cmd); err != nil {
			return &failed{err: err}
		}
		return nil
	}
	complete(root, a)
	return root
}

// run wraps a command's function so that its errors count as failures, not as wrong usage.
func run(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f(cmd, args); err != nil {
			return &failed{err: err}
		}
		return nil
	}
}

// interruptible is the command's context, which also ends at SIGINT and SIGTERM: for commands that have something to
// tidy up or to say then.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
}

// subcommand refuses what is none of a command's subcommands.
func subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden && c.Name() != "help" {
			names = append(names, c.Name())
		}
	}
	return usageError("unknown command %q for '%s'; the nearest valid one is %s", args[0], cmd.CommandPath(), config.Nearest(args[0], names))
}

// arguments wants exactly those, or at most those after the first optional one ("[NAME]").
func arguments(names ...string) cobra.PositionalArgs {
	least := 0
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			least++
		}
	}
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least {
			return usageError("'%s' wants %s: see '%[1]s --help'", cmd.CommandPath(), strings.Join(names[len(args):least], " "))
		}
		if len(args) > len(names) {
			return usageError("'%s' does not know what to do with %q: see '%[1]s --help'", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// flagError names the nearest flag to one that isn't there.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usageError("%w", err)
	}
	name := unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		return usageError("%w: see '%s --help'", err, cmd.CommandPath())
	}
	names := []string{"help"}
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if len(names) == 0 {
		return usageError("%w", err)
	}
	return usageError("unknown flag --%s; the nearest valid one is --%s", name, config.Nearest(name, names))
}

func newRun(env *Env) *cobra.Command {
	var path string
	var printConfig bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a node",
		Long: "Run a node until SIGTERM or SIGINT, which lets its clients go and ends it; a second one ends it at once.\n" +
			"Without any flag it is a complete single-node broker on 127.0.0.1:1883.\n\n" +
			"Every key of the configuration has a flag: mqtt.max_qos is --mqtt-max-qos; and an environment\n" +
			"variable: SKEIN_MQTT_MAX_QOS. 'skein run --print-config' shows all keys with their meaning.",
		Args: arguments(),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.NewReplacer(".", "-", "_", "-").Replace(name))
	})
	fs.StringVar(&path, "config", "", "read the configuration `FILE` (YAML)")
	fs.BoolVar(&printConfig, "print-config", false, "print the whole effective configuration as YAML and exit")
	flags := config.Register(fs)
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(path, env.Environ, flags.Assignments())
		if err != nil {
			return &UsageError{err: err}
		}
		if printConfig {
			_, err := env.Out.Write(c.YAML())
			return err
		}
		return env.Run(cmd.Context(), c)
	})
	return cmd
}

func newVersion(a *asker) *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version of this binary, and with --server that of a node", Args: arguments()}
	a.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		fmt.Fprintln(a.env.Out, version.Line())
		if !cmd.Flags().Changed("server") {
			return nil
		}
		return a.version(cmd.Context())
	})
	return cmd
}
