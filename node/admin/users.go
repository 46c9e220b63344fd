package admin

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/proto/adminpb"
	"github.com/skein-mqtt/skein/proto/fsmpb"
	"github.com/skein-mqtt/skein/proto/topic"
)

// AccessState reads the replicated users, as State reads the rest. *fsm.FSM is one.
type AccessState interface {
	User(name string) *fsm.User
	Users(after string, fn func(*fsm.User) bool)
	Groups(after string, fn func(*fsm.Group) bool)
	Roles(after string, fn func(*fsm.Role) bool)
	Bans(kind fsm.BanKind, after string, fn func(*fsm.Ban) bool)
	Defaults() fsm.Defaults
	FeatureLevel() uint32
}

// Rules judge and change who may do what.
type Rules interface {
	// ChangeAccess returns when the log has the change, and this node has applied it.
	ChangeAccess(ctx context.Context, c *fsmpb.ChangeAccess) (fsm.Result, error)
	CanI(username, clientID string, a fsm.Action, topic string) (allowed bool, why string)
}

// accessServer is the service Access.
type accessServer struct {
	adminpb.UnimplementedAccessServer
	s     *Server
	state AccessState
	rules Rules
}

// ListUsers implements the service.
func (a *accessServer) ListUsers(_ context.Context, req *adminpb.ListUsersRequest) (*adminpb.ListUsersResponse, error) {
	res := &adminpb.ListUsersResponse{}
	var err error
	res.Users, res.NextToken, err = listPage(req.Page, a.state.Users, userPB, (*adminpb.User).GetName)
	return res, err
}

// ListGroups implements the service.
func (a *accessServer) ListGroups(_ context.Context, req *adminpb.ListGroupsRequest) (*adminpb.ListGroupsResponse, error) {
	res := &adminpb.ListGroupsResponse{}
	var err error
	res.Groups, res.NextToken, err = listPage(req.Page, a.state.Groups, groupPB, (*adminpb.Group).GetName)
	return res, err
}

// ListRoles implements the service.
func (a *accessServer) ListRoles(_ context.Context, req *adminpb.ListRolesRequest) (*adminpb.ListRolesResponse, error) {
	res := &adminpb.ListRolesResponse{}
	var err error
	res.Roles, res.NextToken, err = listPage(req.Page, a.state.Roles, rolePB, (*adminpb.Role).GetName)
	return res, err
}

// ListBans implements the service. The token is the kind's number, then the value.
func (a *accessServer) ListBans(_ context.Context, req *adminpb.ListBansRequest) (*adminpb.ListBansResponse, error) {
	res := &adminpb.ListBansResponse{}
	bans := func(after string, fn func(*fsm.Ban) bool) {
		kind, value := fsm.BanKind(0), ""
		if after != "" {
			kind, value = fsm.BanKind(after[0]-'0'), after[1:]
		}
		a.state.Bans(kind, value, fn)
	}
	var err error
	res.Bans, res.NextToken, err = listPage(req.Page, bans, banPB, func(b *adminpb.Ban) string {
		return string(rune('0'+banKind(b.Kind))) + b.Value
	})
	return res, err
}

// listPage reads one page of a list that comes in the order of its keys.
func listPage[T, P any](p *adminpb.Page, list func(string, func(T) bool), convert func(T) P, key func(P) string) (out []P, next string, err error) {
	size, err := pageSize(p)
	if err != nil {
		return nil, "", err
	}
	list(p.GetToken(), func(one T) bool {
		if len(out) == size {
			next = key(out[size-1])
			return false
		}
		out = append(out, convert(one))
		return true
	})
	return out, next, nil
}

// GetDefaults implements the service.
func (a *accessServer) GetDefaults(context.Context, *adminpb.GetDefaultsRequest) (*adminpb.AccessDefaults, error) {
	d := a.state.Defaults()
	return &adminpb.AccessDefaults{
		Publish: defaultName(d.Publish), Receive: defaultName(d.Receive), Subscribe: defaultName(d.Subscribe), Unsubscribe: defaultName(d.Unsubscribe),
		AnonymousGroup: d.AnonymousGroup, Revision: d.Revision,
	}, nil
}

