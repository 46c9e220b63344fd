package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/node/operators"
)

func newOperator(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "operator", Short: "Say who may give orders to nodes", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants what to do: add or remove", cmd.CommandPath())
		},
	}
	var role string
	var cert bool
	add := &cobra.Command{
		Use:   "add FILE NAME",
		Short: "Make a token for an operator",
		Long: "Make a token for an operator, print it once, and write its digest into the file that admin.operators_file\n" +
			"names, which is made if need be. Nodes read the file again by themselves. With --cert-name the operator shows a\n" +
			"certificate of that common name instead, signed by admin.ca.\n\n" +
			"A token is for the commands (--token-file, SKEIN_TOKEN), for Prometheus (a bearer token) and for browsers (as the\n" +
			"password, with any name).",
		Args: arguments("FILE", "NAME"),
	}
	add.Flags().StringVar(&role, "role", "view", "what the operator may do: view, operate or admin")
	add.Flags().BoolVar(&cert, "cert-name", false, "make no token: NAME is the common name of a certificate")
	add.RunE = run(func(_ *cobra.Command, args []string) error {
		r, err := operators.ParseRole(role)
		if err != nil {
			return usageError("--role: %w", err)
		}
		token, credential := "", ""
		if !cert {
			token, credential = operators.NewToken()
		}
		if err := operators.Add(args[0], args[1], r, credential); err != nil {
			return err
		}
		if token != "" {
			fmt.Fprintln(env.Out, token)
		}
		return nil
	})
	remove := &cobra.Command{
		Use: "remove FILE NAME", Short: "Take an operator's tokens and certificate names out of the file", Args: arguments("FILE", "NAME"),
		RunE: run(func(_ *cobra.Command, args []string) error { return operators.Remove(args[0], args[1]) }),
	}
	cmd.AddCommand(add, remove)
	return cmd
}
