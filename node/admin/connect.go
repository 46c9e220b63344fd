package admin

import (
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// The Connect protocol (connectrpc.com/docs/protocol): a unary call is a plain POST in JSON or protobuf; in a stream
// each message has five bytes before it, and the last one tells how it ended.

// codec is how a request says that it and its answer are written.
type codec struct {
	binary    bool // protobuf, else JSON
	enveloped bool // a stream of the Connect protocol
}

// codecOf reads the content type: what a page elsewhere can send unasked is none of them.
func codecOf(r *http.Request, stream bool) (codec, error) {
	if r.Method == http.MethodGet {
		return codec{}, nil
	}
	if e := r.Header.Get("Content-Encoding") + r.Header.Get("Connect-Content-Encoding"); e != "" && e != "identity" {
		return codec{}, status.Errorf(codes.Unimplemented, "Content-Encoding: %q is not known: send it as it is", e)
	}
	t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch {
	case t == "application/json":
		return codec{}, nil
	case t == "application/proto" && !stream:
		return codec{binary: true}, nil
	case t == "application/connect+json" && stream:
		return codec{enveloped: true}, nil
	case t == "application/connect+proto" && stream:
		return codec{enveloped: true, binary: true}, nil
	case stream:
		return codec{}, status.Errorf(codes.InvalidArgument, "Content-Type: %q is not application/json, application/connect+json or application/connect+proto", t)
	}
	return codec{}, status.Errorf(codes.InvalidArgument, "Content-Type: %q is not application/json or application/proto", t)
}

func (c codec) contentType() string {
	t := "application/"
	if c.enveloped {
		t += "connect+"
	}
	if c.binary {
		return t + "proto"
	}
	return t + "json"
}

func (c codec) encode(m proto.Message) ([]byte, error) {
	if !c.binary {
		return text(m), nil
	}
	b, err := proto.Marshal(m)
	if err != nil { // a string that is not UTF-8
		return nil, status.Errorf(codes.Internal, "the answer can't be written: %v", err)
	}
	return b, nil
}

// fail refuses a call: a stream of the Connect protocol does so in its last message.
func (c codec) fail(w http.ResponseWriter, err error) {
	if !c.enveloped {
		fail(w, err)
		return
	}
	s := &connectStream{httpStream: httpStream{w: w, flush: http.NewResponseController(w).Flush}, as: c}
	s.end(err)
}

// Flags of an envelope.
const (
	compressed  = 1
	endOfStream = 2
)

func sealed(flags byte, body []byte) []byte {
	out := make([]byte, 5, 5+len(body))
	out[0] = flags
	binary.BigEndian.PutUint32(out[1:], uint32(len(body)))
	return append(out, body...)
}

// opened is the message of the only envelope of a request.
func opened(body []byte) ([]byte, error) {
	if len(body) < 5 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return nil, status.Error(codes.InvalidArgument, "the request is not one message with its length before it")
	}
	if body[0]&compressed != 0 {
		return nil, status.Error(codes.Unimplemented, "the request is compressed: send it as it is")
	}
	return body[5:], nil
}

// connectStream is a server's stream by the Connect protocol.
type connectStream struct {
	httpStream
	as codec
}

// SendHeader implements grpc.ServerStream.
func (s *connectStream) SendHeader(metadata.MD) error {
	if s.begun {
		return nil
	}
	s.begun = true
	s.w.Header().Set("Content-Type", s.as.contentType())
	s.w.WriteHeader(http.StatusOK)
	return s.flush()
}

// SendMsg implements grpc.ServerStream.
func (s *connectStream) SendMsg(m any) error {
	body, err := s.as.encode(m.(proto.Message))
	if err != nil {
		return err
	}
	return s.write(0, body)
}

func (s *connectStream) write(flags byte, body []byte) error {
	if err := s.SendHeader(nil); err != nil {
		return err
	}
	if _, err := s.w.Write(sealed(flags, body)); err != nil {
		return err
	}
	return s.flush()
}

// end is the last message; err says what ended the stream.
func (s *connectStream) end(err error) {
	last := struct {
		Error json.RawMessage `json:"error,omitempty"`
	}{}
	if err != nil {
		_, last.Error = problem(err)
	}
	body, _ := json.Marshal(last)  // what problem has made is JSON
	_ = s.write(endOfStream, body) // who has gone does not hear it
}
