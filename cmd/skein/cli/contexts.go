package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/cmd/skein/config"
)

// contexts is the file that names clusters and how to reach them.
type contexts struct {
	Current  string         `yaml:"currentContext,omitempty"`
	Contexts []namedContext `yaml:"contexts"`

	path string
}

// namedContext is one cluster. Relative paths are from the folder of the file.
type namedContext struct {
	Name      string `yaml:"name"`
	Server    string `yaml:"server,omitempty"`
	Certs     string `yaml:"certs,omitempty"`
	CA        string `yaml:"ca,omitempty"`
	Cert      string `yaml:"cert,omitempty"`
	Key       string `yaml:"key,omitempty"`
	TokenFile string `yaml:"tokenFile,omitempty"`
}

// files are the fields that hold paths, by the flags that set them.
func (c *namedContext) files() map[string]*string {
	return map[string]*string{"certs": &c.Certs, "ca": &c.CA, "cert": &c.Cert, "key": &c.Key, "token-file": &c.TokenFile}
}

// contextsPath is where the file is; empty: nowhere, for there is no home.
func (e *Env) contextsPath() string {
	if path := e.get("SKEIN_CONTEXTS", ""); path != "" {
		return path
	}
	if dir := e.get("XDG_CONFIG_HOME", ""); dir != "" {
		return filepath.Join(dir, "skein", "contexts.yaml")
	}
	if home := e.get("HOME", ""); home != "" {
		return filepath.Join(home, ".config", "skein", "contexts.yaml")
	}
	return ""
}

// contexts reads the file. One that is not there holds none.
func (e *Env) contexts() (*contexts, error) {
	c := &contexts{path: e.contextsPath()}
	if c.path == "" {
		return c, nil
	}
	data, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("contexts: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(data, c, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %s", c.path, yaml.FormatError(err, false, true))
	}
	return c, nil
}

// save writes the file, whole or not at all.
func (c *contexts) save() error {
	if c.path == "" {
		return errors.New("there is no home folder for the contexts: name a file in SKEIN_CONTEXTS")
	}
	data, err := yaml.MarshalWithOptions(c, yaml.IndentSequence(true))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	part, err := os.CreateTemp(filepath.Dir(c.path), ".contexts-*")
	if err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	_, err = part.Write(data)
	if err = errors.Join(err, part.Sync(), part.Close()); err == nil {
		err = os.Rename(part.Name(), c.path)
	}
	if err != nil {
		_ = os.Remove(part.Name())
		return fmt.Errorf("contexts: %w", err)
	}
	return nil
}

func (c *contexts) names() (out []string) {
	for _, one := range c.Contexts {
		out = append(out, one.Name)
	}
	return out
}

// find is the context of that name; what says where the name comes from.
func (c *contexts) find(what, name string) (*namedContext, error) {
	i := slices.IndexFunc(c.Contexts, func(o namedContext) bool { return o.Name == name })
	switch {
	case i >= 0:
		return &c.Contexts[i], nil
	case len(c.Contexts) == 0:
		return nil, usageError("%s: there is no context %q, and no other: 'skein config set-context' makes one", what, name)
	}
	return nil, usageError("%s: there is no context %q; the nearest one is %s", what, name, config.Nearest(name, c.names()))
}

// useContext fills in what neither flags nor the environment say of the way to a node. Whoever names a server without a
// context gets nothing of one: certificates and tokens are not for anybody.
func (a *asker) useContext(cmd *cobra.Command) error {
	f := cmd.Flags().Lookup("context")
	if f == nil || cmd.Flags().Lookup("server") == nil {
		return nil
	}
	given := func(flag, variable string) bool {
		return cmd.Flags().Changed(flag) || variable != "" && a.env.get(variable, "") != ""
	}
	name, what := f.Value.String(), "--context"
	if name == "" && given("server", "SKEIN_SERVER") {
		return nil
	}
	all, err := a.env.contexts()
	if err != nil {
		return err
	}
	if name == "" {
		if name, what = all.Current, all.path+": currentContext"; name == "" {
			return nil
		}
	}
	one, err := all.find(what, name)
	if err != nil {
		return err
	}
	if one.Server != "" && !given("server", "SKEIN_SERVER") {
		a.to.server = one.Server
	}
	sealed := given("certs", "SKEIN_CERTS") || given("ca", "SKEIN_CA") || given("cert", "SKEIN_CERT") || given("key", "SKEIN_KEY")
	for flag, to := range map[string]*string{"certs": &a.to.certs, "ca": &a.to.ca, "cert": &a.to.cert, "key": &a.to.key} {
		if path := *one.files()[flag]; path != "" && !sealed {
			*to = all.resolve(path)
		}
	}
	if one.TokenFile != "" && !given("token-file", "SKEIN_TOKEN") {
		a.to.tokenFile = all.resolve(one.TokenFile)
	}
	return nil
}

func (c *contexts) resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(c.path), path)
}

func newConfig(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Choose between clusters: contexts say where one is, and who you are there", Args: subcommand,
		Long: "Choose between clusters. A context is the address of a cluster's node and what proves who you are there; one of\n" +
			"them is the current one, which commands use unless --context, --server or SKEIN_SERVER say otherwise. They are kept in\n" +
			"~/.config/skein/contexts.yaml, or in the file that SKEIN_CONTEXTS names.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants get-contexts, current-context, use-context NAME, set-context NAME or delete-context NAME", cmd.CommandPath())
		},
	}
	cmd.AddCommand(newGetContexts(env), newCurrentContext(env), newUseContext(env), newSetContext(env), newDeleteContext(env))
	return cmd
}

