package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/cluster/certs"
	"github.com/skein-mqtt/skein/node/operators"
	"github.com/skein-mqtt/skein/proto/certname"
)

// certsOptions are what all certificates of one command have in common.
type certsOptions struct {
	env       *Env
	dir, out  string
	cluster   string
	nodes     []string
	operators []string
	hosts     []string
	days      int
	role      string
	owner     string
	keep      bool
}

func newCerts(env *Env) *cobra.Command {
	o := &certsOptions{env: env}
	cmd := &cobra.Command{
		Use: "certs", Short: "Make the certificates that nodes and operators prove themselves with", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants what to do: init or issue", cmd.CommandPath())
		},
	}
	initialize := &cobra.Command{
		Use:   "init",
		Short: "Make a cluster's authority, and certificates for its first nodes",
		Long: "Make a cluster's authority in the folder --dir (ca.pem, ca.key) with a key for gossip, and for each --node and\n" +
			"--operator a certificate in the folder --out/NAME. A node's folder is what cluster.certs wants: cert.pem,\n" +
			"key.pem, ca.pem and gossip.keys. Keep --dir away from the nodes: whoever has ca.key is every node.",
		Args: arguments(),
	}
	o.flags(initialize)
	initialize.Flags().StringVar(&o.cluster, "cluster", "skein", "the cluster's name, as in cluster.name")
	initialize.Flags().StringArrayVar(&o.nodes, "node", nil, "issue for the node `NAME` (repeatable)")
	initialize.Flags().StringArrayVar(&o.operators, "operator", nil, "issue for the operator `NAME` (repeatable)")
	initialize.RunE = run(func(*cobra.Command, []string) error { return o.init() })
	issue := &cobra.Command{
		Use:   "issue NAME",
		Short: "Issue a certificate for a node, or with --operator for an operator",
		Long: "Issue a certificate with the authority in the folder --dir into the folder --out/NAME, in place of one that is\n" +
			"there. Nodes read theirs again by themselves.",
		Args: arguments("NAME"),
	}
	o.flags(issue)
	operator := issue.Flags().Bool("operator", false, "for an operator, not for a node")
	issue.RunE = run(func(_ *cobra.Command, args []string) error {
		if *operator {
			o.operators = args
		} else {
			o.nodes = args
		}
		return o.issue()
	})
	cmd.AddCommand(initialize, issue)
	return cmd
}

func (o *certsOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "skein-ca", "the authority's `FOLDER`")
	f.StringVar(&o.out, "out", "skein-certs", "the `FOLDER` for what is issued")
	f.StringArrayVar(&o.hosts, "host", nil, "a name or address of the nodes' hosts, for operators' connections (repeatable; a node's own name and loopback are among them)")
	f.IntVar(&o.days, "days", int(certs.Life/(24*time.Hour)), "how long the certificates are valid")
	f.StringVar(&o.role, "role", "admin", "the operators' role: view, operate or admin")
	f.StringVar(&o.owner, "owner", "", "give the files to `UID:GID`")
	f.BoolVar(&o.keep, "keep", false, "leave an authority, and certificates with a third of their life before them, as they are")
}

func (o *certsOptions) init() error {
	if _, err := certs.Create(o.dir, o.cluster); err != nil && (!o.keep || !errors.Is(err, certs.ErrExists)) {
		return err
	}
	return o.issue()
}

func (o *certsOptions) issue() error {
	role, err := operators.ParseRole(o.role)
	if err != nil || role == operators.Nobody {
		return usageError("--role: %q is no role for an operator: use view, operate or admin", o.role)
	}
	if o.days < 1 {
		return usageError("--days: wants at least 1, not %d", o.days)
	}
	a, err := certs.Open(o.dir)
	if err != nil {
		return fmt.Errorf("%w: make one with 'skein certs init', or name its folder with --dir", err)
	}
	if o.cluster != "" && a.Cluster != o.cluster {
		return fmt.Errorf("%s holds the authority of cluster %q, not of %q", o.dir, a.Cluster, o.cluster)
	}
	keys := filepath.Join(o.dir, certs.GossipFile)
	if _, err := os.Stat(keys); errors.Is(err, os.ErrNotExist) {
		if err := editKeys(keys, addKey); err != nil {
			return err
		}
	}
	for _, name := range o.nodes {
		if err := o.one(a, certname.Node(a.Cluster, name), name); err != nil {
			return err
		}
		data, err := os.ReadFile(keys)
		if err != nil {
			return err
		}
		if err := certs.WriteFile(filepath.Join(o.out, name, certs.GossipFile), data); err != nil {
			return err
		}
	}
	for _, name := range o.operators {
		if err := o.one(a, certname.Operator(a.Cluster, name, o.role), name); err != nil {
			return err
		}
	}
	return o.own()
}

func (o *certsOptions) one(a *certs.Authority, name certname.Name, folder string) error {
	if folder == "" || strings.ContainsAny(folder, "/ \t\n,:#") || strings.HasPrefix(folder, ".") {
		return usageError("%q can't be the name of a node or an operator", folder)
	}
	dir := filepath.Join(o.out, folder)
	if o.keep && a.Fresh(dir, name) {
		fmt.Fprintf(o.env.Out, "%s: kept\n", dir)
		return nil
	}
	if err := a.Issue(dir, name, append([]string{folder}, o.hosts...), time.Duration(o.days)*24*time.Hour); err != nil {
		return err
	}
	fmt.Fprintf(o.env.Out, "%s: %s, for %d days\n", dir, name, o.days)
	return nil
}

// own gives what was issued to another user: in a container the one who issues is not the one who reads.
func (o *certsOptions) own() error {
	if o.owner == "" {
		return nil
	}
	u, g, ok := strings.Cut(o.owner, ":")
	uid, err1 := strconv.Atoi(u)
	gid, err2 := strconv.Atoi(g)
	if !ok || err1 != nil || err2 != nil {
		return usageError("--owner: wants UID:GID, not %q", o.owner)
	}
	for _, name := range append(append([]string{}, o.nodes...), o.operators...) {
		dir := filepath.Join(o.out, name)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := os.Chown(filepath.Join(dir, e.Name()), uid, gid); err != nil {
				return err
			}
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			return err
		}
	}
	return nil
}
