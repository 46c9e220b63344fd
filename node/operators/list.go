package operators

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The file of operators has a line for each, "NAME:ROLE:CREDENTIAL". The credential is "cert", for whoever shows a
// certificate of that common name, or "sha256=" and the digest of a token in hexadecimal. Empty lines and those
// that begin with # are skipped. Tokens are 256 random bits, so a plain digest gives nothing away.
type list struct {
	tokens map[[sha256.Size]byte]Operator
	certs  map[string]Operator // by common name
}

const (
	certificate = "cert"
	digest      = "sha256="
	tokenPrefix = "skein_" // so that scanners for secrets know one
)

// NewToken makes a token, and its credential in the file.
func NewToken() (token, credential string) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(token))
	return token, digest + hex.EncodeToString(sum[:])
}

func parseList(data []byte) (*list, error) {
	l := &list{tokens: make(map[[sha256.Size]byte]Operator), certs: make(map[string]Operator)}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		if err := l.line(text); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return l, lines.Err()
}

func (l *list) line(text string) error {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 || checkName(parts[0]) != nil {
		return errors.New("wants NAME:ROLE:CREDENTIAL: use 'skein operator add'") // without the text: it may hold a secret
	}
	role, err := ParseRole(parts[1])
	if err != nil {
		return err
	}
	o := Operator{Name: parts[0], Role: role}
	if parts[2] == certificate {
		if _, twice := l.certs[o.Name]; twice {
			return fmt.Errorf("%s has a certificate twice", o.Name)
		}
		l.certs[o.Name] = o
		return nil
	}
	sum, ok := strings.CutPrefix(parts[2], digest)
	raw, err := hex.DecodeString(sum)
	if !ok || err != nil || len(raw) != sha256.Size {
		return fmt.Errorf("the credential of %s is neither cert nor sha256= with 64 digits", o.Name)
	}
	key := [sha256.Size]byte(raw)
	if _, twice := l.tokens[key]; twice {
		return fmt.Errorf("%s has the token of another line", o.Name)
	}
	l.tokens[key] = o
	return nil
}

func checkName(name string) error {
	if name == "" || strings.ContainsAny(name, ":# \t\r\n") {
		return fmt.Errorf("%q can't be an operator's name: it must not be empty nor hold blanks, colons or #", name)
	}
	return nil
}

// Add writes an operator's line into the file, which is made if need be. credential is that of NewToken; empty:
// a certificate. Other lines of that name stay, so that a token can be replaced before the old one goes.
func Add(path, name string, role Role, credential string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if credential == "" {
		credential = certificate
	}
	return edit(path, func(lines []string) ([]string, error) {
		return append(lines, name+":"+role.String()+":"+credential), nil
	})
}

// Remove takes all lines of a name out of the file.
func Remove(path, name string) error {
	return edit(path, func(lines []string) ([]string, error) {
		var out []string
		for _, line := range lines {
			if !strings.HasPrefix(strings.TrimSpace(line), name+":") {
				out = append(out, line)
			}
		}
		if len(out) == len(lines) {
			return nil, fmt.Errorf("%s: there is no operator %q", path, name)
		}
		return out, nil
	})
}

// edit replaces the file at once: a node may read it at any moment.
func edit(path string, change func(lines []string) ([]string, error)) error {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var lines []string
	if text := strings.TrimRight(string(data), "\n"); text != "" {
		lines = strings.Split(text, "\n")
	}
	if lines, err = change(lines); err != nil {
		return err
	}
	out := strings.Join(lines, "\n") + "\n"
	if _, err := parseList([]byte(out)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(out)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
