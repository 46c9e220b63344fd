package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SetPassword writes a user's hash into a password file, which it makes if need be: the file is
// replaced as a whole, so a node that reads it sees the old one or the new one.
func SetPassword(path, name, hash string) error {
	if name == "" || strings.ContainsAny(name, ":\r\n") {
		return fmt.Errorf("user name %q: must not be empty nor hold a colon", name)
	}
	return edit(path, name, name+":"+hash)
}

// ErrNoUser: the file has no such user.
var ErrNoUser = errors.New("no such user")

// RemoveUser takes a user out of a password file.
func RemoveUser(path, name string) error { return edit(path, name, "") }

// edit replaces a user's line, or removes it when line is empty.
func edit(path, name, line string) error {
	mode := fs.FileMode(0o600)
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		if st, err := os.Stat(path); err == nil {
			mode = st.Mode().Perm()
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	var out bytes.Buffer
	found := false
	for old := range strings.Lines(string(data)) {
		text := strings.TrimRight(old, "\r\n")
		if strings.HasPrefix(text, name+":") {
			if found || line == "" {
				found = true
				continue
			}
			text, found = line, true
		}
		out.WriteString(text + "\n")
	}
	switch {
	case !found && line == "":
		return fmt.Errorf("%s: %w: %q", path, ErrNoUser, name)
	case !found:
		out.WriteString(line + "\n")
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) // gone already when all went well
	_, err = temporary.Write(out.Bytes())
	err = errors.Join(err, temporary.Chmod(mode), temporary.Sync(), temporary.Close())
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}
