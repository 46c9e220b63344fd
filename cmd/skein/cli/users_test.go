package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/node/auth"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

// fakeAccess is the service Access with fixed answers.
type fakeAccess struct {
	adminpb.UnimplementedAccessServer
}

func (fakeAccess) ListUsers(context.Context, *adminpb.ListUsersRequest) (*adminpb.ListUsersResponse, error) {
	return &adminpb.ListUsersResponse{Users: []*adminpb.User{
		{Name: "ann", Roles: []*adminpb.Grant{{Name: "reader", Priority: 5}, {Name: "writer"}}, Groups: []*adminpb.Grant{{Name: "staff"}}, Password: true, Scram: true, Revision: 7},
		{Name: "bob", Disabled: true, ClientId: "b-1", Description: "on holiday"},
	}}, nil
}

func (fakeAccess) ListGroups(context.Context, *adminpb.ListGroupsRequest) (*adminpb.ListGroupsResponse, error) {
	return &adminpb.ListGroupsResponse{Groups: []*adminpb.Group{{Name: "staff", Description: "who works here", Roles: []*adminpb.Grant{{Name: "reader"}}}}}, nil
}

func (fakeAccess) ListRoles(context.Context, *adminpb.ListRolesRequest) (*adminpb.ListRolesResponse, error) {
	return &adminpb.ListRolesResponse{Roles: []*adminpb.Role{{Name: "reader", Rules: []*adminpb.Rule{
		{Action: "subscribe", Filter: "#", Literal: true, Deny: true, Priority: 3}, {Action: "subscribe", Filter: "meters/#"},
	}}}}, nil
}

func (fakeAccess) ListBans(context.Context, *adminpb.ListBansRequest) (*adminpb.ListBansResponse, error) {
	return &adminpb.ListBansResponse{Bans: []*adminpb.Ban{
		{Kind: "user", Value: "eve", Created: ago(time.Hour)},
		{Kind: "network", Value: "192.0.2.0/24", Created: ago(time.Minute), Expires: ago(-59 * time.Minute), Reason: "scans"},
	}}, nil
}

// ChangeAccess answers "created", and for a user in which it finds no hash that it does.
func (fakeAccess) ChangeAccess(_ context.Context, req *adminpb.ChangeAccessRequest) (*adminpb.ChangeAccessResponse, error) {
	res := &adminpb.ChangeAccessResponse{}
	for _, c := range req.Changes {
		result := "created"
		switch op := c.Op.(type) {
		case *adminpb.AccessChange_PutUser:
			if op.PutUser.Password != nil {
				return nil, status.Error(codes.Internal, "a password came in clear")
			}
			if h := op.PutUser.PasswordHash; h != nil && *h != "" {
				if _, err := auth.ParseHash(*h); err != nil {
					return nil, status.Error(codes.Internal, err.Error())
				}
				result = "created with a hash"
			}
			if op.PutUser.Keep {
				result = "configured"
			}
		case *adminpb.AccessChange_PutRole:
			result = fmt.Sprintf("created with %d rules", len(op.PutRole.Rules))
		case *adminpb.AccessChange_PutBan:
			result = fmt.Sprintf("created for %d s", op.PutBan.Seconds)
		case *adminpb.AccessChange_DeleteUser:
			if op.DeleteUser == "nobody" {
				return nil, status.Error(codes.NotFound, `no user "nobody"`)
			}
			result = "deleted"
		case *adminpb.AccessChange_DeleteBan:
			result = "deleted"
		}
		res.Results = append(res.Results, result)
	}
	return res, nil
}

func (fakeAccess) CanI(_ context.Context, req *adminpb.CanIRequest) (*adminpb.CanIResponse, error) {
	return &adminpb.CanIResponse{Allowed: req.Action == "subscribe", Reason: fmt.Sprintf("role %q: allow subscribe meters/#", "reader")}, nil
}

// accessFiles are what the transcripts apply.
func accessFiles(t *testing.T) *strings.Replacer {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("users.yaml", `defaults: {publish: deny, anonymousGroup: staff}
roles:
- name: reader
  rules: ["allow subscribe meters/#", "deny subscribe literally # priority 10"]
groups:
- {name: staff, roles: [reader]}
users:
- {name: ann, password: secret, roles: ["reader:5"]}
- {name: bob, disabled: true}
bans:
- {network: 192.0.2.0/24, for: 90m, reason: scans}
`)
	bad := write("bad.yaml", `roles:
- name: reader
  rules: ["allow meters/#"]
users:
- {name: ann, password: secret, passwordHash: x}
bans:
- {client: a, user: b}
`)
	other := write("other.yaml", `settings: {log.level: debug}
retained:
- {topic: meters/unit, payload: kWh, qos: 1}
- {topic: meters/old, payload: ""}
`)
	fixed := write("fixed.yaml", "settings: {mqtt.max_qos: 1}\n")
	empty := write("empty.yaml", "users: []\n")
	unknown := write("unknown.yaml", "users:\n- {name: ann, pasword: secret}\n")
	return strings.NewReplacer("$USERS", good, "$BAD", bad, "$UNKNOWN", unknown, "$OTHER", other, "$FIXED", fixed, "$EMPTY", empty, "$DIR", dir)
}

func TestRules(t *testing.T) {
	for _, text := range []string{
		"allow publish a/b", "deny receive # priority -3", "allow subscribe literally $SYS/# priority 10", "deny unsubscribe a b/c", "allow publish literally",
	} {
		r, err := parseRule(text)
		if err != nil || ruleText(r) != text {
			t.Errorf("%q became %v, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "allow", "allow publish", "permit publish a", "allow read a", "allow publish  "} {
		if r, err := parseRule(text); err == nil {
			t.Errorf("%q became %v", text, r)
		}
	}
}
