package mosquitto

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Result of an import.
type Result struct {
	Config []byte // YAML
	Notes  []Note // in the order of the lines
}

// Lost is how many lines have no counterpart, or can't be read.
func (r *Result) Lost() (n int) {
	for _, one := range r.Notes {
		if one.Fate == Missing || one.Fate == Bad {
			n++
		}
	}
	return n
}

// listener of Mosquitto's, as far as it has been read.
type listener struct {
	port, host, path string
	websockets       bool
	anonymous        string // as converter's, with per_listener_settings
	psk              string // as converter's, with per_listener_settings
	query            url.Values
}

// proves tells whether the listener knows who its clients are.
func (l *listener) proves() bool {
	names := l.query.Get("use_identity_as_username") == "true" || l.query.Get("use_subject_as_username") == "true"
	return names && (l.query.Get("require_client_cert") == "true" || l.query.Has("file"))
}

// converter turns lines into keys.
type converter struct {
	keys      []key
	listeners []*listener
	now       *listener // whom options of a listener are for
	psk       string
	notes     []Note
	anonymous string            // true, false, or not said
	files     map[string]string // password_file and acl_file
	plugin    bool
	each      bool // per_listener_settings
}

type key struct{ name, value string } // value in YAML

// Import reads mosquitto.conf and what it includes. Notes tell of everything but files that can't be read.
func Import(path string) (*Result, error) {
	lines, err := read(path, 0)
	if err != nil {
		return nil, err
	}
	c := &converter{files: make(map[string]string)}
	bridge := false
	for _, l := range lines {
		bridge = bridge && l.option != "listener" && l.option != "include_dir" || l.option == "connection"
		fate, text := Missing, "bridges have no counterpart yet"
		if !bridge {
			fate, text = c.option(l)
		}
		shown := l.option
		if l.value != "" && !strings.Contains(l.option, "password") || l.option == "password_file" {
			shown += " " + l.value
		}
		c.notes = append(c.notes, Note{l.file, l.number, strings.TrimSpace(shown), fate, text})
	}
	c.finish()
	return &Result{Config: c.yaml(path), Notes: c.notes}, nil
}

func (c *converter) set(name, value string) { c.keys = append(c.keys, key{name, value}) }

// text is a string in YAML.
func text(s string) string {
	b, err := json.Marshal(s)
	if err != nil { // of a string it can't be
		panic(err)
	}
	return string(b)
}

// current is the listener that options are for: the last one, or the one that is there without a line.
func (c *converter) current() *listener {
	if c.now == nil {
		c.now = &listener{port: "1883", query: url.Values{}}
		c.listeners = append(c.listeners, c.now)
	}
	return c.now
}

// finish settles what only the whole configuration tells.
func (c *converter) finish() {
	open := len(c.listeners) == 0
	if open { // as Mosquitto 2 does without a listener
		c.listeners = append(c.listeners, &listener{port: "1883", host: "127.0.0.1", query: url.Values{}})
	}
	proved := true
	for _, l := range c.listeners {
		if psk := cmp.Or(l.psk, c.psk); l.query.Has("hint") && psk != "" {
			l.query.Set("file", psk)
		}
		proved = proved && l.proves()
	}
	passwords := c.files["password_file"] != ""
	if c.each && !open {
		c.finishEach(passwords)
		return
	}
	asks := passwords || c.plugin
	if c.anonymous == "true" && asks {
		c.set("auth.allow_anonymous", "true")
	}
	if c.anonymous != "true" && !(open && c.anonymous == "") {
		asks = true
	}
	if asks && !passwords && !proved { // it lets nobody in without a proof, and neither may this one
		c.set("auth.require", "true")
	}
}

// finishEach settles who needs no proof where each listener says so itself.
func (c *converter) finishEach(passwords bool) {
	asks := c.plugin
	for _, l := range c.listeners {
		if l.proves() {
			continue
		}
		anonymous := cmp.Or(l.anonymous, c.anonymous) == "true"
		l.query.Set("allow_anonymous", strconv.FormatBool(anonymous))
		asks = asks || !anonymous
	}
	if asks && !passwords {
		c.set("auth.require", "true")
	}
}

// url is the listener as ours are written, and the settings that its kind has.
func (l *listener) url() (address string, settings []key) {
	scheme, has := "tcp", []string(nil)
	certificates := []string{"cert", "key", "ca", "crl", "require_client_cert", "use_identity_as_username", "use_subject_as_username", "tls_version"}
	switch {
	case l.path != "":
		return "unix://" + l.path, l.common()
	case l.query.Has("file"):
		scheme, has = "psk", []string{"file", "hint", "use_identity_as_username", "tls_version"}
	case l.query.Has("cert") && l.websockets:
		scheme, has = "wss", certificates
	case l.query.Has("cert"):
		scheme, has = "tls", certificates
	case l.websockets:
		scheme = "ws"
	}
	required := l.query.Get("require_client_cert") == "true"
	for _, name := range has {
		names := strings.HasSuffix(name, "_as_username")
		if v := l.query.Get(name); v != "" && (!names || required || scheme == "psk") { // else they say nothing
			settings = append(settings, key{name, text(v)})
		}
	}
	return scheme + "://" + net.JoinHostPort(l.host, l.port), append(settings, l.common()...)
}

// common are the settings that every kind of listener has.
func (l *listener) common() (settings []key) {
	for _, name := range []string{"max_connections", "allow_anonymous"} {
		if v := l.query.Get(name); v != "" {
			settings = append(settings, key{name, v})
		}
	}
	for _, name := range []string{"protocol_versions", "mount_point"} {
		if v := l.query.Get(name); v != "" {
			settings = append(settings, key{name, text(v)})
		}
	}
	return settings
}

// yaml is the configuration that came out.
func (c *converter) yaml(path string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Made from %s by 'skein import'. 'skein run --config THIS --print-config' shows all keys.\n", path)
	b.WriteString("listen:\n")
	for _, l := range c.listeners {
		address, settings := l.url()
		fmt.Fprintf(&b, "- url: %s\n", text(address))
		for _, k := range settings {
			fmt.Fprintf(&b, "  %s: %s\n", k.name, k.value)
		}
	}
	last := ""
	slices.SortStableFunc(c.keys, func(a, b key) int {
		return strings.Compare(section(a.name), section(b.name))
	})
	for i, k := range c.keys {
		if i+1 < len(c.keys) && slices.ContainsFunc(c.keys[i+1:], func(o key) bool { return o.name == k.name }) {
			continue // the last one counts
		}
		s := section(k.name)
		if s != last {
			fmt.Fprintf(&b, "%s:\n", s)
			last = s
		}
		fmt.Fprintf(&b, "  %s: %s\n", strings.TrimPrefix(k.name, s+"."), k.value)
	}
	return b.Bytes()
}

func section(name string) string {
	s, _, _ := strings.Cut(name, ".")
	return s
}