func newGetContexts(env *Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{Use: "get-contexts", Short: "List the contexts; the current one has a *", Args: arguments()}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, name, json or yaml")
	cmd.RunE = run(func(*cobra.Command, []string) error {
		known := []string{"table", "name", "json", "yaml"}
		if !slices.Contains(known, format) {
			return usageError("--output: unknown format %q; the nearest valid one is %s", format, config.Nearest(format, known))
		}
		all, err := env.contexts()
		if err != nil {
			return err
		}
		return all.print(env, format)
	})
	return cmd
}

func (c *contexts) print(env *Env, format string) error {
	switch format {
	case "name":
		for _, name := range c.names() {
			fmt.Fprintln(env.Out, name)
		}
		return nil
	case "json", "yaml":
		items := make([]any, len(c.Contexts))
		for i, one := range c.Contexts {
			items[i] = object{
				{"name", one.Name},
				{"current", one.Name == c.Current},
				{"server", one.Server},
				{"certs", one.Certs},
				{"ca", one.CA},
				{"cert", one.Cert},
				{"key", one.Key},
				{"tokenFile", one.TokenFile},
			}
		}
		return encode(env.Out, object{{"items", items}}, format)
	}
	rows := [][]string{{"CURRENT", "NAME", "SERVER", "CERTS", "TOKEN-FILE"}}
	for _, one := range c.Contexts {
		current := ""
		if one.Name == c.Current {
			current = "*"
		}
		rows = append(rows, []string{current, one.Name, orElse(one.Server, defaultServer), orDash(orElse(one.Certs, one.Cert)), orDash(one.TokenFile)})
	}
	return tabulate(env.Out, rows)
}

func newCurrentContext(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "current-context", Short: "Print the name of the current context", Args: arguments()}
	cmd.RunE = run(func(*cobra.Command, []string) error {
		all, err := env.contexts()
		if err == nil && all.Current == "" {
			err = errors.New("no context is the current one: 'skein config use-context NAME' makes one so")
		}
		if err == nil {
			fmt.Fprintln(env.Out, all.Current)
		}
		return err
	})
	return cmd
}

func newUseContext(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "use-context NAME", Short: "Make a context the current one", Args: arguments("NAME"), ValidArgsFunction: contextNames(env)}
	cmd.RunE = run(func(_ *cobra.Command, args []string) error {
		all, err := env.contexts()
		if err != nil {
			return err
		}
		one, err := all.find("NAME", args[0])
		if err != nil {
			return err
		}
		all.Current = one.Name
		if err := all.save(); err != nil {
			return err
		}
		fmt.Fprintf(env.Out, "context/%s is the current one\n", one.Name)
		return nil
	})
	return cmd
}

func newSetContext(env *Env) *cobra.Command {
	var to namedContext
	cmd := &cobra.Command{
		Use: "set-context NAME", Short: "Make a context, or change what flags say of one", Args: arguments("NAME"), ValidArgsFunction: contextNames(env),
		Example: "  skein config set-context prod --server 10.0.0.1:7883 --certs skein-certs/ann",
	}
	fs := cmd.Flags()
	fs.StringVar(&to.Server, "server", "", "admin `ADDR` of a node, or unix:///PATH")
	fs.StringVar(&to.Certs, "certs", "", "`FOLDER` that 'skein certs' has made for you")
	fs.StringVar(&to.CA, "ca", "", "`FILE` with the authority that the node's certificate must come from")
	fs.StringVar(&to.Cert, "cert", "", "`FILE` with your certificate")
	fs.StringVar(&to.Key, "key", "", "`FILE` with its private key")
	fs.StringVar(&to.TokenFile, "token-file", "", "`FILE` with your token")
	cmd.RunE = run(func(_ *cobra.Command, args []string) error {
		all, err := env.contexts()
		if err != nil {
			return err
		}
		done := "changed"
		one, err := all.find("NAME", args[0])
		if err != nil {
			done = "created"
			all.Contexts = append(all.Contexts, namedContext{Name: args[0]})
			one = &all.Contexts[len(all.Contexts)-1]
		}
		if fs.Changed("server") {
			if one.Server = to.Server; to.Server != "" {
				if _, err := (&way{server: to.Server}).target(); err != nil {
					return err
				}
			}
		}
		given, kept := to.files(), one.files()
		for flag, path := range given {
			if !fs.Changed(flag) {
				continue
			}
			if *path != "" {
				if *path, err = filepath.Abs(*path); err != nil {
					return fmt.Errorf("--%s: %w", flag, err)
				}
			}
			*kept[flag] = *path
		}
		if err := all.save(); err != nil {
			return err
		}
		fmt.Fprintf(env.Out, "context/%s %s\n", args[0], done)
		return nil
	})
	return cmd
}

func newDeleteContext(env *Env) *cobra.Command {
	cmd := &cobra.Command{Use: "delete-context NAME", Short: "Remove a context", Args: arguments("NAME"), ValidArgsFunction: contextNames(env)}
	cmd.RunE = run(func(_ *cobra.Command, args []string) error {
		all, err := env.contexts()
		if err != nil {
			return err
		}
		if _, err := all.find("NAME", args[0]); err != nil {
			return err
		}
		all.Contexts = slices.DeleteFunc(all.Contexts, func(o namedContext) bool { return o.Name == args[0] })
		if all.Current == args[0] {
			all.Current = ""
		}
		if err := all.save(); err != nil {
			return err
		}
		fmt.Fprintf(env.Out, "context/%s deleted\n", args[0])
		return nil
	})
	return cmd
}
