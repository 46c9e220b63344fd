package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/cmd/skein/mosquitto"
)

func newImport(env *Env) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "import mosquitto.conf", Short: "Turn a Mosquitto configuration into a node's, and tell what became of each line", Args: arguments("FILE"),
		Long: "Turn a Mosquitto configuration, with what it includes, into the configuration of a node. It is written to standard\n" +
			"output, or to --out. What became of each line is told on standard error: taken, changed, needless, or MISSING where\n" +
			"there is no counterpart. Password, ACL and PSK files are used as they are. The node is never more open than the\n" +
			"broker was: where nobody could log in without a plugin, auth.require keeps everybody out until there is a user.",
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "write the configuration to this `FILE`")
	cmd.RunE = run(func(_ *cobra.Command, args []string) error {
		r, err := mosquitto.Import(args[0])
		if err != nil {
			return err
		}
		for _, n := range r.Notes {
			fmt.Fprintln(env.Err, readable([]byte(n.String()), 1000))
		}
		fmt.Fprintf(env.Err, "%d lines, %d of them without a counterpart\n", len(r.Notes), r.Lost())
		if out == "" {
			_, err = env.Out.Write(r.Config)
			return err
		}
		if err := os.WriteFile(out, r.Config, 0o600); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
		_, err = config.Load(out, nil, nil)
		return err
	})
	return cmd
}
