package run

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/skein-mqtt/skein/fsm"
	"github.com/skein-mqtt/skein/node/disk"
)

// metricNames are the names and labels that a node can have on /metrics.
func metricNames(t *testing.T) map[string][]string {
	t.Helper()
	n := &node{fsm: fsm.New("node1"), disk: disk.New(disk.Config{Path: t.TempDir(), LowBytes: 1})}
	ch := make(chan *prometheus.Desc)
	go func() {
		n.registry().Describe(ch)
		close(ch)
	}()
	names := map[string][]string{}
	desc := regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)
	for d := range ch {
		if m := desc.FindStringSubmatch(d.String()); m != nil {
			names[m[1]] = strings.Split(m[2], ",")
		}
	}
	names["up"] = nil
	return names
}

// used finds the metrics of a PromQL expression, and the labels that it selects each by.
var (
	used   = regexp.MustCompile(`\b(skein_[a-z0-9_]+|up)\b(\{[^}]*\})?`)
	labels = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
)

func checkExpression(t *testing.T, where, expr string, names map[string][]string) {
	t.Helper()
	found := used.FindAllStringSubmatch(expr, -1)
	if len(found) == 0 {
		t.Errorf("%s: no metric in %q", where, expr)
	}
	for _, m := range found {
		name := m[1]
		known, ok := names[name]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, cut := strings.CutSuffix(name, suffix); !ok && cut {
				known, ok = names[base]
			}
		}
		if !ok {
			t.Errorf("%s: there is no metric %s", where, name)
		}
		for _, l := range labels.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(append(known, "job", "instance"), l[1]) {
				t.Errorf("%s: %s has no label %s", where, name, l[1])
			}
		}
	}
	if strings.Count(expr, "(") != strings.Count(expr, ")") {
		t.Errorf("%s: parentheses of %q", where, expr)
	}
}

// The alert rules and the dashboard ask for metrics and labels that exist.
func TestMonitoringFiles(t *testing.T) {
	names := metricNames(t)
	text, err := os.ReadFile("../../../docs/monitoring/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules.Groups[0].Rules {
		checkExpression(t, r.Alert, r.Expr, names)
		if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
			t.Errorf("%s says too little: %+v", r.Alert, r)
		}
	}
	if text, err = os.ReadFile("../../../docs/monitoring/grafana.json"); err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			checkExpression(t, "panel "+p.Title, strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"), names)
		}
	}
	if len(board.Panels) < 10 || len(rules.Groups[0].Rules) < 10 {
		t.Error("most of the files is missing")
	}
}
