package config

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Flags collects assignments in the order in which they stood on the command line.
type Flags struct {
	assignments []Assignment
}

// Register adds a flag for each key, and --set. Those with a name of their own show in the help;
// the others, named as their keys, are as valid but would drown it.
func Register(fs *pflag.FlagSet) *Flags {
	f := &Flags{}
	for _, k := range keys {
		flag := fs.VarPF(&keyFlag{flags: f, key: k}, k.Flag, "", usage(k))
		flag.Hidden = !k.Short
		if k.Bool {
			flag.NoOptDefVal = "true"
		}
	}
	fs.Var(&setFlag{flags: f}, "set", "set any `KEY=VALUE` of the configuration file (repeatable)")
	return f
}

// Assignments is what the command line set, once it is parsed.
func (f *Flags) Assignments() []Assignment { return f.assignments }

func usage(k Key) string {
	first, _, _ := strings.Cut(k.Doc, "\n")
	if k.List {
		first += " Repeatable."
	}
	return first
}

type keyFlag struct {
	flags *Flags
	key   Key
}

func (v *keyFlag) Set(text string) error {
	v.flags.assignments = append(v.flags.assignments, Assignment{
		Origin: "--" + v.key.Flag, Key: v.key.Name, Text: text, Whole: v.key.Name == "listen",
	})
	return nil
}

func (v *keyFlag) String() string { return "" }

func (v *keyFlag) Type() string {
	switch {
	case v.key.Name == "listen":
		return "URL"
	case v.key.Name == "cluster.join":
		return "ADDR,…"
	case v.key.Name == "data.dir":
		return "DIR"
	case strings.HasSuffix(v.key.Name, ".listen"):
		return "ADDR"
	case v.key.Name == "cluster.bootstrap_expect":
		return "N"
	}
	return "VALUE"
}

type setFlag struct{ flags *Flags }

func (v *setFlag) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("wants KEY=VALUE, as in mqtt.max_qos=1")
	}
	v.flags.assignments = append(v.flags.assignments, Assignment{Origin: "--set", Key: strings.TrimSpace(key), Text: value})
	return nil
}

func (v *setFlag) String() string { return "" }
func (v *setFlag) Type() string   { return "KEY=VALUE" }
