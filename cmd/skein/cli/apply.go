package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// appliedFile is what 'skein apply' reads.
type appliedFile struct {
	Defaults *fileDefaults `yaml:"defaults"`
	Roles    []fileRole    `yaml:"roles"`
	Groups   []fileGroup   `yaml:"groups"`
	Users    []fileUser    `yaml:"users"`
	Bans     []fileBan     `yaml:"bans"`

	Settings yaml.MapSlice  `yaml:"settings"` // in the order of the file
	Retained []fileRetained `yaml:"retained"`
}

type fileRetained struct {
	Topic   string `yaml:"topic"`
	Payload string `yaml:"payload"`
	QoS     uint32 `yaml:"qos"`
}

type fileDefaults struct {
	Publish        string `yaml:"publish"`
	Receive        string `yaml:"receive"`
	Subscribe      string `yaml:"subscribe"`
	Unsubscribe    string `yaml:"unsubscribe"`
	AnonymousGroup string `yaml:"anonymousGroup"`
}

type fileRole struct {
	Name        string   `yaml:"name"`
	Description string   `yaml:"description"`
	Rules       []string `yaml:"rules"`
}

type fileGroup struct {
	Name        string   `yaml:"name"`
	Description string   `yaml:"description"`
	Roles       []string `yaml:"roles"`
}

type fileUser struct {
	Name         string   `yaml:"name"`
	Description  string   `yaml:"description"`
	Password     *string  `yaml:"password"`
	PasswordHash *string  `yaml:"passwordHash"`
	Disabled     bool     `yaml:"disabled"`
	ClientID     string   `yaml:"clientId"`
	Roles        []string `yaml:"roles"`
	Groups       []string `yaml:"groups"`
}

type fileBan struct {
	Client  string `yaml:"client"`
	User    string `yaml:"user"`
	Network string `yaml:"network"`
	For     string `yaml:"for"`
	Reason  string `yaml:"reason"`
}

func newApply(a *asker) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Make users, groups, roles, bans, default access, settings and retained messages as a file says", Args: arguments(),
		Long: "Make users, groups, roles, bans and default access as a YAML file says: all of it at once, or nothing; then settings,\n" +
			"until the nodes restart, and retained messages, one after the other. What the file does not name stays. A user without\n" +
			"password or passwordHash keeps the password that it has; a password leaves this process only hashed. An empty payload\n" +
			"removes what is retained.\n\n" +
			"  defaults: {publish: deny, subscribe: deny, anonymousGroup: guests}\n" +
			"  roles:\n" +
			"  - name: reader\n" +
			"    rules: [\"allow subscribe meters/#\", \"deny subscribe meters/admin/# priority 10\"]\n" +
			"  groups:\n" +
			"  - {name: guests, roles: [reader]}\n" +
			"  users:\n" +
			"  - {name: ann, password: secret, roles: [\"reader:5\"], groups: [guests]}\n" +
			"  bans:\n" +
			"  - {network: 192.0.2.0/24, for: 1h, reason: scans}\n" +
			"  settings: {log.level: debug}\n" +
			"  retained:\n" +
			"  - {topic: meters/unit, payload: kWh, qos: 1}",
	}
	a.flags(cmd)
	cmd.Flags().StringVarP(&path, "filename", "f", "", "the `FILE` to read; -: standard input")
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		if path == "" {
			return usageError("'%s' wants a file: -f FILE", cmd.CommandPath())
		}
		f, err := readApplied(path)
		if err != nil {
			return err
		}
		changes, names, err := f.access(path)
		if err != nil {
			return err
		}
		if len(changes)+len(f.Settings)+len(f.Retained) == 0 {
			return fmt.Errorf("%s: there is nothing in it", path)
		}
		if len(changes) > 0 {
			results, err := a.change(cmd.Context(), changes...)
			for i, r := range results {
				fmt.Fprintf(a.env.Out, "%s %s\n", readable([]byte(names[i]), 200), r)
			}
			if err != nil {
				return err
			}
		}
		for _, s := range f.Settings {
			if err := a.setSetting(cmd.Context(), &adminpb.SetSettingRequest{Key: fmt.Sprint(s.Key), Value: fmt.Sprint(s.Value)}); err != nil {
				return fmt.Errorf("settings: %v: %w", s.Key, err)
			}
		}
		for _, r := range f.Retained {
			if err := a.retain(cmd.Context(), r); err != nil {
				return fmt.Errorf("retained: %s: %w", r.Topic, err)
			}
		}
		return nil
	})
	return cmd
}

