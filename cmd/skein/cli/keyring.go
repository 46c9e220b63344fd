package cli

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/cluster/certs"
	"github.com/skein-mqtt/skein/cluster/membership"
)

func newKeyring(*Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keyring",
		Short: "Rotate the keys that gossip is encrypted with",
		Long: "Rotate the keys in a file that gossip.key_file names, the same on all nodes. Three steps, after each of which all\n" +
			"nodes get the file and read it by themselves: 'add' (they can read with the new key), 'use' (they write with it),\n" +
			"'prune' (the old one counts no more).",
		Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants what to do: add, use or prune", cmd.CommandPath())
		},
	}
	for _, step := range []struct {
		use, short string
		change     func([]string) ([]string, error)
	}{
		{"add", "Add a new key at the end; makes the file if need be", addKey},
		{"use", "Make the last key the first, which encrypts", useKey},
		{"prune", "Take all keys out but the first", pruneKeys},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: step.use + " FILE", Short: step.short, Args: arguments("FILE"),
			RunE: run(func(_ *cobra.Command, args []string) error { return editKeys(args[0], step.change) }),
		})
	}
	return cmd
}

func addKey(keys []string) ([]string, error) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return append(keys, hex.EncodeToString(b[:])), nil
}

func useKey(keys []string) ([]string, error) {
	if len(keys) < 2 {
		return nil, errors.New("there is no second key: use 'skein keyring add' first")
	}
	last := len(keys) - 1
	return append([]string{keys[last]}, keys[:last]...), nil
}

func pruneKeys(keys []string) ([]string, error) {
	if len(keys) == 0 {
		return nil, errors.New("there is no key")
	}
	return keys[:1], nil
}

// editKeys changes the file's keys, and leaves it alone when it holds anything else.
func editKeys(path string, change func([]string) ([]string, error)) error {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var keys []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			keys = append(keys, line)
		}
	}
	if keys, err = change(keys); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	text := strings.Join(keys, "\n") + "\n"
	if _, err := membership.ParseKeys([]byte(text)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return certs.WriteFile(path, []byte(text))
}
