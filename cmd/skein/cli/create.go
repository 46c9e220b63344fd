package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skein-mqtt/skein/node/auth"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

func newCreate(a *asker) *cobra.Command {
	create := &cobra.Command{
		Use: "create", Short: "Create a user, a group, a role, a ban or a retained message", Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("'%s' wants what to create: user NAME, group NAME, role NAME, ban client|user|network VALUE, or retained TOPIC PAYLOAD", cmd.CommandPath())
		},
	}
	create.AddCommand(newCreateUser(a), newCreateGroup(a), newCreateRole(a), newCreateBan(a), newCreateRetained(a))
	return create
}

func newCreateUser(a *asker) *cobra.Command {
	var u adminpb.User
	var roles, groups []string
	var none bool
	cmd := &cobra.Command{
		Use: "user NAME", Short: "Create a user", Args: arguments("NAME"),
		Long: "Create a user. The password is read from the terminal, twice, or from standard input's first line; it leaves\n" +
			"this process only hashed. With --no-password the user only has roles: for names that a certificate, a key or\n" +
			"another method proves. As soon as there is a user, the nodes let in only those who prove who they are.",
	}
	a.flags(cmd)
	fs := cmd.Flags()
	fs.StringSliceVar(&roles, "role", nil, "a `ROLE[:PRIORITY]` (repeatable)")
	fs.StringSliceVar(&groups, "group", nil, "a `GROUP[:PRIORITY]` (repeatable)")
	fs.StringVar(&u.ClientId, "client-id", "", "the only client `ID` that it may use")
	fs.StringVar(&u.Description, "description", "", "for people")
	fs.BoolVar(&u.Disabled, "disabled", false, "it can't log in yet")
	fs.BoolVar(&none, "no-password", false, "it has no password")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) (err error) {
		u.Name = args[0]
		if u.Roles, err = parseGrants("--role", roles); err != nil {
			return err
		}
		if u.Groups, err = parseGrants("--group", groups); err != nil {
			return err
		}
		put := &adminpb.PutUser{User: &u}
		if !none {
			password, err := askPassword(a.env.Err)
			if err != nil {
				return err
			}
			setPassword(put, password)
		}
		return a.changeOne(cmd.Context(), "user/"+u.Name, &adminpb.AccessChange{Op: &adminpb.AccessChange_PutUser{PutUser: put}, Create: true})
	})
	return cmd
}

// setPassword puts the hashes of a password.
func setPassword(put *adminpb.PutUser, password []byte) {
	hash := auth.NewHash(password)
	put.PasswordHash = &hash
	if v, err := auth.NewVerifier(password); err == nil { // else it can't be used with SCRAM
		put.ScramVerifier = &v
	}
}

func newCreateGroup(a *asker) *cobra.Command {
	var g adminpb.Group
	var roles []string
	cmd := &cobra.Command{Use: "group NAME", Short: "Create a group", Args: arguments("NAME")}
	a.flags(cmd)
	cmd.Flags().StringSliceVar(&roles, "role", nil, "a `ROLE[:PRIORITY]` (repeatable)")
	cmd.Flags().StringVar(&g.Description, "description", "", "for people")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) (err error) {
		g.Name = args[0]
		if g.Roles, err = parseGrants("--role", roles); err != nil {
			return err
		}
		return a.changeOne(cmd.Context(), "group/"+g.Name, &adminpb.AccessChange{Op: &adminpb.AccessChange_PutGroup{PutGroup: &g}, Create: true})
	})
	return cmd
}

func newCreateRole(a *asker) *cobra.Command {
	var r adminpb.Role
	var rules []string
	cmd := &cobra.Command{
		Use: "role NAME", Short: "Create a role", Args: arguments("NAME"),
		Long: "Create a role from rules like 'allow subscribe meters/#', 'deny publish meters/admin/# priority 10' or\n" +
			"'deny subscribe literally #'. Actions are publish, receive, subscribe and unsubscribe; what may be received is what\n" +
			"may be subscribed to, unless a rule on receive says otherwise. %u stands for the user's name, %c for the client's id.",
	}
	a.flags(cmd)
	cmd.Flags().StringArrayVar(&rules, "rule", nil, "a `RULE` (repeatable); of those with the same priority the first that fits counts")
	cmd.Flags().StringVar(&r.Description, "description", "", "for people")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		r.Name = args[0]
		for _, text := range rules {
			one, err := parseRule(text)
			if err != nil {
				return usageError("--rule: %w", err)
			}
			r.Rules = append(r.Rules, one)
		}
		return a.changeOne(cmd.Context(), "role/"+r.Name, &adminpb.AccessChange{Op: &adminpb.AccessChange_PutRole{PutRole: &r}, Create: true})
	})
	return cmd
}

