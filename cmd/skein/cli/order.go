package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/client-go/util/jsonpath"

	"github.com/skein-mqtt/skein/cmd/skein/config"
	"github.com/skein-mqtt/skein/proto/adminpb"
)

// sort orders the items by a field, as in -o json, or as a JSONPath template of one field has it.
func (l *listing) sort(by string) error {
	if len(l.items) == 0 {
		return nil
	}
	name, down := strings.CutPrefix(by, "-")
	name = strings.TrimPrefix(strings.Trim(name, "{}"), ".")
	fields := l.items[0].ProtoReflect().Descriptor().Fields()
	field := fields.ByJSONName(name)
	if field == nil || field.IsList() || field.IsMap() {
		var names []string
		for i := range fields.Len() {
			names = append(names, fields.Get(i).JSONName())
		}
		return usageError("--sort-by: there is no field %q; the nearest one is %s", name, config.Nearest(name, names))
	}
	slices.SortStableFunc(l.items, func(a, b proto.Message) int {
		order := compare(field, a.ProtoReflect().Get(field), b.ProtoReflect().Get(field))
		if down {
			return -order
		}
		return order
	})
	return nil
}

func compare(f protoreflect.FieldDescriptor, a, b protoreflect.Value) int {
	switch f.Kind() {
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return cmp.Compare(a.Uint(), b.Uint())
	case protoreflect.Int64Kind:
		return cmp.Compare(a.Int(), b.Int())
	case protoreflect.BytesKind:
		return bytes.Compare(a.Bytes(), b.Bytes())
	}
	return cmp.Compare(a.String(), b.String())
}

// parseJSONPath reads a template as kubectl has them: {.items[*].id}.
func parseJSONPath(template string) (*jsonpath.JSONPath, error) {
	if !strings.HasPrefix(template, "{") {
		template = "{" + template + "}"
	}
	p := jsonpath.New("output")
	if err := p.Parse(template); err != nil {
		return nil, fmt.Errorf("jsonpath: %w", err)
	}
	return p, nil
}

// jsonPath prints what a template finds in the document that -o json prints.
func (l *listing) jsonPath(w io.Writer, template string) error {
	p, err := parseJSONPath(template)
	if err != nil {
		return err
	}
	text, err := json.Marshal(l.document())
	if err != nil {
		return err
	}
	var doc any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // 64 bits must not be rounded
	if err := d.Decode(&doc); err != nil {
		return err
	}
	var out bytes.Buffer
	if err := p.Execute(&out, plainNumbers(doc)); err != nil {
		return fmt.Errorf("jsonpath: %w", err)
	}
	for line := range strings.Lines(strings.TrimSuffix(out.String(), "\n") + "\n") {
		parts := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		for i := range parts {
			parts[i] = readable([]byte(parts[i]), len(parts[i])) // a client's name must not steer a terminal
		}
		if _, err := fmt.Fprintln(w, strings.Join(parts, "\t")); err != nil {
			return err
		}
	}
	return nil
}

// plainNumbers makes whole numbers such that templates can compare them.
func plainNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = plainNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = plainNumbers(v[k])
		}
	}
	return v
}

// watch prints the list, and then what has changed whenever it looks: rows that are new or different, and those
// that are gone. Ages that only go on are no change.
func (a *asker) watch(ctx context.Context, c services, f fetch, r resource, args []string, o getOptions) error {
	last := make(map[string]string)
	p := rowPrinter{out: a.env.Out, r: r, o: o}
	silent := ""
	for {
		l, err := a.list(ctx, c, f, r, args, o)
		if l == nil {
			return err
		}
		at := now()
		seen := make(map[string]bool, len(l.items))
		p.fit(l.items, at)
		for _, m := range l.items {
			key := rowKey(r, m)
			seen[key] = true
			if shows := p.shows(m); shows != last[key] {
				last[key] = shows
				p.print(m, at)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(last)) {
			if !seen[key] {
				delete(last, key)
				p.gone(key)
			}
		}
		var names []string
		for _, m := range l.missing {
			names = append(names, m.Node)
		}
		if now := strings.Join(names, ", "); now != silent {
			silent = now
			a.complain(l)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(o.interval):
		}
	}
}

// rowKey tells one item from another; a client has many subscriptions.
func rowKey(r resource, m proto.Message) string {
	if s, ok := m.(*adminpb.Subscription); ok {
		return s.Client + "\x00" + s.Filter + "\x00" + s.Group
	}
	return r.id(m)
}

// rowPrinter prints rows one after the other, in columns that are as wide as the widest so far.
type rowPrinter struct {
	out    io.Writer
	r      resource
	o      getOptions
	widths []int
	begun  bool
}

func (p *rowPrinter) columns() (list []column) {
	for _, c := range p.r.columns {
		if !c.wide || p.o.format == "wide" {
			list = append(list, c)
		}
	}
	return list
}

// shows is what a row tells, without what changes by itself.
func (p *rowPrinter) shows(m proto.Message) string {
	var b strings.Builder
	for _, c := range p.columns() {
		b.WriteString(c.cell(m, time.Time{}))
		b.WriteByte(0)
	}
	return b.String()
}

func (p *rowPrinter) print(m proto.Message, at time.Time) {
	switch p.o.format {
	case "name":
		fmt.Fprintf(p.out, "%s/%s\n", p.r.singular, readable([]byte(p.r.id(m)), 1<<16))
		return
	case "json":
		if b, err := json.Marshal(toObject(m)); err == nil {
			fmt.Fprintln(p.out, string(b))
		}
		return
	}
	columns := p.columns()
	if !p.begun {
		p.begun = true
		if !p.o.noHeaders {
			p.row(columns, func(c column) string { return c.head })
		}
	}
	p.row(columns, func(c column) string { return readable([]byte(c.cell(m, at)), 120) })
}

// fit widens the columns for rows that are about to be printed.
func (p *rowPrinter) fit(items []proto.Message, at time.Time) {
	columns := p.columns()
	if p.widths == nil {
		p.widths = make([]int, len(columns))
	}
	for i, c := range columns {
		p.widths[i] = max(p.widths[i], len(c.head))
		for _, m := range items {
			p.widths[i] = max(p.widths[i], utf8.RuneCountInString(orDash(readable([]byte(c.cell(m, at)), 120))))
		}
	}
}

func (p *rowPrinter) row(columns []column, cell func(column) string) {
	var b strings.Builder
	for i, c := range columns {
		fmt.Fprintf(&b, "%-*s   ", p.widths[i], orDash(cell(c)))
	}
	fmt.Fprintln(p.out, strings.TrimRight(b.String(), " "))
}

// gone tells of a row that is not there any more.
func (p *rowPrinter) gone(key string) {
	name, _, _ := strings.Cut(key, "\x00")
	fmt.Fprintf(p.out, "%s/%s is gone\n", p.r.singular, readable([]byte(name), 200))
}
