package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/skein-mqtt/skein/proto/adminpb"
)

// GatewayPath is where the methods of the service Admin are found by HTTP, each under its name; AccessPath, those of
// Access.
const (
	GatewayPath = "/skein.admin.v1.Admin/"
	AccessPath  = "/skein.admin.v1.Access/"
)

// maxRequest bounds a request's body.
const maxRequest = 4 << 20

// reads are the methods that change nothing: they may be asked with GET.
func reads(method string) bool {
	switch method {
	case "DescribeClient", "Explain", "WatchEvents", "Trace", "Logs", "Version", "StateHash", "GetDefaults", "CanI":
		return true
	}
	return strings.HasPrefix(method, "List")
}

// gateway answers the services' methods over HTTP, as JSON for people with curl and for pages: POST with the
// request as the body, or GET with it as the parameter "request" for those that change nothing. A stream is a JSON
// object a line, or server-sent events for who accepts them. Who speaks the Connect protocol is answered in that, in JSON
// or protobuf; see connect.go.
type gateway struct {
	authorize func(r *http.Request, method string, req proto.Message) (ended func(error), err error)
	methods   map[string]unaryMethod // by path
	streams   map[string]streamMethod
}

type (
	unaryMethod struct {
		grpc.MethodDesc
		on    any // what implements it
		input protoreflect.MessageDescriptor
	}
	streamMethod struct {
		grpc.StreamDesc
		on    any
		input protoreflect.MessageDescriptor
	}
)

// Gateway is the services by HTTP, under GatewayPath and AccessPath. authorize is asked for every call, when its request is
// known, with the full gRPC name of the method; ended hears what became of the call. nil: everybody may.
func (s *Server) Gateway(authorize func(r *http.Request, method string, req proto.Message) (ended func(error), err error)) http.Handler {
	if authorize == nil {
		authorize = func(*http.Request, string, proto.Message) (func(error), error) { return func(error) {}, nil }
	}
	g := &gateway{authorize: authorize, methods: make(map[string]unaryMethod), streams: make(map[string]streamMethod)}
	g.add(&adminpb.Admin_ServiceDesc, adminpb.File_proto_adminpb_admin_proto, s)
	g.add(&adminpb.Access_ServiceDesc, adminpb.File_proto_adminpb_users_proto, s.access())
	return g
}

func (g *gateway) add(d *grpc.ServiceDesc, file protoreflect.FileDescriptor, on any) {
	path := "/" + d.ServiceName + "/"
	known := file.Services().ByName(protoreflect.FullName(d.ServiceName).Name()).Methods()
	for _, m := range d.Methods {
		g.methods[path+m.MethodName] = unaryMethod{m, on, known.ByName(protoreflect.Name(m.MethodName)).Input()}
	}
	for _, m := range d.Streams {
		g.streams[path+m.StreamName] = streamMethod{m, on, known.ByName(protoreflect.Name(m.StreamName)).Input()}
	}
}

// ServeHTTP implements http.Handler.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	name := path[strings.LastIndexByte(path, '/')+1:]
	unary, isUnary := g.methods[path]
	stream, isStream := g.streams[path]
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case !isUnary && !isStream:
		fail(w, status.Errorf(codes.Unimplemented, "there is no method %q: see docs/api.md", name))
		return
	case isStream && stream.ClientStreams:
		fail(w, status.Errorf(codes.Unimplemented, "%s takes a stream: it is for gRPC alone", name))
		return
	case r.Method == http.MethodGet && !reads(name) || r.Method != http.MethodGet && r.Method != http.MethodPost:
		h.Set("Allow", "POST")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	input := unary.input
	if isStream {
		input = stream.input
	}
	as, err := codecOf(r, isStream)
	if err != nil {
		fail(w, err)
		return
	}
	req, err := request(input, as, r)
	if err != nil {
		as.fail(w, err)
		return
	}
	ended, err := g.authorize(r, path, req)
	if err != nil {
		as.fail(w, err)
		return
	}
	if isStream && as.enveloped {
		out := &connectStream{httpStream: httpStream{ctx: r.Context(), w: w, flush: http.NewResponseController(w).Flush, req: req}, as: as}
		err = stream.Handler(stream.on, out)
		ended(err)
		out.end(err)
		return
	}
	if isStream {
		out := &httpStream{ctx: r.Context(), w: w, flush: http.NewResponseController(w).Flush, req: req, events: strings.Contains(r.Header.Get("Accept"), "text/event-stream")}
		err = stream.Handler(stream.on, out)
		ended(err)
		out.end(err)
		return
	}
	res, err := unary.Handler(unary.on, r.Context(), func(to any) error {
		proto.Merge(to.(proto.Message), req)
		return nil
	}, nil)
	ended(err)
	if err != nil {
		fail(w, err)
		return
	}
	body, err := as.encode(res.(proto.Message))
	if err != nil {
		fail(w, err)
		return
	}
	h.Set("Content-Type", as.contentType())
	if !as.binary {
		body = append(body, '\n')
	}
	_, _ = w.Write(body) // a reader that is gone is not our error
}