// retain has a message retained, or removes the one that is, and prints so.
func (a *asker) retain(ctx context.Context, r fileRetained) error {
	return a.once(ctx, func(ctx context.Context, c adminpb.AdminClient) error {
		_, err := c.Publish(ctx, &adminpb.PublishRequest{Topic: r.Topic, Payload: []byte(r.Payload), Qos: r.QoS, Retain: true})
		if err == nil {
			fmt.Fprintf(a.env.Out, "retained/%s %s\n", readable([]byte(r.Topic), 200), would(r.Payload == "", "published", "removed"))
		}
		return err
	})
}

func readApplied(path string) (f appliedFile, err error) {
	var data []byte
	if path == "-" {
		data, err = io.ReadAll(os.Stdin)
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return f, fmt.Errorf("-f: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(data, &f, yaml.Strict()); err != nil {
		return f, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false)) // without the source: it may hold passwords
	}
	return f, nil
}

// access is the file's changes, in an order in which none names what comes later.
func (f *appliedFile) access(path string) (changes []*adminpb.AccessChange, names []string, err error) {
	var errs []error
	put := func(name string, c *adminpb.AccessChange, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", path, name, err))
		}
		changes, names = append(changes, c), append(names, name)
	}
	for _, r := range f.Roles {
		role := &adminpb.Role{Name: r.Name, Description: r.Description}
		var bad error
		for _, text := range r.Rules {
			one, err := parseRule(text)
			bad = errors.Join(bad, err)
			role.Rules = append(role.Rules, one)
		}
		put("role/"+r.Name, &adminpb.AccessChange{Op: &adminpb.AccessChange_PutRole{PutRole: role}}, bad)
	}
	for _, g := range f.Groups {
		roles, err := parseGrants("roles", g.Roles)
		put("group/"+g.Name, &adminpb.AccessChange{Op: &adminpb.AccessChange_PutGroup{PutGroup: &adminpb.Group{Name: g.Name, Description: g.Description, Roles: roles}}}, err)
	}
	for _, u := range f.Users {
		p, err := u.put()
		put("user/"+u.Name, &adminpb.AccessChange{Op: &adminpb.AccessChange_PutUser{PutUser: p}}, err)
	}
	if d := f.Defaults; d != nil {
		put("defaults", &adminpb.AccessChange{Op: &adminpb.AccessChange_PutDefaults{PutDefaults: &adminpb.AccessDefaults{
			Publish: d.Publish, Receive: d.Receive, Subscribe: d.Subscribe, Unsubscribe: d.Unsubscribe, AnonymousGroup: d.AnonymousGroup,
		}}}, nil)
	}
	for _, b := range f.Bans {
		p, err := b.put()
		put("ban/"+p.Ban.Kind+"/"+p.Ban.Value, &adminpb.AccessChange{Op: &adminpb.AccessChange_PutBan{PutBan: p}}, err)
	}
	return changes, names, errors.Join(errs...)
}

func (u *fileUser) put() (*adminpb.PutUser, error) {
	roles, errRoles := parseGrants("roles", u.Roles)
	groups, errGroups := parseGrants("groups", u.Groups)
	p := &adminpb.PutUser{User: &adminpb.User{
		Name: u.Name, Description: u.Description, Disabled: u.Disabled, ClientId: u.ClientID, Roles: roles, Groups: groups,
	}}
	switch {
	case u.Password != nil && u.PasswordHash != nil:
		return p, errors.New("password and passwordHash exclude each other")
	case u.Password != nil && *u.Password != "":
		setPassword(p, []byte(*u.Password))
	case u.Password != nil:
		p.PasswordHash = u.Password // none
	default:
		p.PasswordHash = u.PasswordHash
	}
	return p, errors.Join(errRoles, errGroups)
}

func (b *fileBan) put() (*adminpb.PutBan, error) {
	p := &adminpb.PutBan{Ban: &adminpb.Ban{Reason: b.Reason}}
	given := 0
	for _, one := range []struct{ kind, value string }{{"client", b.Client}, {"user", b.User}, {"network", b.Network}} {
		if one.value != "" {
			p.Ban.Kind, p.Ban.Value = one.kind, one.value
			given++
		}
	}
	if given != 1 {
		return p, errors.New("a ban wants one of client, user and network")
	}
	if b.For == "" {
		return p, nil
	}
	d, err := time.ParseDuration(b.For)
	if err != nil {
		return p, fmt.Errorf("for: %q is not a time such as 90m", b.For)
	}
	p.Seconds, err = wholeSeconds("for", d)
	return p, err
}