func newCreateBan(a *asker) *cobra.Command {
	var reason string
	var last time.Duration
	cmd := &cobra.Command{
		Use: "ban client|user|network VALUE", Short: "Keep a client id, a user, or an address or network out", Args: arguments("client|user|network", "VALUE"),
		Long: "Keep a client id, a user, or an address or network out of all nodes. Connections that it has are closed.",
	}
	a.flags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "for people")
	cmd.Flags().DurationVar(&last, "for", 0, "how long (0: until it is lifted)")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		seconds, err := wholeSeconds("--for", last)
		if err != nil {
			return err
		}
		put := &adminpb.PutBan{Ban: &adminpb.Ban{Kind: args[0], Value: args[1], Reason: reason}, Seconds: seconds}
		return a.changeOne(cmd.Context(), "ban/"+args[0]+"/"+args[1], &adminpb.AccessChange{Op: &adminpb.AccessChange_PutBan{PutBan: put}, Create: true})
	})
	return cmd
}

func newCreateRetained(a *asker) *cobra.Command {
	var r fileRetained
	cmd := &cobra.Command{
		Use: "retained TOPIC PAYLOAD", Short: "Publish a message that is retained", Args: arguments("TOPIC", "PAYLOAD"),
		Long: "Publish a message that is retained, as the operator: whoever subscribes gets it, now and later. What was retained\n" +
			"for the topic is replaced.",
	}
	a.flags(cmd)
	cmd.Flags().Uint32Var(&r.QoS, "qos", 0, "of the message")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		if r.Topic, r.Payload = args[0], args[1]; r.Payload == "" {
			return usageError("PAYLOAD: is empty, which removes what is retained: use 'skein delete retained'")
		}
		return a.retain(cmd.Context(), r)
	})
	return cmd
}

// wholeSeconds rounds up.
func wholeSeconds(what string, d time.Duration) (uint32, error) {
	s := (d + time.Second - 1) / time.Second
	if d < 0 || s > 1<<32-1 {
		return 0, usageError("%s: %s is not a time that a ban can last", what, d)
	}
	return uint32(s), nil
}

// parseGrants reads NAME[:PRIORITY] each.
func parseGrants(what string, texts []string) (out []*adminpb.Grant, err error) {
	for _, text := range texts {
		g := &adminpb.Grant{Name: text}
		if i := strings.LastIndexByte(text, ':'); i >= 0 {
			n, err := strconv.ParseInt(text[i+1:], 10, 32)
			if err != nil {
				return nil, usageError("%s: %q wants NAME or NAME:PRIORITY, a whole number", what, text)
			}
			g.Name, g.Priority = text[:i], int32(n)
		}
		out = append(out, g)
	}
	return out, nil
}

// ruleText is a rule as people write it; parseRule reads it.
func ruleText(r *adminpb.Rule) string {
	words := []string{"allow", r.Action}
	if r.Deny {
		words[0] = "deny"
	}
	if r.Literal {
		words = append(words, "literally")
	}
	words = append(words, r.Filter)
	if r.Priority != 0 {
		words = append(words, "priority", strconv.Itoa(int(r.Priority)))
	}
	return strings.Join(words, " ")
}

// parseRule reads "allow|deny ACTION [literally] FILTER [priority N]". The filter may hold blanks.
func parseRule(text string) (*adminpb.Rule, error) {
	bad := fmt.Errorf("%q wants: allow|deny publish|receive|subscribe|unsubscribe [literally] FILTER [priority N]", text)
	r := &adminpb.Rule{}
	verb, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	switch verb {
	case "allow":
	case "deny":
		r.Deny = true
	default:
		return nil, bad
	}
	r.Action, rest, _ = strings.Cut(strings.TrimSpace(rest), " ")
	rest = strings.TrimSpace(rest)
	if after, ok := strings.CutPrefix(rest, "literally "); ok {
		r.Literal, rest = true, strings.TrimSpace(after)
	}
	if i := strings.LastIndex(rest, " priority "); i >= 0 {
		if n, err := strconv.ParseInt(strings.TrimSpace(rest[i+len(" priority "):]), 10, 32); err == nil {
			r.Priority, rest = int32(n), strings.TrimSpace(rest[:i])
		}
	}
	r.Filter = rest
	switch r.Action {
	case "publish", "receive", "subscribe", "unsubscribe":
	default:
		return nil, bad
	}
	if r.Filter == "" {
		return nil, bad
	}
	return r, nil
}
