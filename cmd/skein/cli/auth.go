package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

func newAuth(a *asker) *cobra.Command {
	auth := &cobra.Command{
		Use: "auth", Short: "Ask what a user may do; change a user's password; disable and enable users", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants can-i USER ACTION TOPIC, passwd USER, disable USER or enable USER", cmd.CommandPath())
		},
	}
	auth.AddCommand(newCanI(a), newAuthPasswd(a), newAble(a, "disable", true), newAble(a, "enable", false))
	return auth
}

// errNo is the answer of can-i that makes the exit code 1; it has been printed.
var errNo = errors.New("it may not")

func newCanI(a *asker) *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use: "can-i USER publish|receive|subscribe|unsubscribe TOPIC", Short: "Tell whether a user may do something, and which rule says so",
		Long: "Tell whether a user may do something, and which rule says so, once it is let in. The exit code is 0 for yes and 1\n" +
			"for no. '' is a client without a user name. auth.acl_file is that of the node which is asked.",
		Args: arguments("USER", "publish|receive|subscribe|unsubscribe", "TOPIC"),
	}
	a.flags(cmd)
	cmd.Flags().StringVar(&id, "client-id", "", "as a client of this `ID`")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		return a.access(cmd.Context(), func(ctx context.Context, c adminpb.AccessClient) error {
			res, err := c.CanI(ctx, &adminpb.CanIRequest{Username: args[0], ClientId: id, Action: args[1], Topic: args[2]})
			if err != nil {
				return err
			}
			fmt.Fprintf(a.env.Out, "%s: %s\n", yes(res.Allowed), res.Reason)
			if !res.Allowed {
				return errNo
			}
			return nil
		})
	})
	return cmd
}

func newAuthPasswd(a *asker) *cobra.Command {
	var none bool
	cmd := &cobra.Command{
		Use: "passwd USER", Short: "Change a user's password", Args: arguments("USER"),
		Long: "Change the password of one of the cluster's users. It is read from the terminal, twice, or from standard input's\n" +
			"first line, and leaves this process only hashed. Connections that stand already stay: see 'skein disconnect'.",
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&none, "no-password", false, "take the password away")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		put := &adminpb.PutUser{User: &adminpb.User{Name: args[0]}, Keep: true}
		if none {
			put.PasswordHash = new(string)
		} else {
			password, err := askPassword(a.env.Err)
			if err != nil {
				return err
			}
			setPassword(put, password)
		}
		return a.changeOne(cmd.Context(), "user/"+args[0], &adminpb.AccessChange{Op: &adminpb.AccessChange_PutUser{PutUser: put}})
	})
	return cmd
}

func newAble(a *asker, verb string, disabled bool) *cobra.Command {
	short := "Let a user log in again"
	if disabled {
		short = "Keep a user from logging in, and close its connections"
	}
	cmd := &cobra.Command{Use: verb + " USER", Short: short, Args: arguments("USER")}
	a.flags(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		put := &adminpb.PutUser{User: &adminpb.User{Name: args[0]}, Keep: true, Disabled: &disabled}
		return a.changeOne(cmd.Context(), "user/"+args[0], &adminpb.AccessChange{Op: &adminpb.AccessChange_PutUser{PutUser: put}})
	})
	return cmd
}
