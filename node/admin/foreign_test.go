package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// reflected asks a server what a service is like, and knows of it nothing but the name.
func reflected(t *testing.T, conn *grpc.ClientConn, service protoreflect.FullName) protoreflect.ServiceDescriptor {
	t.Helper()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.CloseSend() }()
	set := &descriptorpb.FileDescriptorSet{}
	ask := func(req *reflectionpb.ServerReflectionRequest) {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv()
		if err != nil || res.GetErrorResponse() != nil {
			t.Fatalf("%v %v", res, err)
		}
		for _, raw := range res.GetFileDescriptorResponse().GetFileDescriptorProto() {
			f := &descriptorpb.FileDescriptorProto{}
			if err := proto.Unmarshal(raw, f); err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(set.File, func(o *descriptorpb.FileDescriptorProto) bool { return o.GetName() == f.GetName() }) {
				set.File = append(set.File, f)
			}
		}
	}
	ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: string(service)}})
	for i := 0; i < len(set.File); i++ {
		for _, d := range set.File[i].Dependency {
			ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileByFilename{FileByFilename: d}})
		}
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	d, err := files.FindDescriptorByName(service)
	if err != nil {
		t.Fatal(err)
	}
	return d.(protoreflect.ServiceDescriptor)
}

// A client that was made from the descriptors alone lists, changes and follows.
func TestFromDescriptors(t *testing.T) {
	one, two := &node{clients: []*adminpb.Client{{Id: "a", Queued: 7}}}, &node{clients: []*adminpb.Client{{Id: "b"}}}
	cluster(t, &world{}, one, two)
	conn, err := grpc.NewClient(one.server.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	service := reflected(t, conn, "skein.admin.v1.Admin")
	method := func(name protoreflect.Name) (path string, req, res *dynamicpb.Message) {
		m := service.Methods().ByName(name)
		if m == nil {
			t.Fatalf("there is no method %s", name)
		}
		return "/" + string(service.FullName()) + "/" + string(name), dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	}
	set := func(m *dynamicpb.Message, field protoreflect.Name, v any) {
		m.Set(m.Descriptor().Fields().ByName(field), protoreflect.ValueOf(v))
	}
	field := func(m protoreflect.Message, name protoreflect.Name) protoreflect.Value {
		return m.Get(m.Descriptor().Fields().ByName(name))
	}

	path, req, res := method("ListClients")
	if err := conn.Invoke(t.Context(), path, req, res); err != nil {
		t.Fatal(err)
	}
	list := field(res, "clients").List()
	var ids []string
	for i := range list.Len() {
		ids = append(ids, field(list.Get(i).Message(), "id").String())
	}
	if strings.Join(ids, " ") != "a b" {
		t.Errorf("clients %q", ids)
	}
	path, req, res = method("CordonNode")
	set(req, "node", "node2")
	set(req, "on", true)
	if err := conn.Invoke(t.Context(), path, req, res); err != nil || !field(res, "changed").Bool() || !two.cordoned {
		t.Errorf("cordon: %v %v", res, err)
	}
	path, req, res = method("DescribeClient")
	set(req, "id", "nobody")
	if err := conn.Invoke(t.Context(), path, req, res); status.Code(err) != codes.NotFound {
		t.Errorf("describe: %v", err)
	}
	path, req, res = method("DrainNode")
	set(req, "node", "node2")
	set(req, "dry_run", true)
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(req), stream.CloseSend(), stream.RecvMsg(res)); err != nil || !field(res, "done").Bool() {
		t.Errorf("drain: %v %v", res, err)
	}
	if err := stream.RecvMsg(res); !errors.Is(err, io.EOF) {
		t.Errorf("drain goes on: %v", err)
	}
	if n := reflected(t, conn, "skein.admin.v1.Access").Methods().Len(); n != len(adminpb.Access_ServiceDesc.Methods)+len(adminpb.Access_ServiceDesc.Streams) {
		t.Errorf("Access has %d methods", n)
	}
}

