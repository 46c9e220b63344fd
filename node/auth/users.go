package auth

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Users are the names and password hashes of a password file: NAME:HASH a line, # begins a comment.
type Users struct {
	hashes map[string]Hash
	decoy  Hash // what an unknown user is compared with
}

// ParseUsers reads a password file. The error names every line that can't be read.
func ParseUsers(data []byte) (*Users, error) {
	u := &Users{hashes: make(map[string]Hash)}
	var errs []error
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, text, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			errs = append(errs, fmt.Errorf("line %d: wants NAME:HASH", n))
			continue
		}
		h, err := ParseHash(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: user %q: %w: make it with 'skein passwd' or mosquitto_passwd", n, name, err))
			continue
		}
		if _, twice := u.hashes[name]; twice {
			errs = append(errs, fmt.Errorf("line %d: user %q is there twice", n, name))
			continue
		}
		u.hashes[name] = h
		u.decoy = h // the same kind as the others, so that the time is the same
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, err)
	}
	if u.decoy == nil {
		u.decoy, _ = ParseHash(NewHash([]byte("nobody")))
	}
	return u, errors.Join(errs...)
}

// Check tells whether the password is the user's. It takes as long for a user that does not exist.
func (u *Users) Check(name string, password []byte) bool {
	h, ok := u.hashes[name]
	if !ok {
		u.decoy.Matches(password)
		return false
	}
	return h.Matches(password)
}

// Has tells whether there is such a user.
func (u *Users) Has(name string) bool {
	_, ok := u.hashes[name]
	return ok
}

// Len is how many users there are.
func (u *Users) Len() int { return len(u.hashes) }
