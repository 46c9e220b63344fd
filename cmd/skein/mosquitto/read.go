package mosquitto

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Fate is what became of a line.
type Fate uint8

// The fates.
const (
	Taken    Fate = iota // it is a key of ours
	Changed              // the nearest that there is
	Needless             // what it asks for is so anyway, or has no meaning here
	Missing              // there is no counterpart
	Bad                  // it can't be read
)

var fateNames = [...]string{"taken", "changed", "needless", "MISSING", "BAD"}

// String is the fate for people; those that need their eye are in capitals.
func (f Fate) String() string { return fateNames[f] }

// Note is what became of a line.
type Note struct {
	File   string
	Line   int
	Option string // and its value, unless that is a secret
	Fate   Fate
	Text   string
}

// String is the note as a compiler would write it.
func (n Note) String() string {
	return fmt.Sprintf("%s:%d: %s: %s: %s", n.File, n.Line, n.Option, n.Fate, n.Text)
}

// line of a configuration.
type line struct {
	file   string
	number int
	option string
	value  string
}

// read returns the lines of a file and of the folders that it includes, in Mosquitto's order.
func read(path string, depth int) (lines []line, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if depth > 8 {
		return nil, fmt.Errorf("%s: include_dir goes too deep", path)
	}
	s := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; s.Scan(); n++ {
		text := strings.TrimSpace(s.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		option, value, _ := strings.Cut(text, " ")
		l := line{path, n, option, strings.TrimSpace(value)}
		lines = append(lines, l)
		if option != "include_dir" {
			continue
		}
		found, err := filepath.Glob(filepath.Join(l.value, "*.conf"))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: include_dir: %w", path, n, err)
		}
		slices.SortFunc(found, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
		for _, f := range found {
			more, err := read(f, depth+1)
			if err != nil {
				return nil, err
			}
			lines = append(lines, more...)
		}
	}
	return lines, s.Err()
}
