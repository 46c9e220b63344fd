package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestReadme: the limits in the README's table are keys, and have the defaults that it says.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "### Limits\n")
	table, _, _ = strings.Cut(table, "\n### ")
	name := regexp.MustCompile("`([a-z]+\\.[a-z_]+)`")
	plainly := strings.NewReplacer(" ", "", ",", "", `"`, "", "[]", "none", "4294967295", "none")
	seen := 0
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) < 4 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		defaults := strings.Split(cells[2], ";")
		for i, m := range name.FindAllStringSubmatch(cells[1], -1) {
			seen++
			k, ok := lookup(m[1])
			if !ok {
				t.Errorf("no key is named %s", m[1])
				continue
			}
			is := plainly.Replace(format(reflect.ValueOf(Default()).Elem().FieldByIndex(k.index)))
			if is == "0" {
				is = "none"
			}
			if said := plainly.Replace(defaults[i]); is != said {
				t.Errorf("the default of %s is %s, the table says %s", k.Name, is, said)
			}
		}
	}
	if seen < 20 {
		t.Errorf("the table has %d limits", seen)
	}
}
