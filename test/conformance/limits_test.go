package conformance

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// elsewhere are the tests of limits that no transcript can reach.
var elsewhere = map[string]string{
	"mqtt.max_buffered_bytes":          "test/e2e.testSlowReader",
	"cluster.link_buffer":              "test/e2e.TestLinkBuffer",
	"cluster.grace":                    "test/e2e.testMinority",
	"disk.low_bytes":                   "test/e2e.testDiskLow",
	"disk.low_percent":                 "test/e2e.testDiskLow",
	"mqtt.max_connections_per_address": "test/e2e.TestLimitsOfConnections",
	"mqtt.max_connect_rate":            "test/e2e.TestLimitsOfConnections",
	"mqtt.max_message_rate":            "test/e2e.TestLimitsOfRates",
	"mqtt.max_byte_rate":               "test/e2e.TestLimitsOfRates",
	"mqtt.rate_policy":                 "test/e2e.TestLimitsOfRates",
	"mqtt.max_retained_messages":       "test/e2e.TestLimitsOfRetained",
	"mqtt.max_retained_bytes":          "test/e2e.TestLimitsOfRetained",
	"memory.limit":                     "test/e2e.TestMemoryLimit",
	"memory.limit_percent":             "test/e2e.TestMemoryOfTheMachine",
	"memory.policy":                    "test/e2e.TestMemoryPause",
	"auth.max_failures":                "test/e2e.TestLimitOfFailures",
}

// TestLimits: a transcript, or a test, reaches each limit in the README's table and sees it counted. (That
// they are keys, with these defaults, is for cmd/skein/config.)
func TestLimits(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "### Limits\n")
	table, _, _ = strings.Cut(table, "\n### ")
	reached := tagged(t)
	key := regexp.MustCompile("`([a-z]+\\.[a-z_]+)`")
	var keys []string
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], "`") {
			continue
		}
		for _, m := range key.FindAllStringSubmatch(cells[1], -1) {
			keys = append(keys, m[1])
		}
	}
	if len(keys) < 20 {
		t.Fatalf("the README's table has %d limits", len(keys))
	}
	for _, k := range keys {
		switch test, ok := elsewhere[k]; {
		case ok:
			pkg, name, _ := strings.Cut(test, ".")
			if !hasTest(t, pkg, name) {
				t.Errorf("%s: there is no test %s", k, test)
			}
		case !slices.Contains(reached, k):
			t.Errorf("no case reaches %s", k)
		}
	}
	for _, k := range reached {
		if !slices.Contains(keys, k) {
			t.Errorf("%s is reached, but is not in the table", k)
		}
	}
}

// tagged are the limits that cases name.
func tagged(t *testing.T) (keys []string) {
	t.Helper()
	paths, err := filepath.Glob("testdata/*/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	tag := regexp.MustCompile(`\[limit ([a-z_.]+)\]`)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range tag.FindAllStringSubmatch(string(b), -1) {
			keys = append(keys, m[1])
		}
	}
	return keys
}