// request reads what a method is asked with.
func request(input protoreflect.MessageDescriptor, as codec, r *http.Request) (proto.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(input.FullName())
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	req := kind.New().Interface()
	body := []byte(r.URL.Query().Get("request"))
	if r.Method == http.MethodPost {
		if body, err = io.ReadAll(http.MaxBytesReader(nil, r.Body, maxRequest)); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "the request can't be read: %v", err)
		}
	}
	if as.enveloped {
		if body, err = opened(body); err != nil {
			return nil, err
		}
	}
	if as.binary {
		if err := proto.Unmarshal(body, req); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "the request is no %s: %v", input.Name(), err)
		}
		return req, nil
	}
	if len(body) == 0 {
		return req, nil
	}
	if err := protojson.Unmarshal(body, req); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the request is no %s: %v", input.Name(), err)
	}
	return req, nil
}

func text(m proto.Message) []byte {
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil { // a string that is not UTF-8
		b, _ = json.Marshal(map[string]string{"error": err.Error()})
	}
	return b
}

// codeNames and httpCodes are those of the Connect protocol.
var codeNames = map[codes.Code]string{
	codes.Canceled: "canceled", codes.InvalidArgument: "invalid_argument", codes.DeadlineExceeded: "deadline_exceeded",
	codes.NotFound: "not_found", codes.PermissionDenied: "permission_denied", codes.ResourceExhausted: "resource_exhausted",
	codes.FailedPrecondition: "failed_precondition", codes.Aborted: "aborted", codes.Unimplemented: "unimplemented",
	codes.AlreadyExists: "already_exists", codes.OutOfRange: "out_of_range", codes.DataLoss: "data_loss",
	codes.Internal: "internal", codes.Unavailable: "unavailable", codes.Unauthenticated: "unauthenticated",
}

var httpCodes = map[codes.Code]int{
	codes.Canceled: 499, codes.InvalidArgument: 400, codes.DeadlineExceeded: 504, codes.NotFound: 404, codes.PermissionDenied: 403,
	codes.ResourceExhausted: 429, codes.FailedPrecondition: 400, codes.Aborted: 409, codes.Unimplemented: 501, codes.Internal: 500,
	codes.Unavailable: 503, codes.Unauthenticated: 401, codes.AlreadyExists: 409, codes.OutOfRange: 400, codes.DataLoss: 500,
}

func problem(err error) (code int, body []byte) {
	st := status.Convert(err)
	name, ok := codeNames[st.Code()]
	if !ok {
		name = "unknown"
	}
	if code, ok = httpCodes[st.Code()]; !ok {
		code = 500
	}
	body, _ = json.Marshal(map[string]string{"code": name, "message": st.Message()}) // strings always can
	return code, body
}

func fail(w http.ResponseWriter, err error) {
	code, body := problem(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n'))
}

// httpStream is a server's stream by HTTP.
type httpStream struct {
	ctx    context.Context
	w      http.ResponseWriter
	flush  func() error
	req    proto.Message
	events bool
	taken  bool
	begun  bool
}

// Context implements grpc.ServerStream.
func (s *httpStream) Context() context.Context { return s.ctx }

// SetHeader implements grpc.ServerStream.
func (s *httpStream) SetHeader(metadata.MD) error { return nil }

// SetTrailer implements grpc.ServerStream.
func (s *httpStream) SetTrailer(metadata.MD) {}

// SendHeader implements grpc.ServerStream.
func (s *httpStream) SendHeader(metadata.MD) error {
	if s.begun {
		return nil
	}
	s.begun = true
	kind := "application/x-ndjson"
	if s.events {
		kind = "text/event-stream"
	}
	s.w.Header().Set("Content-Type", kind)
	s.w.WriteHeader(http.StatusOK)
	return s.flush()
}

// RecvMsg implements grpc.ServerStream: there is one request.
func (s *httpStream) RecvMsg(m any) error {
	if s.taken {
		return io.EOF
	}
	s.taken = true
	proto.Merge(m.(proto.Message), s.req)
	return nil
}

// SendMsg implements grpc.ServerStream.
func (s *httpStream) SendMsg(m any) error { return s.send("", text(m.(proto.Message))) }

func (s *httpStream) send(event string, body []byte) error {
	if err := s.SendHeader(nil); err != nil {
		return err
	}
	format := "%s%s\n"
	if s.events {
		if format = "%sdata: %s\n\n"; event != "" {
			event = "event: " + event + "\n"
		}
	} else {
		event = ""
	}
	if _, err := fmt.Fprintf(s.w, format, event, body); err != nil {
		return err
	}
	return s.flush()
}

// end tells what ended the stream, if it was not its client.
func (s *httpStream) end(err error) {
	switch {
	case err == nil && !s.begun:
		_ = s.SendHeader(nil)
	case err == nil, errors.Is(err, context.Canceled), s.ctx.Err() != nil:
	case !s.begun:
		fail(s.w, err)
	default:
		_, body := problem(err)
		_ = s.send("problem", []byte(`{"error":`+string(body)+`}`))
	}
}
