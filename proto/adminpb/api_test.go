package adminpb

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

var update = flag.Bool("update", false, "write docs/api.md")

const reference = "../../docs/api.md"

var (
	rpcLine     = regexp.MustCompile(`^rpc (\w+)\((stream )?(\w+)\) returns \((stream )?(\w+)\);$`)
	messageLine = regexp.MustCompile(`^message (\w+) \{(\})?$`)
	fieldLine   = regexp.MustCompile(`^(repeated )?(map<\w+, \w+>|\w+) (\w+) = (\d+);(?:\s*// (.*))?$`)
)

type field struct{ name, kind, number, comment string }

type message struct {
	name, comment string
	fields        []field
}

type method struct{ name, in, out, comment string }

// parse reads admin.proto, whose form is plain: one declaration a line, comments before it or behind it.
func parse(t *testing.T, text string) (methods []method, messages []message) {
	var comment []string
	open := false
	for n, raw := range strings.Split(text, "\n") {
		line := strings.TrimSpace(raw)
		said := strings.Join(comment, " ")
		if c, ok := strings.CutPrefix(line, "//"); ok {
			comment = append(comment, strings.TrimSpace(c))
			continue
		}
		comment = nil
		if m := rpcLine.FindStringSubmatch(line); m != nil {
			methods = append(methods, method{m[1], streamed(m[2], m[3]), streamed(m[4], m[5]), said})
			if said == "" {
				t.Errorf("line %d: %s has no comment", n+1, m[1])
			}
			continue
		}
		if m := messageLine.FindStringSubmatch(line); m != nil {
			messages = append(messages, message{name: m[1], comment: said})
			open = m[2] == ""
			continue
		}
		if m := fieldLine.FindStringSubmatch(line); m != nil && open {
			last := &messages[len(messages)-1]
			kind := m[2]
			if m[1] != "" {
				kind = "list of " + kind
			}
			last.fields = append(last.fields, field{m[3], kind, m[4], strings.TrimSpace(said + " " + m[5])})
			continue
		}
		switch {
		case line == "}":
			open = false
		case line == "" || strings.HasPrefix(line, "syntax") || strings.HasPrefix(line, "package") ||
			strings.HasPrefix(line, "option") || strings.HasPrefix(line, "service") || strings.HasPrefix(line, "import"):
		default:
			t.Errorf("line %d is not understood: %s", n+1, line)
		}
	}
	return methods, messages
}

func streamed(stream, name string) string {
	if stream != "" {
		return "stream of " + name
	}
	return name
}

func cell(s string) string { return strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(s) }

func render(methods []method, messages []message) string {
	var b strings.Builder
	b.WriteString("# The admin API\n\nThe service `skein.admin.v1.Admin` of `proto/adminpb/admin.proto`, from which this page is made " +
		"(`go test ./proto/adminpb -update`). Any node\nanswers for the whole cluster. Errors are gRPC status codes. " +
		"Server reflection and the standard health service are on.\n\n" +
		"The HTTP port answers the same methods, and those of `skein.admin.v1.Access` (`users.proto`), to clients of the Connect protocol, in JSON\n" +
		"and protobuf, and to curl: `POST /skein.admin.v1.Admin/METHOD` with the request as JSON. A stream is then a JSON object a line, or\n" +
		"server-sent events for who accepts them. `Restore`, which takes a stream, is for gRPC alone.\n\n## Methods\n\n| method | asks with | answers with | |\n|---|---|---|---|\n")
	for _, m := range methods {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.in, m.out, cell(m.comment))
	}
	b.WriteString("\n## Messages\n")
	for _, m := range messages {
		fmt.Fprintf(&b, "\n### %s\n", m.name)
		if m.comment != "" {
			fmt.Fprintf(&b, "\n%s\n", m.comment)
		}
		if len(m.fields) == 0 {
			b.WriteString("\nNo fields.\n")
			continue
		}
		b.WriteString("\n| field | type | no. | |\n|---|---|---|---|\n")
		for _, f := range m.fields {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.name, cell(f.kind), f.number, cell(f.comment))
		}
	}
	return b.String()
}

// The reference says what the proto file says, and knows every method and message of the generated code.
func TestReference(t *testing.T) {
	text, err := os.ReadFile("admin.proto")
	if err != nil {
		t.Fatal(err)
	}
	methods, messages := parse(t, string(text))
	services, all := File_proto_adminpb_admin_proto.Services(), File_proto_adminpb_admin_proto.Messages()
	known := 0
	for i := range services.Len() {
		known += services.Get(i).Methods().Len()
	}
	if len(methods) != known || len(messages) != all.Len() {
		t.Errorf("%d methods of %d, %d messages of %d", len(methods), known, len(messages), all.Len())
	}
	for _, m := range messages {
		if d := all.ByName(protoreflect.Name(m.name)); d == nil || len(m.fields) != d.Fields().Len() {
			t.Errorf("%s: %d fields, others in the generated code", m.name, len(m.fields))
		}
	}
	want := render(methods, messages)
	if *update {
		if err := os.WriteFile(reference, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(reference); err != nil || string(got) != want {
		t.Errorf("docs/api.md is not what the proto file says: go test ./proto/adminpb -update (%v)", err)
	}
}
