package topic

import (
	"errors"
	"strings"
	"testing"
)

func TestValidateName(t *testing.T) {
	long := strings.Repeat("x", MaxBytes)
	for _, tt := range []struct {
		name   string
		limits Limits
		want   error
	}{
		{"a", Limits{}, nil},
		{"/", Limits{}, nil},
		{"//", Limits{}, nil},
		{"a//b", Limits{}, nil},
		{" ", Limits{}, nil},
		{"$SYS/x", Limits{}, nil},
		{"$share/g/x", Limits{}, nil},
		{"é/世界/\U0001F9A2", Limits{}, nil},
		{"\ufeff", Limits{}, nil}, // [MQTT-1.5.4-3]
		{long, Limits{}, nil},
		{"", Limits{}, ErrEmpty},
		{long + "x", Limits{}, ErrTooLong},
		{"+", Limits{}, ErrWildcard},
		{"a/#", Limits{}, ErrWildcard},
		{"a+b", Limits{}, ErrWildcard},
		{"a\x00b", Limits{}, ErrNull},
		{"\xff", Limits{}, ErrUTF8},
		{"\xed\xa0\x80", Limits{}, ErrUTF8}, // a surrogate
		{"\xc0\x80", Limits{}, ErrUTF8},     // an overlong zero
		{"\xf4\x90\x80\x80", Limits{}, ErrUTF8},
		{"abc", Limits{Bytes: 3}, nil},
		{"abcd", Limits{Bytes: 3}, ErrTooLong},
		{"é", Limits{Bytes: 1}, ErrTooLong},
		{long, Limits{Bytes: 1 << 20}, nil},
		{"a/b", Limits{Levels: 2}, nil},
		{"a/b/", Limits{Levels: 2}, ErrTooDeep},
	} {
		if err := tt.limits.ValidateName(tt.name); !errors.Is(err, tt.want) {
			t.Errorf("%.20q with %+v: %v, want %v", tt.name, tt.limits, err, tt.want)
		}
	}
	if ValidateName("a/b") != nil || ValidateName("a/+") == nil {
		t.Error("without limits it is otherwise")
	}
}

func TestValidateFilter(t *testing.T) {
	long := strings.Repeat("x", MaxBytes)
	for _, tt := range []struct {
		filter string
		limits Limits
		want   error
	}{
		{"#", Limits{}, nil},
		{"+", Limits{}, nil},
		{"/", Limits{}, nil},
		{"/+", Limits{}, nil},
		{"+/", Limits{}, nil},
		{"+/+/#", Limits{}, nil},
		{"a/+/b/#", Limits{}, nil},
		{"/#", Limits{}, nil},
		{"$SYS/#", Limits{}, nil},
		{"", Limits{}, ErrEmpty},
		{"a#", Limits{}, ErrWildcard},
		{"#a", Limits{}, ErrWildcard},
		{"#/a", Limits{}, ErrWildcard},
		{"a/#/b", Limits{}, ErrWildcard},
		{"##", Limits{}, ErrWildcard},
		{"#/#", Limits{}, ErrWildcard},
		{"a+", Limits{}, ErrWildcard},
		{"+a", Limits{}, ErrWildcard},
		{"a/b+/c", Limits{}, ErrWildcard},
		{"++", Limits{}, ErrWildcard},
		{"+#", Limits{}, ErrWildcard},
		{"a\x00", Limits{}, ErrNull},
		{"\xff", Limits{}, ErrUTF8},
		{long, Limits{}, nil},
		{long + "x", Limits{}, ErrTooLong},
		{"$share/g/a", Limits{}, nil},
		{"$share/g/#", Limits{}, nil},
		{"$share/g//", Limits{}, nil},
		{"$share/g/$SYS/x", Limits{}, nil},
		{"$share/g/$share/h/x", Limits{}, nil},
		{"$share", Limits{}, nil}, // a topic like any other
		{"$shared/g/x", Limits{}, nil},
		{"$share/", Limits{}, ErrShare},
		{"$share/g", Limits{}, ErrShare},
		{"$share/g/", Limits{}, ErrShare},
		{"$share//a", Limits{}, ErrShare},
		{"$share/+/a", Limits{}, ErrShare},
		{"$share/g#/a", Limits{}, ErrShare},
		{"$share/g/a#", Limits{}, ErrWildcard},
		{"$share/g/a/b", Limits{Levels: 2}, nil}, // the levels of the filter in it
		{"$share/g/a/b/c", Limits{Levels: 2}, ErrTooDeep},
		{"$share/g/a", Limits{Bytes: 9}, ErrTooLong},
	} {
		if err := tt.limits.ValidateFilter(tt.filter); !errors.Is(err, tt.want) {
			t.Errorf("%.20q with %+v: %v, want %v", tt.filter, tt.limits, err, tt.want)
		}
	}
}