// ChangeAccess implements the service.
func (a *accessServer) ChangeAccess(ctx context.Context, req *adminpb.ChangeAccessRequest) (*adminpb.ChangeAccessResponse, error) {
	if len(req.Changes) == 0 {
		return &adminpb.ChangeAccessResponse{}, nil
	}
	if level := a.state.FeatureLevel(); level < fsm.LevelAccess {
		return nil, status.Error(codes.FailedPrecondition, "some node of the cluster runs a version that knows no users: see 'skein get nodes', and upgrade all of them first")
	}
	cmd := &fsmpb.ChangeAccess{}
	for i, c := range req.Changes {
		one, err := a.translate(c)
		if err != nil {
			if st, ok := status.FromError(err); ok {
				return nil, status.Errorf(st.Code(), "changes[%d]: %s", i, st.Message())
			}
			return nil, status.Errorf(codes.InvalidArgument, "changes[%d]: %v", i, err)
		}
		cmd.Changes = append(cmd.Changes, one)
	}
	r, err := a.rules.ChangeAccess(ctx, cmd)
	if err != nil {
		return nil, toStatus(err)
	}
	switch r.Code {
	case fsm.OK:
	case fsm.NotFound:
		return nil, status.Error(codes.NotFound, r.Detail)
	case fsm.Exists:
		return nil, status.Error(codes.AlreadyExists, r.Detail)
	case fsm.Conflict:
		return nil, status.Error(codes.Aborted, r.Detail)
	default:
		return nil, status.Error(codes.InvalidArgument, r.Detail)
	}
	res := &adminpb.ChangeAccessResponse{}
	for i, c := range r.Changed {
		res.Results = append(res.Results, changeNames[c])
		a.s.logger.Warn("access changed by an operator", "what", named(cmd.Changes[i]), "result", changeNames[c])
	}
	return res, nil
}

var changeNames = map[fsm.Change]string{
	fsm.Unchanged: "unchanged", fsm.Created: "created", fsm.Configured: "configured", fsm.Deleted: "deleted",
}

// named is what a change is about, for the log: no secret is in it.
func named(c *fsmpb.AccessChange) string {
	switch op := c.Op.(type) {
	case *fsmpb.AccessChange_PutUser:
		return "user " + op.PutUser.Name
	case *fsmpb.AccessChange_PutGroup:
		return "group " + op.PutGroup.Name
	case *fsmpb.AccessChange_PutRole:
		return "role " + op.PutRole.Name
	case *fsmpb.AccessChange_PutBan:
		return "ban of " + fsm.BanKind(op.PutBan.Key.Kind).String() + " " + op.PutBan.Key.Value
	case *fsmpb.AccessChange_DeleteUser:
		return "user " + op.DeleteUser
	case *fsmpb.AccessChange_DeleteGroup:
		return "group " + op.DeleteGroup
	case *fsmpb.AccessChange_DeleteRole:
		return "role " + op.DeleteRole
	case *fsmpb.AccessChange_DeleteBan:
		return "ban of " + fsm.BanKind(op.DeleteBan.Kind).String() + " " + op.DeleteBan.Value
	}
	return "default access"
}

// CanI implements the service.
func (a *accessServer) CanI(_ context.Context, req *adminpb.CanIRequest) (*adminpb.CanIResponse, error) {
	action, err := actionOf(req.Action)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	check := topic.ValidateFilter
	if action == fsm.ActionPublish || action == fsm.ActionReceive {
		check = topic.ValidateName
	}
	if err := check(req.Topic); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "topic %q: %v", req.Topic, err)
	}
	allowed, why := a.rules.CanI(req.Username, req.ClientId, action, req.Topic)
	return &adminpb.CanIResponse{Allowed: allowed, Reason: why}, nil
}
