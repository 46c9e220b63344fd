package admin

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// selector chooses the items of a list by their fields. The zero selector takes all.
type selector []condition

type condition struct {
	field  protoreflect.FieldDescriptor
	op     string
	text   string
	number float64
}

// comparisons of a selector, longer ones before those that they begin with.
var comparisons = []string{"!=", "==", "=", "~", ">", "<"}

// parseSelector reads a selector for items like one. Fields named by without are not there yet when items are
// selected.
func parseSelector(text string, one proto.Message, without ...string) (selector, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var s selector
	fields := one.ProtoReflect().Descriptor().Fields()
	for part := range strings.SplitSeq(text, ",") {
		at, op := len(part), ""
		for _, o := range comparisons {
			if i := strings.Index(part, o); i >= 0 && i < at {
				at, op = i, o
			}
		}
		if op == "" {
			return nil, status.Errorf(codes.InvalidArgument, "selector: %q has none of = != ~ > <", part)
		}
		name, value := strings.TrimSpace(part[:at]), strings.TrimSpace(part[at+len(op):])
		field := fields.ByJSONName(name)
		if field == nil {
			field = fields.ByName(protoreflect.Name(name))
		}
		if field == nil || field.IsMap() || field.IsList() || field.Kind() == protoreflect.MessageKind || slices.Contains(without, name) {
			return nil, status.Errorf(codes.InvalidArgument, "selector: there is no field %q to select by; there are %s", name, selectable(fields))
		}
		c := condition{field: field, op: op, text: value}
		if op == ">" || op == "<" {
			var err error
			if c.number, err = strconv.ParseFloat(value, 64); err != nil || !numeric(field.Kind()) {
				return nil, status.Errorf(codes.InvalidArgument, "selector: %q compares what is not a number", part)
			}
		}
		s = append(s, c)
	}
	return s, nil
}

func selectable(fields protoreflect.FieldDescriptors) string {
	var names []string
	for i := range fields.Len() {
		if f := fields.Get(i); !f.IsMap() && !f.IsList() && f.Kind() != protoreflect.MessageKind {
			names = append(names, f.JSONName())
		}
	}
	return strings.Join(names, ", ")
}

func numeric(k protoreflect.Kind) bool {
	switch k {
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Int64Kind, protoreflect.Int32Kind:
		return true
	}
	return false
}

// takes tells whether an item is wanted.
func (s selector) takes(item proto.Message) bool {
	for i := range s {
		if !s[i].holds(item.ProtoReflect().Get(s[i].field)) {
			return false
		}
	}
	return true
}

func (c *condition) holds(v protoreflect.Value) bool {
	switch c.op {
	case ">", "<":
		want := 1
		if c.op == "<" {
			want = -1
		}
		n, _ := strconv.ParseFloat(v.String(), 64) // it is one
		return cmp.Compare(n, c.number) == want
	case "~":
		return strings.Contains(c.string(v), c.text)
	case "!=":
		return c.string(v) != c.text
	}
	return c.string(v) == c.text
}

func (c *condition) string(v protoreflect.Value) string {
	if c.field.Kind() == protoreflect.BytesKind {
		return string(v.Bytes())
	}
	return v.String()
}
