package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"runtime"
	"strings"
	"time"
)

// Markers between which the table stands in a file.
const (
	beginMark = "<!-- compare: begin -->"
	endMark   = "<!-- compare: end -->"
)

// round3 shows three digits.
func round3(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case v >= 1e5:
		return fmt.Sprintf("%.0fk", v/1e3)
	case v >= 1e3:
		return fmt.Sprintf("%.1fk", v/1e3)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

// cell is a broker's median, its range, its CPU and what went wrong.
func (s *score) cell(u *unit) string {
	if len(s.values) == 0 {
		return "failed: " + s.wrong[0]
	}
	lo, hi := math.Inf(1), 0.0
	for _, v := range s.values {
		lo, hi = min(lo, v), max(hi, v)
	}
	text := fmt.Sprintf("%s (%s–%s)", round3(middle(s.values)), round3(lo), round3(hi))
	if u.cpu {
		text += ", CPU " + round3(middle(s.cpus))
	}
	if len(s.wrong) > 0 {
		text += "; " + s.wrong[0]
	}
	return text
}

func (r *result) of(name string) *score {
	for _, s := range r.brokers {
		if s.name == name {
			return s
		}
	}
	return nil
}

// ratio is how often better Skein is than another, above 1, or worse, below.
func (r *result) ratio(s *score) float64 {
	own, other := middle(r.of("Skein").values), middle(s.values)
	if own == 0 || other == 0 {
		return 0
	}
	if r.unit.less {
		return other / own
	}
	return own / other
}

// best is the best of the others; nil if there is none.
func (r *result) best() (best *score) {
	for _, s := range r.brokers {
		if s.name != "Skein" && len(s.values) > 0 && (best == nil || r.ratio(s) < r.ratio(best)) {
			best = s
		}
	}
	return best
}

// verdict compares with what was promised, or else with the best of the others.
func (r *result) verdict() string {
	best := r.best()
	if best == nil {
		return "nobody to compare with"
	}
	text := fmt.Sprintf("%s × %s", round3(r.ratio(best)), best.name)
	if s := r.of(r.against); s != nil {
		word := "reached"
		if r.ratio(s) < r.factor {
			word = "missed"
		}
		text += fmt.Sprintf("; %s × %s, aim %.3g: %s", round3(r.ratio(s)), s.name, r.factor, word)
	}
	return text
}

func (r *result) line() string {
	var cells []string
	for _, s := range r.brokers {
		cells = append(cells, s.name+" "+s.cell(&r.unit))
	}
	return fmt.Sprintf("%s, %s: %s — %s", r.name, r.unit.name, strings.Join(cells, " | "), r.verdict())
}

// table is in Markdown.
func table(o *options, results []*result, missing []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, %d turns of %s each, the brokers in alternation; median (lowest–highest), CPU seconds of the broker per million deliveries.\n",
		time.Now().Format("2006-01-02"), runtime.NumCPU(), o.rounds, o.duration)
	for _, nodes := range []int{1, 3} {
		var names []string
		for _, r := range results {
			if r.nodes != nodes {
				continue
			}
			if names == nil {
				for _, s := range r.brokers {
					names = append(names, s.name)
				}
				fmt.Fprintf(&b, "\n| %s | unit | %s | Skein against the best |\n|---|---|%s---|\n", map[int]string{1: "one node", 3: "three nodes"}[nodes],
					strings.Join(names, " | "), strings.Repeat("---|", len(names)))
			}
			fmt.Fprintf(&b, "| %s | %s |", r.name, r.unit.name)
			for _, n := range names {
				text := ""
				if s := r.of(n); s != nil {
					text = s.cell(&r.unit)
				}
				fmt.Fprintf(&b, " %s |", text)
			}
			fmt.Fprintf(&b, " %s |\n", r.verdict())
		}
	}
	b.WriteString("\n")
	for _, p := range allPeers {
		fmt.Fprintf(&b, "- %s: %s.\n", p.name, p.about)
	}
	for _, m := range missing {
		fmt.Fprintf(&b, "- Left out here: %s.\n", m)
	}
	return b.String()
}

// write shows the table, and puts it and the chart where they belong.
func write(o *options, results []*result, missing []string) error {
	text := table(o, results, missing)
	fmt.Print(text)
	if o.chart != "" {
		if err := os.WriteFile(o.chart, []byte(chart(results)), 0o644); err != nil {
			return err
		}
	}
	if o.table == "" {
		return nil
	}
	old, err := os.ReadFile(o.table)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(old), beginMark)
	_, tail, closed := strings.Cut(rest, endMark)
	if !ok || !closed {
		return fmt.Errorf("%s has no %s and %s", o.table, beginMark, endMark)
	}
	return os.WriteFile(o.table, []byte(head+beginMark+"\n"+text+endMark+tail), 0o644)
}

// chart shows, for each row, how the others do beside Skein, whose bar is 1; logarithmic.
func chart(results []*result) string {
	const (
		left, width, bar, gap = 270, 430, 11, 14
		decades               = 4.0 // from 1/1000 to 10
	)
	colours := map[string]string{"Skein": "#0b7285", "Mosquitto": "#868e96", "mochi": "#e8590c", "NATS": "#5f3dc4", "FlashMQ": "#2b8a3e"}
	at := func(v float64) float64 {
		return width * min(max((math.Log10(v)+3)/decades, 0), 1)
	}
	var b strings.Builder
	y := 40
	for _, r := range results {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+bar, html.EscapeString(r.name))
		for _, s := range r.brokers {
			v := 1.0
			if s.name != "Skein" {
				if v = r.ratio(s); v == 0 {
					continue
				}
				v = 1 / v
			}
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d" class="s">%s %s</text>`+"\n",
				left, y, at(v), bar, colours[s.name], left+at(v)+4, y+bar-2, s.name, round3(middle(s.values)))
			y += bar + 2
		}
		y += gap
	}
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+
		`<style>.s{font-size:10px}text{fill:#495057}</style><rect width="100%%" height="100%%" fill="#fff"/>`+
		`<text x="10" y="20">How well brokers do, Skein being 1 (logarithmic; longer is better; the figures are those of the table)</text>`+"\n", left+width+130, y)
	for d := range int(decades) + 1 {
		x := left + width*float64(d)/decades
		head += fmt.Sprintf(`<line x1="%.1f" y1="30" x2="%.1f" y2="%d" stroke="#dee2e6"/>`+"\n", x, x, y)
	}
	return head + b.String() + "</svg>\n"
}
