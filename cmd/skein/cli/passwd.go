package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/skein-mqtt/skein/node/auth"
)

func newPasswd(env *Env) *cobra.Command {
	var remove bool
	c := &cobra.Command{
		Use:   "passwd FILE USER",
		Short: "Set or remove a user's password in a password file",
		Long: "Set a user's password in a file that auth.password_file names, which is made if need be, or remove the user\n" +
			"with --delete. The password is read from the terminal, twice, or from standard input's first line. Nodes read\n" +
			"the file again by themselves. Lines that mosquitto_passwd has written stay as they are.",
		Args: arguments("FILE", "USER"),
		RunE: run(func(_ *cobra.Command, args []string) error {
			if remove {
				return auth.RemoveUser(args[0], args[1])
			}
			password, err := askPassword(env.Err)
			if err != nil {
				return err
			}
			return auth.SetPassword(args[0], args[1], auth.NewHash(password))
		}),
	}
	c.Flags().BoolVarP(&remove, "delete", "D", false, "remove the user")
	return c
}

// askPassword reads a password without showing it where there is a terminal.
func askPassword(prompt io.Writer) ([]byte, error) {
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return nil, fmt.Errorf("standard input holds no password: %w", errors.Join(err, errEmpty))
		}
		return []byte(line), nil
	}
	var twice [2][]byte
	for i, text := range []string{"Password: ", "Again: "} {
		fmt.Fprint(prompt, text)
		var err error
		twice[i], err = term.ReadPassword(in)
		fmt.Fprintln(prompt)
		if err != nil {
			return nil, fmt.Errorf("read the password: %w", err)
		}
	}
	switch {
	case len(twice[0]) == 0:
		return nil, errEmpty
	case string(twice[0]) != string(twice[1]):
		return nil, errors.New("the passwords differ")
	}
	return twice[0], nil
}

var errEmpty = errors.New("the password is empty")
