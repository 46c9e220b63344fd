package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/skein-mqtt/skein/node/operators"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

// roles is what each method wants. A method that is missing is refused to everybody. Those that want more than
// View change something, and stand in the audit log.
var roles = map[string]operators.Role{
	adminpb.Admin_ListNodes_FullMethodName:         operators.View,
	adminpb.Admin_ListClients_FullMethodName:       operators.View,
	adminpb.Admin_ListSessions_FullMethodName:      operators.View,
	adminpb.Admin_ListSubscriptions_FullMethodName: operators.View,
	adminpb.Admin_ListRoutes_FullMethodName:        operators.View,
	adminpb.Admin_ListRetained_FullMethodName:      operators.View,
	adminpb.Admin_DescribeClient_FullMethodName:    operators.View,
	adminpb.Admin_Explain_FullMethodName:           operators.View,
	adminpb.Admin_Version_FullMethodName:           operators.View,
	adminpb.Admin_StateHash_FullMethodName:         operators.View,
	adminpb.Admin_ListEvents_FullMethodName:        operators.View,
	adminpb.Admin_WatchEvents_FullMethodName:       operators.View,
	adminpb.Admin_Trace_FullMethodName:             operators.View,
	adminpb.Admin_Logs_FullMethodName:              operators.View,
	adminpb.Admin_ListSettings_FullMethodName:      operators.View,

	adminpb.Access_ListUsers_FullMethodName:   operators.View,
	adminpb.Access_ListGroups_FullMethodName:  operators.View,
	adminpb.Access_ListRoles_FullMethodName:   operators.View,
	adminpb.Access_ListBans_FullMethodName:    operators.View,
	adminpb.Access_GetDefaults_FullMethodName: operators.View,
	adminpb.Access_CanI_FullMethodName:        operators.View,

	adminpb.Admin_DrainNode_FullMethodName:        operators.Operate,
	adminpb.Admin_TransferLeader_FullMethodName:   operators.Operate,
	adminpb.Admin_DisconnectClient_FullMethodName: operators.Operate,
	adminpb.Admin_DeleteSession_FullMethodName:    operators.Operate,
	adminpb.Admin_DeleteRetained_FullMethodName:   operators.Operate,
	adminpb.Admin_Publish_FullMethodName:          operators.Operate,
	adminpb.Admin_Snapshot_FullMethodName:         operators.Operate,
	adminpb.Admin_CordonNode_FullMethodName:       operators.Operate,
	adminpb.Admin_Rebalance_FullMethodName:        operators.Operate,

	adminpb.Access_ChangeAccess_FullMethodName: operators.Admin,
	adminpb.Admin_RemoveNode_FullMethodName:    operators.Admin,
	adminpb.Admin_SetSetting_FullMethodName:    operators.Admin,
	adminpb.Admin_Backup_FullMethodName:        operators.Admin, // it holds everything, so who has made one is worth knowing
	adminpb.Admin_Restore_FullMethodName:       operators.Admin,

	healthpb.Health_Check_FullMethodName:                             operators.Nobody,
	healthpb.Health_Watch_FullMethodName:                             operators.Nobody,
	healthpb.Health_List_FullMethodName:                              operators.Nobody,
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      operators.Nobody,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": operators.Nobody,
}

// Authorize tells whether a caller may call a method of the service, by its full gRPC name, whatever way the
// call came in; the error is a gRPC status. A change is written into the audit log: ended must be called with
// what became of it.
func (s *Server) Authorize(c operators.Caller, method string, req any) (ended func(error), err error) {
	role, ok := roles[method]
	if !ok {
		return nil, status.Errorf(codes.PermissionDenied, "nobody may call %s", method)
	}
	who, err := s.config.Gate.May(c, role)
	what := method[strings.LastIndexByte(method, '/')+1:]
	if err != nil {
		if role > operators.View {
			s.config.Audit.Refuse(who, c.From, what, err)
		}
		code := codes.Unauthenticated
		if errors.Is(err, operators.ErrRole) {
			code = codes.PermissionDenied
		}
		return nil, status.Error(code, err.Error())
	}
	if role <= operators.View {
		return func(error) {}, nil
	}
	ended, err = s.config.Audit.Begin(who, c.From, what, audited(req))
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return ended, nil
}