func TestParseShare(t *testing.T) {
	for _, tt := range []struct {
		in, group, filter string
		shared, bad       bool
	}{
		{in: "a/b", filter: "a/b"},
		{in: "$share", filter: "$share"},
		{in: "$SHARE/g/a", filter: "$SHARE/g/a"},
		{in: "$share/g/a/b", group: "g", filter: "a/b", shared: true},
		{in: "$share/g//", group: "g", filter: "/", shared: true},
		{in: "$share/g", shared: true, bad: true},
		{in: "$share/g/", shared: true, bad: true},
		{in: "$share//a", shared: true, bad: true},
		{in: "$share/a+b/a", shared: true, bad: true},
	} {
		group, filter, shared, err := ParseShare(tt.in)
		if group != tt.group || filter != tt.filter || shared != tt.shared || errors.Is(err, ErrShare) != tt.bad {
			t.Errorf("%q: %q, %q, %v, %v", tt.in, group, filter, shared, err)
		}
	}
}

// TestMatch: the examples of section 4.7 of the specification, and the edges.
func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		filter, name string
		want         bool
	}{
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/tennis/player1/#", "sport/tennis/player11", false},
		{"sport/#", "sport", true},
		{"#", "a/b/c", true},
		{"#", "/", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"+", "finance", true},
		{"+/tennis/#", "sport/tennis", true},
		{"#", "$SYS/x", false}, // [MQTT-4.7.2-1]
		{"+/x", "$SYS/x", false},
		{"+/#", "$SYS/x", false},
		{"$SYS/#", "$SYS/x", true},
		{"$SYS/#", "$SYS", true},
		{"$SYS/+", "$SYS/x", true},
		{"a/+", "a/$b", true}, // only at the start
		{"a/#", "a/$b", true},
		{"A", "a", false},
		{"a", "/a", false},
		{"a/", "a", false},
		{"a", "a/", false},
		{"a//b", "a/b", false},
		{"a/+/b", "a//b", true},
		{"a/#", "ab", false},
		{"+/b", "a/b", true},
		{"a/b", "a/b", true},
	} {
		if got := Match(tt.filter, tt.name); got != tt.want {
			t.Errorf("Match(%q, %q) is %v", tt.filter, tt.name, got)
		}
		var tree Tree[int, int]
		tree.Add(tt.filter, 1, 1)
		if tree.Has(tt.name) != tt.want {
			t.Errorf("tree with %q: %q is %v", tt.filter, tt.name, !tt.want)
		}
		var names NameTree[int]
		names.Set(tt.name, 1)
		got := false
		names.MatchFilter(tt.filter, func(string, int) bool { got = true; return true })
		if got != tt.want {
			t.Errorf("names with %q: %q is %v", tt.name, tt.filter, got)
		}
	}
	if HasWildcard("a/b") || !HasWildcard("a/+") || !HasWildcard("#") {
		t.Error("HasWildcard is wrong")
	}
}
