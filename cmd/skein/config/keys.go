package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Key is one setting.
type Key struct {
	Name string // mqtt.max_qos
	Flag string // without the dashes
	Env  string // SKEIN_MQTT_MAX_QOS
	Doc  string
	List bool
	Bool bool
	// Short is set when the flag has a name of its own, shorter than the key.
	Short bool

	index []int
}

// Keys are all settings, in the order of the file.
func Keys() []Key { return keys }

var (
	keys     = collect(reflect.TypeFor[Config](), "", nil)
	keyNames = names()
)

func collect(t reflect.Type, prefix string, index []int) []Key {
	var all []Key
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + f.Tag.Get("key")
		at := append(append([]int{}, index...), i)
		if f.Type.Kind() == reflect.Struct {
			all = append(all, collect(f.Type, name+".", at)...)
			continue
		}
		k := Key{
			Name: name, Flag: f.Tag.Get("flag"), Doc: f.Tag.Get("doc"), index: at,
			Env:   "SKEIN_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_")),
			List:  f.Type.Kind() == reflect.Slice,
			Bool:  f.Type.Kind() == reflect.Bool,
			Short: f.Tag.Get("flag") != "" || prefix == "" || name == "node.id",
		}
		if k.Flag == "" {
			k.Flag = strings.NewReplacer(".", "-", "_", "-").Replace(name)
		}
		all = append(all, k)
	}
	return all
}

func names() []string {
	all := make([]string, len(keys))
	for i, k := range keys {
		all[i] = k.Name
	}
	return all
}

func lookup(name string) (Key, bool) {
	for _, k := range keys {
		if k.Name == name {
			return k, true
		}
	}
	return Key{}, false
}

// section tells whether name is a section: node, mqtt ….
func section(name string) bool {
	for _, k := range keys {
		if strings.HasPrefix(k.Name, name+".") {
			return true
		}
	}
	return false
}

// Nearest is the candidate with the smallest edit distance to name; empty without candidates.
func Nearest(name string, candidates []string) string {
	best, at := "", -1
	for _, c := range candidates {
		d := distance(name, c)
		if tail := c[strings.LastIndexByte(c, '.')+1:]; tail == name[strings.LastIndexByte(name, '.')+1:] {
			d = min(d, 1) // the right key in the wrong section, or in none
		}
		if at < 0 || d < at {
			best, at = c, d
		}
	}
	return best
}

// distance is Levenshtein's, with a swap of neighbours as one step.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

// UnknownError is a name that no key has.
type UnknownError struct {
	Origin  string // where it stood
	Name    string
	Nearest string
}

// Error names what was wrong and what was probably meant.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("%s: unknown %s; the nearest valid one is %s", e.Origin, e.Name, e.Nearest)
}
