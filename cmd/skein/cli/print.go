package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// now is the clock of ages in tables; tests stop it.
var now = time.Now

func (l *listing) print(w io.Writer, r resource, o getOptions) error {
	if template, ok := strings.CutPrefix(o.format, jsonPath); ok {
		return l.jsonPath(w, template)
	}
	switch o.format {
	case "json", "yaml":
		return encode(w, l.document(), o.format)
	case "name":
		for _, m := range l.items {
			if _, err := fmt.Fprintf(w, "%s/%s\n", r.singular, readable([]byte(r.id(m)), 1<<16)); err != nil {
				return err
			}
		}
		return nil
	}
	return l.table(w, r, o)
}

// encode writes a document as JSON or YAML.
func encode(w io.Writer, doc object, format string) error {
	if format == "yaml" {
		b, err := yaml.MarshalWithOptions(doc.yaml(), yaml.IndentSequence(true))
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(doc); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (l *listing) table(w io.Writer, r resource, o getOptions) error {
	at := now()
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	row := func(cell func(column) string) {
		var cells []string
		for _, c := range r.columns {
			if !c.wide || o.format == "wide" {
				cells = append(cells, cell(c))
			}
		}
		// The last column gets no blanks behind it.
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	if !o.noHeaders && len(l.items) > 0 {
		row(func(c column) string { return c.head })
	}
	for _, m := range l.items {
		row(func(c column) string {
			if text := readable([]byte(c.cell(m, at)), 120); text != "" {
				return text
			}
			return "-"
		})
	}
	return tw.Flush()
}

// object is a JSON or YAML object whose keys stay in order.
type object []field

type field struct {
	name  string
	value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(f.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(f.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (o object) yaml() yaml.MapSlice {
	s := make(yaml.MapSlice, len(o))
	for i, f := range o {
		s[i] = yaml.MapItem{Key: f.name, Value: plainYAML(f.value)}
	}
	return s
}

func plainYAML(v any) any {
	switch v := v.(type) {
	case object:
		return v.yaml()
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = plainYAML(v[i])
		}
		return list
	}
	return v
}

func (l *listing) document() object {
	items := make([]any, len(l.items))
	for i, m := range l.items {
		items[i] = toObject(m)
	}
	doc := object{{"items", items}}
	if len(l.missing) > 0 {
		missing := make([]any, len(l.missing))
		for i, m := range l.missing {
			missing[i] = toObject(m)
		}
		doc = append(doc, field{"missing", missing})
	}
	return doc
}

// toObject is a message with the field names of protobuf's JSON, but with numbers as numbers,
// times (every int64 of the admin service is one, in milliseconds) in RFC 3339, and a payload as
// text when it is text.
func toObject(m proto.Message) object {
	var o object
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		name, v := fd.JSONName(), r.Get(fd)
		switch {
		case fd.IsList():
			list := make([]any, v.List().Len())
			for i := range list {
				if one := v.List().Get(i); fd.Message() != nil {
					list[i] = toObject(one.Message().Interface())
				} else {
					list[i] = one.Interface()
				}
			}
			o = append(o, field{name, list})
		case fd.IsMap():
			o = append(o, field{name, counts(v.Map())})
		case fd.Kind() == protoreflect.Int64Kind:
			if v.Int() != 0 {
				o = append(o, field{name, time.UnixMilli(v.Int()).UTC().Format("2006-01-02T15:04:05.000Z")})
			}
		case fd.Kind() == protoreflect.BytesKind:
			if utf8.Valid(v.Bytes()) {
				o = append(o, field{name, string(v.Bytes())})
			} else {
				o = append(o, field{name + "Base64", base64.StdEncoding.EncodeToString(v.Bytes())})
			}
		default:
			o = append(o, field{name, v.Interface()})
		}
	}
	return o
}

func counts(m protoreflect.Map) object {
	o := object{}
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		o = append(o, field{k.String(), v.Uint()})
		return true
	})
	slices.SortFunc(o, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return o
}

// tabulate prints rows of cells, the first one being the headings.
func tabulate(w io.Writer, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, cells := range rows {
		for i := range cells {
			cells[i] = readable([]byte(cells[i]), 200)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}
