package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func sample() []*result {
	return []*result{
		{row: &row{name: "a < b", nodes: 1, unit: rate, against: "NATS", factor: 2}, brokers: []*score{
			{name: "Skein", values: []float64{100, 300, 200}, cpus: []float64{1, 2, 3}},
			{name: "NATS", values: []float64{80, 120}, cpus: []float64{8}},
			{name: "mochi", values: []float64{400}, cpus: []float64{9}, wrong: []string{"3 lost"}},
			{name: "Mosquitto", wrong: []string{"no CONNACK"}},
		}},
		{row: &row{name: "memory", nodes: 3, unit: memory}, brokers: []*score{{name: "Skein", values: []float64{4}}, {name: "NATS", values: []float64{2}}}},
	}
}

func TestVerdict(t *testing.T) {
	r := sample()
	if got := r[0].verdict(); got != "0.5 × mochi; 2 × NATS, aim 2: reached" {
		t.Error(got)
	}
	r[0].factor = 2.1
	if got := r[0].verdict(); !strings.HasSuffix(got, "missed") {
		t.Error(got)
	}
	if got := r[1].verdict(); got != "0.5 × NATS" { // less is better
		t.Error(got)
	}
	if got := (&result{row: r[0].row, brokers: r[0].brokers[:1]}).verdict(); got != "nobody to compare with" {
		t.Error(got)
	}
}

// TestWrite: the table replaces what stood between the markers, and nothing else.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	o := &options{rounds: 3, duration: time.Second, table: filepath.Join(dir, "doc.md"), chart: filepath.Join(dir, "chart.svg")}
	if err := os.WriteFile(o.table, []byte("before\n"+beginMark+"old"+endMark+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := write(o, sample(), []string{"FlashMQ: not there"}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(o.table)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{"| 200 (100–300), CPU 2 |", "| 400 (400–400), CPU 9; 3 lost |", "| failed: no CONNACK |", "FlashMQ: not there"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if !strings.HasPrefix(text, "before\n"+beginMark) || !strings.HasSuffix(text, endMark+"\nafter\n") || strings.Contains(text, "old") || strings.Count(text, "one node") != 1 {
		t.Error(text)
	}
	svg, err := os.Open(o.chart)
	if err != nil {
		t.Fatal(err)
	}
	defer svg.Close()
	bars := 0
	for d := xml.NewDecoder(svg); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 1+5 { // the background, and whoever has a figure
		t.Errorf("%d bars", bars)
	}
	if err := os.WriteFile(o.table, []byte("no markers"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := write(o, sample(), nil); err == nil || !strings.Contains(err.Error(), beginMark) {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	if got := (&figures{Lost: 1, Failed: 2}).faults(); got != "1 lost, 2 failed" {
		t.Error(got)
	}
}
