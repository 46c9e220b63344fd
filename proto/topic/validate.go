package topic

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// Why a name or filter is refused.
var (
	ErrEmpty    = errors.New("topic is empty")                                // [MQTT-4.7.3-1]
	ErrTooLong  = errors.New("topic is too long")                             // [MQTT-4.7.3-3]
	ErrTooDeep  = errors.New("topic has too many levels")                     // only where a limit is set
	ErrUTF8     = errors.New("topic is not valid UTF-8")                      // [MQTT-1.5.4-1]
	ErrNull     = errors.New("topic contains U+0000")                         // [MQTT-4.7.3-2]
	ErrWildcard = errors.New("topic has a wildcard where none may be")        // [MQTT-4.7.0-1], [MQTT-4.7.1-1], [MQTT-4.7.1-2]
	ErrShare    = errors.New("shared subscription needs $share/GROUP/FILTER") // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
)

// MaxBytes is the longest string that the protocol can carry [MQTT-4.7.3-3].
const MaxBytes = 65535

// Limits narrow what the protocol allows. The zero value is the protocol's own limits.
type Limits struct {
	Bytes  int // longest name or filter; 0: MaxBytes
	Levels int // most levels; 0: as many as fit
}

// ValidateName checks a topic name: not empty, UTF-8 without U+0000, no wildcard.
func ValidateName(name string) error { return Limits{}.ValidateName(name) }

// ValidateFilter checks a topic filter. One that begins with $share/ is checked as a shared
// subscription.
func ValidateFilter(filter string) error { return Limits{}.ValidateFilter(filter) }

// ValidateName is ValidateName with limits.
func (l Limits) ValidateName(name string) error {
	if l.plain(name) {
		return nil
	}
	if err := l.check(name); err != nil {
		return err
	}
	if strings.ContainsAny(name, "+#") {
		return ErrWildcard
	}
	return nil
}

// plain finds the names of almost every message to be valid, in one pass: they are ASCII.
func (l Limits) plain(name string) bool {
	if name == "" || len(name) > MaxBytes || l.Bytes > 0 && len(name) > l.Bytes {
		return false
	}
	levels := 1
	for i := range len(name) {
		switch c := name[i]; {
		case c == '/':
			levels++
		case c == 0, c >= 0x80, c == '+', c == '#':
			return false
		}
	}
	return l.Levels <= 0 || levels <= l.Levels
}

// ValidateFilter is ValidateFilter with limits. The levels of a shared subscription are those of
// the filter in it; its length is the whole.
func (l Limits) ValidateFilter(filter string) error {
	if err := (Limits{Bytes: l.Bytes}).check(filter); err != nil {
		return err
	}
	_, filter, _, err := ParseShare(filter)
	if err != nil {
		return err
	}
	if l.Levels > 0 && strings.Count(filter, "/") >= l.Levels {
		return ErrTooDeep
	}
	return wildcards(filter)
}

func (l Limits) check(s string) error {
	longest := MaxBytes
	if l.Bytes > 0 {
		longest = min(longest, l.Bytes)
	}
	switch {
	case s == "":
		return ErrEmpty
	case len(s) > longest:
		return ErrTooLong
	case !utf8.ValidString(s):
		return ErrUTF8
	case strings.IndexByte(s, 0) >= 0:
		return ErrNull
	case l.Levels > 0 && strings.Count(s, "/") >= l.Levels:
		return ErrTooDeep
	}
	return nil
}

// wildcards checks that + and # stand alone in their level and that # is the last one.
func wildcards(filter string) error {
	for i := 0; i < len(filter); i++ {
		switch filter[i] {
		case '#':
			if i != len(filter)-1 || i > 0 && filter[i-1] != '/' {
				return ErrWildcard
			}
		case '+':
			if i > 0 && filter[i-1] != '/' || i+1 < len(filter) && filter[i+1] != '/' {
				return ErrWildcard
			}
		}
	}
	return nil
}

const sharePrefix = "$share/"

// ParseShare takes a shared subscription apart. Any other filter comes back as it is, with shared
// false. The filter in it is not checked beyond not being empty (see ValidateFilter). Group and
// filter alias s.
func ParseShare(s string) (group, filter string, shared bool, err error) {
	rest, shared := strings.CutPrefix(s, sharePrefix)
	if !shared {
		return "", s, false, nil
	}
	group, filter, _ = strings.Cut(rest, "/")
	if group == "" || filter == "" || strings.ContainsAny(group, "+#") {
		return "", "", true, ErrShare
	}
	return group, filter, true, nil
}

// HasWildcard is true for a filter that can match more than one name.
func HasWildcard(filter string) bool { return strings.ContainsAny(filter, "+#") }

// Match tells whether a valid filter, without $share, matches a valid name. A filter that begins
// with a wildcard does not match names that begin with $ [MQTT-4.7.2-1].
func Match(filter, name string) bool {
	if strings.HasPrefix(name, "$") && (strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#")) {
		return false
	}
	for {
		want, filterRest, moreFilter := strings.Cut(filter, "/")
		if want == "#" && !moreFilter {
			return true
		}
		level, nameRest, moreName := strings.Cut(name, "/")
		if want != "+" && want != level {
			return false
		}
		if !moreName {
			return !moreFilter || filterRest == "#" // a/# matches a [MQTT-4.7.1.2]
		}
		if !moreFilter {
			return false
		}
		filter, name = filterRest, nameRest
	}
}
