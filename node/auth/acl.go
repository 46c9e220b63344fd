package auth

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/skein-mqtt/skein/proto/topic"
)

// Access is what somebody wants to do with a topic.
type Access uint8

// The kinds of access.
const (
	Read  Access = 1 << iota // receive messages
	Write                    // publish them
)

// ACL is an access list as in Mosquitto's acl_file: 'topic' lines for the user named before them, or
// for clients without a user name when none was; 'pattern' lines for everybody, with %c and %u. What
// no line allows is forbidden, and a deny wins over whatever allows.
type ACL struct {
	users    map[string][]rule
	nobody   []rule // clients without a user name
	patterns []rule
}

type rule struct {
	filter string
	access Access // 0: deny
	holes  bool   // %c or %u
}

// ParseACL reads an access list. The error names every line that can't be read.
func ParseACL(data []byte) (*ACL, error) {
	a := &ACL{users: make(map[string][]rule)}
	var errs []error
	bad := func(n int, format string, args ...any) {
		errs = append(errs, fmt.Errorf("line %d: %s", n, fmt.Sprintf(format, args...)))
	}
	user, named := "", false
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		switch word {
		case "user":
			if rest == "" {
				bad(n, "user wants a name")
			}
			user, named = rest, true
			if _, ok := a.users[user]; !ok && rest != "" {
				a.users[user] = nil
			}
		case "topic", "pattern":
			r, err := parseRule(rest)
			if err != nil {
				bad(n, "%s: %s", word, err)
				continue
			}
			switch {
			case word == "pattern":
				r.holes = strings.Contains(r.filter, "%c") || strings.Contains(r.filter, "%u")
				a.patterns = append(a.patterns, r)
			case named:
				a.users[user] = append(a.users[user], r)
			default:
				a.nobody = append(a.nobody, r)
			}
		default:
			bad(n, "%q is not user, topic or pattern", word)
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, err)
	}
	return a, errors.Join(errs...)
}

func parseRule(text string) (rule, error) {
	r := rule{access: Read | Write, filter: text}
	if word, rest, ok := strings.Cut(text, " "); ok {
		r.filter = strings.TrimSpace(rest)
		switch word {
		case "read":
			r.access = Read
		case "write":
			r.access = Write
		case "readwrite":
		case "deny":
			r.access = 0
		default:
			r.filter = text // a topic with a blank in it
		}
	}
	if err := topic.ValidateFilter(r.filter); err != nil {
		return r, fmt.Errorf("%q: %w", r.filter, err)
	}
	return r, nil
}

// Allows tells whether a client may do something with a topic. username is empty for a client
// without one.
func (a *ACL) Allows(username, clientID, name string, want Access) bool {
	own := a.nobody
	if username != "" {
		own = a.users[username]
	}
	return allows(own, username, clientID, name, want) || !denied(own, username, clientID, name) && allows(a.patterns, username, clientID, name, want)
}

func denied(rules []rule, username, clientID, name string) bool {
	for i := range rules {
		if r := &rules[i]; r.access == 0 && r.matches(username, clientID, name) {
			return true
		}
	}
	return false
}

func allows(rules []rule, username, clientID, name string, want Access) bool {
	if denied(rules, username, clientID, name) {
		return false
	}
	for i := range rules {
		if r := &rules[i]; r.access&want != 0 && r.matches(username, clientID, name) {
			return true
		}
	}
	return false
}

func (r *rule) matches(username, clientID, name string) bool {
	filter := r.filter
	if r.holes {
		// A name with a wildcard or a separator in it would reach more than its own topics.
		if strings.Contains(filter, "%u") && (username == "" || strings.ContainsAny(username, "+#/")) ||
			strings.Contains(filter, "%c") && strings.ContainsAny(clientID, "+#/") {
			return false
		}
		filter = strings.NewReplacer("%c", clientID, "%u", username).Replace(filter)
	}
	return topic.Match(filter, name)
}
