package membership

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrPlain: the gossip runs without keys, and can't change that while it runs.
var ErrPlain = errors.New("the gossip began in plain text: start the node again to encrypt it")

// Rekey replaces the keys: the first encrypts what is sent from now on, all decrypt. Nodes get a new key as a further
// one first, all of them, before one of them uses it.
func (m *Membership) Rekey(keys [][]byte) error {
	switch {
	case m.keys == nil && len(keys) == 0:
		return nil
	case m.keys == nil:
		return ErrPlain
	case len(keys) == 0:
		return errors.New("there are no keys: the gossip does not go back to plain text while it runs")
	}
	for _, k := range keys {
		if err := m.keys.AddKey(k); err != nil {
			return err
		}
	}
	if err := m.keys.UseKey(keys[0]); err != nil {
		return err
	}
	for _, old := range m.keys.GetKeys() {
		if !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) {
			if err := m.keys.RemoveKey(old); err != nil {
				return err
			}
		}
	}
	return nil
}

// ParseKeys reads a file of keys: one a line, 16, 24 or 32 bytes as hexadecimal or base64; empty lines and those that
// begin with # are skipped.
func ParseKeys(data []byte) (keys [][]byte, err error) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		key, ok := parseKey(text)
		if !ok {
			return nil, fmt.Errorf("line %d is not 16, 24 or 32 bytes as hexadecimal or base64", n)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return keys, lines.Err()
}

func parseKey(text string) ([]byte, bool) {
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString} {
		if key, err := decode(text); err == nil && (len(key) == 16 || len(key) == 24 || len(key) == 32) {
			return key, true
		}
	}
	return nil, false
}