// door says how calls come in by one listener.
type door struct {
	s     *Server
	local bool // only this host can come in
}

func (d door) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ended, err := d.s.Authorize(d.caller(ctx), info.FullMethod, req)
	if err != nil {
		return nil, err
	}
	res, err := handle(own(ctx), req)
	ended(outcome(err))
	return res, err
}

// stream authorizes when the request has come: the audit log wants it. Those of reflection and health have more
// than one, and want no role.
func (d door) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if role, ok := roles[info.FullMethod]; ok && role == operators.Nobody {
		return handle(srv, ss)
	}
	guarded := &guardedStream{ServerStream: ss, d: d, method: info.FullMethod, ctx: own(ss.Context())}
	err := handle(srv, guarded)
	if guarded.ended != nil {
		guarded.ended(outcome(err))
	}
	return err
}

// guardedStream refuses the first message, and with it the call.
type guardedStream struct {
	grpc.ServerStream
	d      door
	method string
	ctx    context.Context
	ended  func(error)
}

// Context implements grpc.ServerStream.
func (g *guardedStream) Context() context.Context { return g.ctx }

// RecvMsg implements grpc.ServerStream.
func (g *guardedStream) RecvMsg(m any) error {
	if err := g.ServerStream.RecvMsg(m); err != nil || g.ended != nil {
		return err
	}
	var err error
	g.ended, err = g.d.s.Authorize(g.d.caller(g.ServerStream.Context()), g.method, m)
	return err
}

// outcome is an error as the audit log has it.
func outcome(err error) error {
	if st, ok := status.FromError(err); ok && err != nil {
		return fmt.Errorf("%s: %s", st.Code(), st.Message())
	}
	return err
}

// own takes away what only a node may say.
func own(ctx context.Context) context.Context {
	md, ok := metadata.FromIncomingContext(ctx)
	if !ok || len(md.Get(forwarded)) == 0 {
		return ctx
	}
	md = md.Copy()
	md.Delete(forwarded)
	return metadata.NewIncomingContext(ctx, md)
}

// caller is what a gRPC call shows.
func (d door) caller(ctx context.Context) operators.Caller {
	c := operators.Caller{Local: d.local, Sealed: d.local}
	if p, ok := peer.FromContext(ctx); ok {
		c.From = p.Addr.String()
		if p.Addr.Network() == "unix" {
			c.From = "unix"
		}
		if t, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			c.TLS, c.Sealed = &t.State, true
		}
	}
	md, _ := metadata.FromIncomingContext(ctx)
	for _, header := range md.Get("authorization") {
		if token, ok := operators.Bearer(header); ok {
			c.Token = token
		}
	}
	return c
}

// audited is a request as the audit log has it: what messages and secrets it carries is left out.
func audited(req any) json.RawMessage {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	m = proto.Clone(m)
	redact(m.ProtoReflect())
	out, err := protojson.Marshal(m)
	if err != nil {
		return nil
	}
	return out
}

// secrets are parts of the names of fields that hold one.
var secrets = []string{"password", "secret", "token", "credential", "verifier", "payload"}

func redact(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		secret := f.Kind() == protoreflect.BytesKind
		for _, part := range secrets {
			secret = secret || strings.Contains(string(f.Name()), part)
		}
		switch {
		case secret:
			m.Clear(f)
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { redact(v.Message()); return true })
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				redact(v.List().Get(i).Message())
			}
		case !f.IsMap() && !f.IsList() && f.Message() != nil:
			redact(v.Message())
		}
		return true
	})
}

// local tells whether only this host can reach an address.
func localListener(l net.Listener) bool {
	switch a := l.Addr().(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	}
	return false
}