// Clients of the Connect protocol are answered on the HTTP port, in protobuf and in JSON.
func TestConnect(t *testing.T) {
	one, two := &node{clients: []*adminpb.Client{{Id: "a"}}}, &node{clients: []*adminpb.Client{{Id: "b"}}}
	cluster(t, &world{}, one, two)
	base := strings.TrimSuffix(gatewayOf(t, one), GatewayPath)
	web := &http.Client{Transport: &http.Transport{}}
	defer web.CloseIdleConnections()
	for name, options := range map[string][]connect.ClientOption{"proto": nil, "json": {connect.WithProtoJSON()}} {
		t.Run(name, func(t *testing.T) {
			lists := connect.NewClient[adminpb.ListClientsRequest, adminpb.ListClientsResponse](web, base+adminpb.Admin_ListClients_FullMethodName, options...)
			res, err := lists.CallUnary(t.Context(), connect.NewRequest(&adminpb.ListClientsRequest{Page: &adminpb.Page{Size: 1}}))
			if err != nil || len(res.Msg.Clients) != 1 || res.Msg.NextToken != "a" {
				t.Fatalf("%v %v", res, err)
			}
			describes := connect.NewClient[adminpb.DescribeClientRequest, adminpb.DescribeClientResponse](web, base+adminpb.Admin_DescribeClient_FullMethodName, options...)
			_, err = describes.CallUnary(t.Context(), connect.NewRequest(&adminpb.DescribeClientRequest{Id: "nobody"}))
			if connect.CodeOf(err) != connect.CodeNotFound || !strings.Contains(err.Error(), "nobody") {
				t.Errorf("describe: %v", err)
			}
			users := connect.NewClient[adminpb.ListUsersRequest, adminpb.ListUsersResponse](web, base+adminpb.Access_ListUsers_FullMethodName, options...)
			if _, err := users.CallUnary(t.Context(), connect.NewRequest(&adminpb.ListUsersRequest{})); connect.CodeOf(err) != connect.CodeUnimplemented || !strings.Contains(err.Error(), "ListUsers") {
				t.Errorf("users, which this node does not keep: %v", err)
			}
			drains := connect.NewClient[adminpb.DrainNodeRequest, adminpb.DrainProgress](web, base+adminpb.Admin_DrainNode_FullMethodName, options...)
			drain := func(ctx context.Context, req *adminpb.DrainNodeRequest, deny string) (last *adminpb.DrainProgress, err error) {
				r := connect.NewRequest(req)
				r.Header().Set("X-Deny", deny)
				stream, err := drains.CallServerStream(ctx, r)
				if err != nil {
					return nil, err
				}
				defer func() { _ = stream.Close() }()
				for stream.Receive() {
					last = stream.Msg()
				}
				return last, stream.Err()
			}
			if p, err := drain(t.Context(), &adminpb.DrainNodeRequest{Node: "node2", DryRun: true}, ""); err != nil || !p.GetDone() {
				t.Errorf("drain: %v %v", p, err)
			}
			if p, err := drain(t.Context(), &adminpb.DrainNodeRequest{Node: "node9"}, ""); connect.CodeOf(err) != connect.CodeNotFound {
				t.Errorf("drain of none: %v %v", p, err)
			}
			if p, err := drain(t.Context(), &adminpb.DrainNodeRequest{Node: "node2"}, "yes"); connect.CodeOf(err) != connect.CodePermissionDenied || two.drains {
				t.Errorf("drain without leave: %v %v", p, err)
			}
		})
	}
	for _, test := range []struct{ method, contentType, body, want string }{
		{"ListClients", "application/proto", "\xff", "the request is no ListClientsRequest"},
		{"ListClients", "application/connect+proto", "", "is not application/json or application/proto"},
		{"DrainNode", "application/proto", "", "is not application/json, application/connect+json or application/connect+proto"},
		{"DrainNode", "application/connect+json", "{}", "the request is not one message"},
		{"DrainNode", "application/connect+json", "\x01\x00\x00\x00\x02{}", "the request is compressed"},
	} {
		res, err := web.Post(base+GatewayPath+test.method, test.contentType, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || !strings.Contains(string(b), test.want) {
			t.Errorf("%s %s %q: %d %q %v", test.method, test.contentType, test.body, res.StatusCode, b, err)
		}
	}
}
